"""Sound files with one header that states how many bytes of samples follow: AU, NIST Sphere, AVR, SDS, VOC, XI, WVE."""

import re
from collections.abc import Callable
from typing import BinaryIO, Literal

from c2c_jax.io.codecs.chunks import MAX_CHUNKS, Family, patched, size_of_samples
from c2c_jax.io.codecs.containers import BrokenSoundError, Layout, Piece, Stream, is_padding, is_sound, read_at

HEAD = 1024  # bytes in which all of these headers are
SDS_PACKET = 127  # bytes
BYTES = Family(0, 0, "big", 0, b"", align=1)


def header_reader(head: bytes) -> Callable[[BinaryIO, int, int, Layout], int] | None:
    """What reads a file with these first bytes; None: it is of another format."""
    if head[:4] in (b".snd", b"dns."):
        return _read_au
    if head[:19] == b"Creative Voice File":
        return _read_voc
    stated = next((one for magic, one in STATED.items() if re.match(magic, head, re.DOTALL)), None)
    if stated is None:
        return None

    def read(file: BinaryIO, start: int, end: int, layout: Layout) -> int:
        body, size = stated(read_at(file, start, HEAD))
        found, behind = size_of_samples(file, start, start + body, size, end, BYTES, layout)
        layout.streams.append(Stream(pieces=[(start, start + body + found)]))
        return behind

    return read


def _nist(head: bytes) -> tuple[int, int]:
    """Where the samples start and how many bytes they take."""
    fields = {name: int(value) for name, value in re.findall(rb"(\w+) -i (\d{1,12})\s", head)}
    count, channels, width = (fields.get(name, 0) for name in (b"sample_count", b"channel_count", b"sample_n_bytes"))
    start = re.match(rb"NIST_1A\n\s{0,6}(\d{1,6})\n", head)
    if not start:
        raise BrokenSoundError("is damaged: its NIST header states no length")
    return int(start[1]), count * channels * width


def _avr(head: bytes) -> tuple[int, int]:
    channels = 2 if head[13:14] == b"\xff" else 1
    return 128, int.from_bytes(head[26:30], "big") * channels * int.from_bytes(head[14:16], "big") // 8


def _sds(head: bytes) -> tuple[int, int]:
    """Packets of as many samples as fit in 120 bytes of 7 bits (MIDI 1.0, Sample Dump Standard)."""
    if len(head) < 21 or not 8 <= head[6] <= 28:
        raise BrokenSoundError("is damaged: its sample dump header states no width")
    frames = head[10] | head[11] << 7 | head[12] << 14
    samples = 120 // -(-head[6] // 7)
    return 21, -(-frames // samples) * SDS_PACKET


def _xi(head: bytes) -> tuple[int, int]:
    if head[296:298] != b"\1\0":
        raise BrokenSoundError("holds several samples of an instrument: convert it")
    return 338, int.from_bytes(head[298:302], "little")


def _wve(head: bytes) -> tuple[int, int]:
    return 32, int.from_bytes(head[18:22], "big")


STATED: dict[bytes, Callable[[bytes], tuple[int, int]]] = {
    rb"NIST_1A\n": _nist,
    rb"2BIT": _avr,
    rb"\xf0\x7e.\x01": _sds,
    rb"Extended Instrument: ": _xi,
    rb"ALawSoundFile\*\*": _wve,
}


def _read_au(file: BinaryIO, start: int, end: int, layout: Layout) -> int:
    """Adds the stream of an AU file and gives the place behind it."""
    head = read_at(file, start, 12)
    order: Literal["little", "big"] = "big" if head[:4] == b".snd" else "little"
    body, size = (int.from_bytes(head[place : place + 4], order) for place in (4, 8))
    if body < 24 or start + body > end:
        raise BrokenSoundError("is truncated or damaged: its header puts the samples beyond the end of the file")
    if body > HEAD:
        layout.notes.append(f"says that its samples begin at byte {body:,}; what is before them is not read")
    found, behind = size_of_samples(file, start, start + body, size, end, BYTES, layout)
    pieces: list[Piece] = [(start, start + body + found)]
    if found != size:
        stated = min(found, 0xFFFFFFF0).to_bytes(4, order)
        pieces = patched(start, start + 8, stated, start + body + found)
    layout.streams.append(Stream(pieces=pieces))
    return behind


def _read_voc(file: BinaryIO, start: int, end: int, layout: Layout) -> int:
    """Adds the stream of a VOC file, which is a row of blocks and a 0 behind them."""
    position = start + int.from_bytes(read_at(file, start + 20, 2), "little")
    for _ in range(MAX_CHUNKS):
        kind = read_at(file, position, 4)
        if not kind or kind[0] == 0:
            position += 1
            break
        position += 4 + int.from_bytes(kind[1:], "little")
        if position > end + 1:  # some count a byte too many
            raise BrokenSoundError("is truncated: its last block ends beyond the end of the file")
    position = min(position, end)
    layout.streams.append(Stream(pieces=[(start, position)]))
    if is_padding(file, position, end) or is_sound(read_at(file, position, 12)):
        return end if is_padding(file, position, end) else position
    layout.notes.append(f"has {end - position:,} bytes after its last block; they are ignored")
    return end

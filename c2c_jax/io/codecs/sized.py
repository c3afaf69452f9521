"""Checks sound files whose header states the number of bytes of samples: WAV, AIFF, CAF, AU and similar formats."""

import dataclasses
import math
import re
import struct
from typing import BinaryIO, Literal

from c2c_jax.io.codecs.containers import BrokenAudioError, Layout, Piece, Stream, is_padding, read_at

# Placeholders for an unknown size, which stay if a program is stopped or writes into a pipe: 0, or close to the largest
# number of 31, 32 or 64 bits.
UNKNOWN = [(0, 1), (0x7FFF0000, 0x80000100), (0xFFFF0000, 0x100000000), (0x7FFFFFFF00000000, 1 << 64)]
MAX_MISSING = 64  # bytes that may be missing, with a note, because some programs count the header as samples
MAX_CHUNKS = 10_000
HEAD = 1024  # bytes that include the header of every format without chunks
SAMPLE_CHUNKS = (b"data", b"SSND", b"BODY")
TEXT_CHUNKS = re.compile(rb"LIST|ID3 |id3 |bext|cue |JUNK|junk|PAD |iXML|_PMX|cart|axml|DISP")  # may be truncated

Order = Literal["little", "big"]


@dataclasses.dataclass(frozen=True)
class Family:
    """How a container stores its chunks. id, size: bytes of a chunk's id and size. first: offset of the first chunk.
    align: chunks start at multiples of it. includes_header: whether a chunk's size counts its id and size too."""

    id: int
    size: int
    order: Order
    first: int
    align: int = 2
    includes_header: bool = False


FAMILIES = {
    b"RIFF": Family(4, 4, "little", 12),
    b"RF64": Family(4, 4, "little", 12),
    b"RIFX": Family(4, 4, "big", 12),
    b"FORM": Family(4, 4, "big", 12),  # AIFF, SVX
    b"caff": Family(4, 8, "big", 8, align=1),
    b"riff": Family(16, 8, "little", 40, align=8, includes_header=True),  # Wave64
}


def read_chunks(file: BinaryIO, start: int, end: int, layout: Layout) -> None:
    """Adds the stream of a file with chunks to the layout."""
    magic = read_at(file, start, 4)
    family = FAMILIES[magic]
    ds64, position = 0, start + family.first
    for _ in range(MAX_CHUNKS):
        name, size = _read_chunk_header(file, position, family)
        body = position + family.id + family.size
        if not name or body > end:
            raise BrokenAudioError("is truncated or damaged: it has no chunk of samples")
        if name[:4] in SAMPLE_CHUNKS:
            break
        ds64 = body + 8 if name == b"ds64" else ds64
        if name[:4] == b"fmt ":
            _check_format(read_at(file, body, 16), family.order, layout)
        position = _align(start, body + size, family)
    else:
        raise BrokenAudioError(f"has more than {MAX_CHUNKS:,} chunks")
    size_field, width = position + family.id, family.size
    if magic == b"RF64" and ds64 and size == 0xFFFFFFFF:
        size_field, width = ds64, 8
        size = int.from_bytes(read_at(file, ds64, 8), "little")
    actual = _sample_bytes(file, start, body, size, end, layout, family)
    # In AIFF and CAF, chunks after the samples may describe them.
    last = end if family.order == "big" and name[:4] != b"BODY" else body + actual
    if actual == size:
        layout.streams.append(Stream(pieces=[(start, last)]))
        return
    stated = min(actual + (family.id + family.size if family.includes_header else 0), (1 << 8 * width) - 16)
    field = stated.to_bytes(width, family.order)
    layout.streams.append(Stream(pieces=[(start, size_field), field, (size_field + width, last)]))


def _check_format(fmt: bytes, order: Order, layout: Layout) -> None:
    """Compares the sample rate and sample size of a WAV header, each of which it states twice."""
    if len(fmt) < 16:
        return
    kind, channels, rate, byte_rate, frame, bits = struct.unpack(f"{'<' if order == 'little' else '>'}HHIIHH", fmt)
    is_plain = kind in (1, 3, 6, 7, 0xFFFE)  # PCM, float, A-law, mu-law, extensible
    if is_plain and (byte_rate not in (0, rate * frame) or frame != channels * -(-bits // 8)):
        layout.notes.append(
            f"has an inconsistent header: {channels} channels of {bits} bits at {rate:,} Hz are not {frame:,} bytes "
            f"per frame and {byte_rate:,} bytes per second"
        )


def _sample_bytes(
    file: BinaryIO, start: int, body: int, size: int, end: int, layout: Layout, family: Family | None = None
) -> int:
    """Returns the number of bytes of samples at `body`, for which a header states `size`."""
    rest = end - body
    is_empty = not size and family is not None and _has_next_chunk(file, start, body, end, family)
    if any(low <= size < high for low, high in UNKNOWN) and not is_empty:
        return rest
    if size > rest + MAX_MISSING:
        raise BrokenAudioError(f"is truncated: its header states {size:,} bytes of samples, but {rest:,} are there")
    if size > rest:
        layout.notes.append(f"is {size - rest} bytes shorter than its header states; all its samples are read")
        return rest
    if (
        is_empty
        or is_padding(file, body + size, end)
        or (family and _has_next_chunk(file, start, body + size, end, family))
    ):
        return size
    layout.notes.append(f"contains {rest:,} bytes of samples, but its header states {size:,}; all are read")
    return rest


def _has_next_chunk(file: BinaryIO, start: int, position: int, end: int, family: Family) -> bool:
    """Whether another chunk follows the samples that end at `position`. Raises BrokenAudioError if it has samples."""
    for candidate in (_align(start, position, family), position):
        name, size = _read_chunk_header(file, candidate, family)
        if name[:4] in SAMPLE_CHUNKS or name[:4] in FAMILIES:
            raise BrokenAudioError("contains several consecutive sounds: split it")
        is_name = re.fullmatch(rb"[ -~]{4}", name[:4]) and candidate + family.id + family.size + size <= end + 1
        if is_name or TEXT_CHUNKS.match(name):
            return True
    return False


def _read_chunk_header(file: BinaryIO, position: int, family: Family) -> tuple[bytes, int]:
    """Reads a chunk's id and the size of its content; an empty id if there is no chunk."""
    head = read_at(file, position, family.id + family.size)
    if len(head) < family.id + family.size:
        return b"", 0
    size = int.from_bytes(head[family.id :], family.order)
    return head[: family.id], max(size - len(head), 0) if family.includes_header else size


def _align(start: int, position: int, family: Family) -> int:
    return position + (start - position) % family.align


def read_fixed_header(file: BinaryIO, start: int, end: int, layout: Layout) -> bool:
    """Adds the stream of an AU, NIST Sphere, AVR, VOC, XI, SDS or WVE file to the layout. Returns False for other
    formats."""
    head = read_at(file, start, HEAD).ljust(HEAD, b"\0")
    if not (stated := _parse_header(head)):
        return False
    body, size, order = stated
    if start + body > end:
        raise BrokenAudioError("is truncated or damaged: its header puts the samples beyond the end of the file")
    if body > HEAD:
        layout.notes.append(f"states that its samples begin at byte {body:,}; the bytes before them are skipped")
    last = start + body + _sample_bytes(file, start, start + body, size, end, layout)
    pieces: list[Piece] = [(start, last)]
    if order:
        pieces = [(start, start + 8), min(last - start - body, 0xFFFFFFF0).to_bytes(4, order), (start + 12, last)]
    layout.streams.append(Stream(pieces=pieces))
    return True


def _parse_header(head: bytes) -> tuple[int, int, Order | None] | None:
    """Parses a header. Returns the offset and size of the samples, and for AU, whose size is corrected, the byte
    order; None for other formats."""

    def number(start: int, count: int, order: Order = "big") -> int:
        return int.from_bytes(head[start : start + count], order)

    if head[:4] in (b".snd", b"dns."):
        order: Order = "big" if head[:4] == b".snd" else "little"
        return max(number(4, 4, order), 24), number(8, 4, order), order
    if head.startswith(b"NIST_1A\n"):
        fields = {name: int(value) for name, value in re.findall(rb"(\w+) -i (\d{1,12})\s", head)}
        size = math.prod(fields.get(name, 0) for name in (b"sample_count", b"channel_count", b"sample_n_bytes"))
        return int(head[8:16]) if head[8:16].strip().isdigit() else HEAD, size, None
    if head.startswith(b"2BIT"):  # AVR
        return 128, number(26, 4) * (2 if head[13] == 0xFF else 1) * number(14, 2) // 8, None
    if head.startswith(b"Creative Voice File"):  # size of the first block; most files have only one
        return 30, number(27, 3, "little"), None
    if head.startswith(b"Extended Instrument: "):
        return 338, number(298, 4, "little"), None
    if head[:2] == b"\xf0\x7e" and head[3:4] == b"\1" and 8 <= head[6] <= 28:  # SDS: 120 bytes of 7 bits a packet
        frames, in_packet = head[10] | head[11] << 7 | head[12] << 14, 120 // -(-head[6] // 7)
        return 21, -(-frames // in_packet) * 127, None
    if head.startswith(b"ALawSoundFile**"):
        return 32, number(18, 4), None
    return None

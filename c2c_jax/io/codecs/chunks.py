"""Files of chunks, each with its size: WAV, RF64, Wave64, AIFF, CAF, SVX"""

import dataclasses
from typing import BinaryIO, Literal

from c2c_jax.io.codecs.containers import BrokenSoundError, Layout, Piece, Stream, is_padding, is_sound, read_at

# What programs write that do not know the size yet and may be stopped before they do, or write into a pipe: 0 or near
# the most that fits in 31, 32 or 64 bits.
UNKNOWN = [(0x7FFF0000, 0x80000100), (0xFFFF0000, 0x100000000), (0x7FFFFFFF00000000, 1 << 64)]
# A few bytes beyond the end: programs that count the header as samples. Read, and reported as what may be cut.
MISCOUNTED = 64
MAX_CHUNKS = 10_000
BEHIND = tuple(  # chunks that are taken for such even where the file is cut in them
    b"LIST|id3 |ID3 |bext|cue |fact|smpl|inst|JUNK|junk|PAD |PEAK|iXML|_PMX|acid|cart|axml|chna|FLLR|afsp|DISP".split(
        b"|"
    )
)


@dataclasses.dataclass(frozen=True)
class Family:
    """How one container writes its chunks. whole: a chunk's size counts its head. align: chunks start at multiples of
    it. first: the offset of the first chunk. data: the id of the samples' chunk, `skipped`: its bytes before them."""

    id: int
    size: int
    order: Literal["little", "big"]
    first: int
    data: bytes
    whole: bool = False
    align: int = 2
    skipped: int = 0


RIFF = Family(4, 4, "little", 12, b"data")
FAMILIES = {
    b"RIFF": RIFF,
    b"RF64": RIFF,
    b"RIFX": dataclasses.replace(RIFF, order="big"),
    b"FORM": Family(4, 4, "big", 12, b"SSND", skipped=8),
    b"caff": Family(4, 8, "big", 8, b"data", align=1, skipped=4),
    b"riff": Family(16, 8, "little", 40, b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a", whole=True, align=8),
}


def read_chunks(file: BinaryIO, start: int, end: int, layout: Layout) -> int:
    """Adds the stream of a chunked file that starts at `start` and gives the place behind it."""
    head = read_at(file, start, 12)
    family = FAMILIES[head[:4]]
    if head[8:12] in (b"8SVX", b"16SV"):
        family = dataclasses.replace(family, data=b"BODY", skipped=0)
    ds64, place, position = 0, 0, start + family.first
    frames = _alac_frames(file, start, end, family) if read_at(file, start + 28, 4) == b"alac" else None
    for _ in range(MAX_CHUNKS):
        name, size = _chunk(file, position, family)
        body = position + family.id + family.size
        if not name or body > end:
            raise BrokenSoundError("is truncated or damaged: it has no chunk of samples")
        if name == b"ds64":
            ds64 = body + 8
        if name[:4] == b"fmt ":
            _check_format(read_at(file, body, 20), family, layout)
        if name == family.data:
            place = position + family.id
            break
        position = _aligned(start, body + size, family)
    else:
        raise BrokenSoundError(f"has more than {MAX_CHUNKS:,} chunks")
    if head[:4] == b"RF64" and ds64 and size == 0xFFFFFFFF:
        place, size = ds64, int.from_bytes(read_at(file, ds64, 8), "little")
    width = 8 if place == ds64 else family.size
    found, behind = size_of_samples(file, start, body, size, end, family, layout)
    if found == size:
        # AIFF and CAF may say behind the samples what these are; libsndfile may take what is elsewhere for samples.
        last = behind if family.data in (b"SSND", b"data") and family.order == "big" else body + size
        layout.streams.append(Stream(pieces=[(start, max(last, body + size))], frames=frames))
        return behind
    stated = min(found + (family.id + family.size if family.whole else 0), (1 << 8 * width) - 16)
    layout.streams.append(
        Stream(pieces=patched(start, place, stated.to_bytes(width, family.order), body + found), frames=frames)
    )
    return behind


def _check_format(fmt: bytes, family: Family, layout: Layout) -> None:
    """WAV states its sample rate and the size of a frame twice: of PCM, float, A-law and mu-law, and ADPCM's rate."""
    kind, channels, rate, a_second, frame, bits, in_frame = (
        int.from_bytes(fmt[start:end], family.order)
        for start, end in ((0, 2), (2, 4), (4, 8), (8, 12), (12, 14), (14, 16), (18, 20))
    )
    is_adpcm = kind in (2, 0x11)
    if kind not in (1, 3, 6, 7, 0xFFFE) and not (is_adpcm and in_frame):
        return
    expected = rate * frame // (in_frame if is_adpcm else 1)
    if a_second and abs(a_second - expected) > is_adpcm:
        layout.notes.append(
            f"has an inconsistent header: {rate:,} samples/s imply {expected:,} bytes/s, not {a_second:,}"
        )
    if not is_adpcm and frame != channels * -(-bits // 8):
        layout.notes.append(
            f"has an inconsistent header: {channels} channels of {bits} bits are not {frame} bytes a sample"
        )


def _alac_frames(file: BinaryIO, start: int, end: int, family: Family) -> int:
    """The frames of a CAF file of ALAC, as its packet table says."""
    position = start + family.first
    for _ in range(MAX_CHUNKS):
        name, size = _chunk(file, position, family)
        if name == b"pakt":
            return int.from_bytes(read_at(file, position + 20, 8), "big")
        position += 12 + size
        if not name or position > end:
            break
    raise BrokenSoundError("is truncated or damaged: it has no packet table")


def size_of_samples(
    file: BinaryIO, start: int, body: int, size: int, end: int, family: Family, layout: Layout
) -> tuple[int, int]:
    """How many bytes of samples there are, and the place behind them and the chunks that follow."""
    rest = end - body
    if size > rest:
        if not any(low <= size < high for low, high in UNKNOWN):
            if size - rest > MISCOUNTED:
                raise BrokenSoundError(
                    f"is truncated: its header promises {size:,} bytes of samples, {max(rest, 0):,} are there"
                )
            layout.notes.append(f"ends {size - rest} bytes before what its header promises; all that is there is read")
        elif missing := _missing(file, start, end, family):
            layout.notes.append(f"ends {missing:,} bytes before what its header promises; all that is there is read")
        return rest, end
    behind = _aligned(start, body + size, family)
    for place in dict.fromkeys((behind, body + size)):
        if is_padding(file, place, end):
            return size, end
        if is_sound(read_at(file, place, 12)):
            return size, place
        if size and (after := _behind_chunks(file, start, place, end, family)):
            return size, after
    if not size and (after := _behind_chunks(file, start, body, end, family)):
        return 0, after
    if size:
        layout.notes.append(f"holds {rest:,} bytes of samples where its header promises {size:,}; all are read")
    elif missing := _missing(file, start, end, family):
        layout.notes.append(f"ends {missing:,} bytes before what its header promises; all that is there is read")
    return rest, end


def _missing(file: BinaryIO, start: int, end: int, family: Family) -> int:
    """Of a file that does not state the size of its samples: how many bytes fewer there are than it states in all; 0
    where it states nothing, as programs leave it that are stopped."""
    if family.id + family.size >= family.first:  # CAF states none
        return 0
    size = int.from_bytes(read_at(file, start + family.id, family.size), family.order)
    if not size or any(low <= size < high for low, high in UNKNOWN):
        return 0
    return max(start + size + (0 if family.whole else family.id + family.size) - end, 0)


def _behind_chunks(file: BinaryIO, start: int, position: int, end: int, family: Family) -> int:
    """The place behind a row of chunks; 0: there are none, or another chunk of samples."""
    if not family.first:
        return 0
    for count in range(MAX_CHUNKS):
        if count and is_padding(file, position, end):
            return end
        if count and is_sound(read_at(file, position, 12)):
            return position
        name, size = _chunk(file, position, family)
        if not name:
            return end if count else 0
        if name == family.data:
            raise BrokenSoundError("has several chunks of samples: convert it to one")
        after = _aligned(start, position + family.id + family.size + size, family)
        if not all(32 <= letter < 127 for letter in name[:4]) or after > end + family.align:
            return end if name in BEHIND else 0
        position = after
    return 0


def _chunk(file: BinaryIO, position: int, family: Family) -> tuple[bytes, int]:
    """The id of a chunk and the size of what it holds; an empty id: there is none."""
    head = read_at(file, position, family.id + family.size)
    if len(head) < family.id + family.size:
        return b"", 0
    size = int.from_bytes(head[family.id :], family.order)
    return head[: family.id], max(size - len(head), 0) if family.whole else size


def _aligned(start: int, position: int, family: Family) -> int:
    return position + (start - position) % family.align


def patched(start: int, place: int, field: bytes, end: int) -> list[Piece]:
    """A part of a file with other bytes in one place."""
    return [(start, place), field, (place + len(field), end)]

"""FLAC (RFC 9639): what its STREAMINFO promises."""

import re
from typing import BinaryIO

from c2c_jax.io.codecs.containers import BrokenSoundError, Layout, Stream, read_at

RATES = dict(  # by their code in a frame's header (section 9.1.2)
    enumerate((88_200, 176_400, 192_000, 8000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000), start=1)
)
MAX_BLOCKS = 1000
STREAMINFO = 42  # bytes to its end; it comes first
BLOCK = 1 << 22  # searched at once


def read_flac(file: BinaryIO, start: int, end: int, layout: Layout) -> int:
    """Adds the stream of a FLAC file. libsndfile stops at the number of samples that is stated: in what it is given the
    number is 0, unknown. Gives the place of a FLAC file that was joined to this one, or the file's end."""
    head = read_at(file, start, STREAMINFO)
    if len(head) < STREAMINFO or head[4] & 0x7F or int.from_bytes(head[5:8], "big") != STREAMINFO - 8:
        raise BrokenSoundError("is truncated or damaged: it has no STREAMINFO")
    frames = int.from_bytes(head[21:26], "big") & ((1 << 36) - 1)
    unknown = head[:21] + bytes([head[21] & 0xF0]) + bytes(4) + head[26:]
    rate, of_frames = int.from_bytes(head[18:21], "big") >> 4, _rate_of_first_frame(file, start + 4, end)
    if of_frames not in (None, rate):
        raise BrokenSoundError(f"is damaged: it says {rate:,} samples a second, and {of_frames:,} in its first frame")
    behind = _find(file, start + STREAMINFO, end)
    md5 = head[26:42] if any(head[26:42]) else None
    layout.streams.append(Stream(pieces=[unknown, (start + STREAMINFO, behind)], frames=frames, md5=md5, is_flac=True))
    return behind


def _find(file: BinaryIO, start: int, end: int) -> int:
    """Where another FLAC file starts."""
    while start < end:
        block = read_at(file, start, min(BLOCK + 7, end - start))
        for found in re.finditer(rb"fLaC[\x00\x80]\x00\x00\x22", block):
            return start + found.start()
        start += BLOCK
    return end


def _rate_of_first_frame(file: BinaryIO, position: int, end: int) -> int | None:
    """The sample rate in the first frame's header, where it is there as a code."""
    for _ in range(MAX_BLOCKS):
        block = read_at(file, position, 4)
        if len(block) < 4:
            return None
        position += 4 + int.from_bytes(block[1:], "big")
        if block[0] & 0x80:  # the last block before the frames
            break
    frame = read_at(file, position, 4)
    is_frame = len(frame) == 4 and frame[0] == 0xFF and frame[1] & 0xFE == 0xF8
    return RATES.get(frame[2] & 15) if is_frame else None

"""FLAC (RFC 9639): what its STREAMINFO promises."""

import re
from typing import BinaryIO

from c2c_jax.io.containers import BrokenSoundError, Layout, Stream, read_at

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

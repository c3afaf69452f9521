"""The structure of a sound file: its streams, their bytes, and how many frames they should contain.

libsndfile decodes at most what a header states, and often silently less, so headers are read here first. A wrong or
missing size is corrected in the bytes passed to libsndfile; truncated or damaged files are refused.
"""

import bisect
import dataclasses
import io
import itertools
from typing import Any, BinaryIO

Piece = bytes | tuple[int, int]  # replacement bytes, or start and end of a part of the file
MAX_OFFSET = 1 << 62  # bytes; beyond the end of every file
MAX_TAGS = 100
MAX_PADDING = 1 << 20  # bytes of zeros after the last chunk


class BrokenAudioError(Exception):
    """A truncated or damaged sound file. The message continues "PATH …"."""


@dataclasses.dataclass(kw_only=True)
class Stream:
    """One stream of samples as passed to libsndfile. min_frames: the minimum number of decoded frames; None: exactly as
    many as libsndfile states."""

    pieces: list[Piece]
    min_frames: int | None = None


@dataclasses.dataclass
class Layout:
    """The consecutive streams of a file, and notes for the user about its defects."""

    streams: list[Stream] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


class SplicedFile(io.RawIOBase):
    """Presents pieces as one readable file. error: a read error, which libsndfile would take for the file's end."""

    def __init__(self, file: BinaryIO, pieces: list[Piece]) -> None:
        self.file, self.pieces, self.position = file, pieces, 0
        self.error: OSError | None = None
        lengths = (len(piece) if isinstance(piece, bytes) else piece[1] - piece[0] for piece in pieces)
        self.starts = [0, *itertools.accumulate(lengths)]

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to an offset in bytes, or to 0 if it is negative, and returns the new position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.starts[-1]}[whence]
        self.position = max(base + offset, 0)
        return self.position

    def tell(self) -> int:
        """Returns the position in bytes."""
        return self.position

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer with the next bytes and returns their number, which is smaller at the end of the pieces or
        of the file. Stores an OSError in `error` and stops."""
        target, done = memoryview(buffer).cast("B"), 0
        while done < len(target) and self.position < self.starts[-1]:
            index = bisect.bisect_right(self.starts, self.position) - 1
            piece, inside = self.pieces[index], self.position - self.starts[index]
            count = min(len(target) - done, self.starts[index + 1] - self.position)
            if isinstance(piece, bytes):
                target[done : done + count] = piece[inside : inside + count]
            else:
                try:
                    self.file.seek(piece[0] + inside)
                    count = self.file.readinto(target[done : done + count])  # type: ignore[attr-defined]
                except OSError as error:
                    self.error = error
                    break
                if not count:
                    break
            done += count
            self.position += count
        return done


def read_at(file: BinaryIO, start: int, count: int) -> bytes:
    """Reads up to `count` bytes of a file at `start`."""
    file.seek(min(start, MAX_OFFSET))
    return file.read(count)


def id3_size(head: bytes) -> int:
    """Returns the size of an ID3v2 tag from its first 10 bytes (id3.org, section 3.1); 0 if there is none."""
    if len(head) < 10 or head[:3] != b"ID3" or max(head[6:10]) > 127:
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    return size + (20 if head[5] & 0x10 else 10)


def without_tags(file: BinaryIO, size: int) -> tuple[int, int]:
    """Returns the start and end of the audio between the tags around it: ID3v2, ID3v1 and APEv2."""
    start, end = 0, size
    for _ in range(MAX_TAGS):
        tag = id3_size(read_at(file, start, 10))
        start += tag
        if start > size:
            raise BrokenAudioError(f"is truncated: its ID3 tag takes {tag:,} bytes, but the file has {size:,}")
    if end - start > 128 and read_at(file, end - 128, 3) == b"TAG":
        end -= 128
    tail = read_at(file, max(end - 32, 0), 32)
    if tail[:8] == b"APETAGEX":
        tag = int.from_bytes(tail[12:16], "little") + (32 if tail[23] & 0x80 else 0)
        end -= tag if start <= end - tag else 0
    return start, end


def is_padding(file: BinaryIO, start: int, end: int) -> bool:
    """Whether a part of a file has only zeros and line ends, or is empty."""
    return end - start <= MAX_PADDING and not read_at(file, start, end - start).strip(b"\0 \r\n")

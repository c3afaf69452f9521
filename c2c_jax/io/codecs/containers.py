"""What a sound file promises: its streams, the bytes of each, and how many frames they should give.

libsndfile decodes no more than a header states, and often silently less. So headers are read here first. A wrong or
missing size is corrected in the bytes passed to libsndfile; truncated or damaged files are refused.
"""

import bisect
import dataclasses
import io
import itertools
from typing import Any, BinaryIO

Piece = bytes | tuple[int, int]  # bytes that stand in for others, or the start and the end of a part of the file
FARTHEST = 1 << 62  # bytes; what is behind it is behind the end of every file
MAX_TAGS = 100
ZEROS = 1 << 20  # bytes behind the last chunk that are looked at: padding where they are zeros


class BrokenAudioError(Exception):
    """A sound file that is cut or damaged. The message continues "PATH …"."""


@dataclasses.dataclass(kw_only=True)
class Stream:
    """One stream of samples, as it is given to libsndfile. min_frames: how many frames it must give at least; None:
    exactly as many as libsndfile says."""

    pieces: list[Piece]
    min_frames: int | None = None


@dataclasses.dataclass
class Layout:
    """The streams of a file, one behind the other, and notes on what a person should know of it."""

    streams: list[Stream] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


class View(io.RawIOBase):
    """Pieces as one file to read. error: what went wrong in reading, which libsndfile would take for the file's end."""

    def __init__(self, file: BinaryIO, pieces: list[Piece]) -> None:
        self.file, self.pieces, self.position = file, pieces, 0
        self.error: OSError | None = None
        lengths = (len(one) if isinstance(one, bytes) else one[1] - one[0] for one in pieces)
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
        of the file. An OSError ends the reading and is stored in `error`."""
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
    """Up to `count` bytes of a file from `start` on."""
    file.seek(min(start, FARTHEST))
    return file.read(count)


def id3_size(head: bytes) -> int:
    """The bytes of an ID3v2 tag by its first 10 (id3.org, section 3.1); 0: there is none."""
    if len(head) < 10 or head[:3] != b"ID3" or max(head[6:10]) > 127:
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    return size + (20 if head[5] & 0x10 else 10)


def without_tags(file: BinaryIO, size: int) -> tuple[int, int]:
    """Where the sound starts and ends between the tags that are put before and behind it: ID3v2, ID3v1 and APEv2."""
    start, end = 0, size
    for _ in range(MAX_TAGS):
        tag = id3_size(read_at(file, start, 10))
        start += tag
        if start > size:
            raise BrokenAudioError(f"is truncated: its ID3 tag takes {tag:,} bytes of the {size:,} that there are")
    if end - start > 128 and read_at(file, end - 128, 3) == b"TAG":
        end -= 128
    tail = read_at(file, max(end - 32, 0), 32)
    if tail[:8] == b"APETAGEX":
        tag = int.from_bytes(tail[12:16], "little") + (32 if tail[23] & 0x80 else 0)
        end -= tag if start <= end - tag else 0
    return start, end


def is_padding(file: BinaryIO, start: int, end: int) -> bool:
    """Whether there are only zeros and line ends, or nothing."""
    return end - start <= ZEROS and not read_at(file, start, end - start).strip(b"\0 \r\n")

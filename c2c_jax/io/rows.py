"""Lines and CSV rows of text files: bounded, and a row that is damaged does not take others with it."""

import codecs
import csv
import enum
import re
from collections.abc import Iterator
from io import BufferedIOBase

from c2c_jax.io.files import stand_in

BLOCK_BYTES = 2**20  # read at a time

# What is not text in UTF-8, by its first bytes.
_OTHERS = (
    (codecs.BOM_UTF32_LE, "is UTF-32; save it as UTF-8"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "is UTF-32; save it as UTF-8"),
    (codecs.BOM_UTF16_LE, "is UTF-16; save it as UTF-8"),
    (codecs.BOM_UTF16_BE, "is UTF-16; save it as UTF-8"),
    (b"\x1f\x8b", "is compressed by gzip; unpack it"),
    (b"PK\x03\x04", "is a zip archive or a spreadsheet; unpack it, or save it as text"),
    (b"\xfd7zXZ\x00", "is compressed by xz; unpack it"),
    (b"\x28\xb5\x2f\xfd", "is compressed by zstd; unpack it"),
    (b"PAR1\x15", "is a Parquet file; read it as a data set with hf:FOLDER:train:COLUMN"),
)
_END = re.compile(rb"\r\n?|\n")


class Damage(enum.Enum):
    """What is wrong with a row: it is longer than is read, or its quotes do not match."""

    LONG = enum.auto()
    UNMATCHED = enum.auto()


def other_than_utf8(head: bytes) -> str:
    """What a file is, with advice, if it is not text in UTF-8 by its first bytes, in words that follow its name; else
    "", as for an empty one."""
    if head and (found := stand_in(head)):
        return found
    return next((kind for mark, kind in _OTHERS if head.startswith(mark)), _utf_16_without_mark(head))


def _utf_16_without_mark(head: bytes) -> str:
    """Text in most languages has a zero in half of its bytes there, and never one in UTF-8."""
    for start in (0, 1):
        if len(head) > 3 and head[start::2].count(0) > len(head) // 8 and not head[1 - start :: 2].count(0):
            return "is UTF-16; save it as UTF-8"
    return ""


def raw_lines(file: BufferedIOBase, max_bytes: int) -> Iterator[bytes]:
    r"""The lines of a file without their ends (\n, \r\n, \r) and a byte order mark. One longer than `max_bytes` comes
    cut, yet longer than that."""
    rest, is_first = b"", True
    while block := file.read(BLOCK_BYTES):
        if block.endswith(b"\r"):  # whose \n may be the next byte
            block += file.read(1)
        if is_first:
            block, is_first = block.removeprefix(codecs.BOM_UTF8), False
        first, *others = _END.split(block)
        rest += first[: max(max_bytes + 1 - len(rest), 0)]
        if others:
            yield rest
            yield from others[:-1]
            rest = others[-1]
    if rest:
        yield rest


def csv_rows(
    file: BufferedIOBase, max_bytes: int, *, delimiter: str = ",", lenient: bool = False
) -> Iterator[tuple[int, list[str] | Damage]]:
    """(number of its first line, fields) of each row, none of a blank line; or what is wrong with it. The lines behind
    the first of a damaged row are read anew: a stray quote loses no other row.

    Bytes that are not UTF-8 become surrogates. Rows are read by RFC 4180, fields to `csv.field_size_limit()`.
    lenient: letters may follow a closing quote; a row of several lines is as wide as the first row with any text.
    """
    lines = _Lines(file, max_bytes)
    records = csv.reader(lines, delimiter=delimiter, strict=True)
    width = None
    while True:
        lines.start()
        found: list[str] | Damage | None
        try:
            found = next(records, None)
        except _DamagedError as error:
            found = error.damage
        except csv.Error as error:
            found = Damage.LONG if "field limit" in str(error) and len(lines.taken) == 1 else Damage.UNMATCHED
            if lenient and "expected after" in str(error):
                taken = [line.decode("utf-8", "surrogateescape") + "\n" for _, line in lines.taken]
                found = next(csv.reader(taken, delimiter=delimiter))
        if found is None:
            return
        if lenient and isinstance(found, list) and len(lines.taken) > 1 and len(found) != (width or len(found)):
            found = Damage.UNMATCHED
        number = lines.taken[0][0]
        if isinstance(found, Damage):
            lines.give_back()
        elif width is None and any(field.strip() for field in found):
            width = len(found)
        yield number, found


class _DamagedError(Exception):
    def __init__(self, damage: Damage):
        self.damage = damage


class _Lines:
    """The lines of a CSV file for `csv.reader`.

    taken: (number, line) of those that went into a row so far. again: lines to be given next, the last one first.
    doomed: number of the line at which a row that was open at the end of any line before was found damaged. Another
    one that is open there would be as well: not to try it keeps the time linear.
    """

    def __init__(self, file: BufferedIOBase, max_bytes: int):
        self.numbered = enumerate(raw_lines(file, max_bytes), start=1)
        self.max_bytes, self.doomed = max_bytes, 0
        self.again: list[tuple[int, bytes]] = []
        self.start()

    def start(self) -> None:
        """Begins a row."""
        self.taken: list[tuple[int, bytes]] = []
        self.bytes = 0

    def give_back(self) -> None:
        """All lines of a damaged row but its first."""
        self.doomed = max(self.doomed, self.taken[-1][0])
        self.again.extend(reversed(self.taken[1:]))

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        if self.taken and self.taken[-1][0] < self.doomed:
            raise _DamagedError(Damage.UNMATCHED)
        number, line = self.again.pop() if self.again else next(self.numbered)
        self.taken.append((number, line))
        self.bytes += len(line) + 1
        if self.bytes > self.max_bytes + 1:
            raise _DamagedError(Damage.LONG if len(self.taken) == 1 else Damage.UNMATCHED)
        return line.decode("utf-8", "surrogateescape") + "\n"

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
    """(number of its first line, fields) of each row, [] of a blank line; or what is wrong with it. The lines behind
    the first of a damaged row are read again, so that a stray quote loses no other row.

    Bytes that are not UTF-8 become surrogates. Rows are read by RFC 4180, fields to `csv.field_size_limit()`.
    lenient: letters may follow a closing quote; a row of several lines is as wide as the first row with any text.
    """
    numbered = enumerate(raw_lines(file, max_bytes), start=1)
    again: list[tuple[int, bytes]] = []  # lines to read again, the last one first
    row: list[tuple[int, bytes]] = []  # the lines that went into a row so far
    # A row that is open at the end of any line before this one is damaged, as another one was that was open there: not
    # to read on keeps the time linear.
    doomed, width = 0, None

    def lines() -> Iterator[str]:
        size = 0
        row.clear()
        while not (row and row[-1][0] < doomed):
            if not (line := again.pop() if again else next(numbered, None)):
                return
            row.append(line)
            size += len(line[1]) + 1
            if size > max_bytes + 1:
                return
            yield _text(line)

    while True:
        found: list[str] | Damage | None
        try:
            found = next(csv.reader(lines(), delimiter=delimiter, strict=True), None)
        except csv.Error as error:
            found = Damage.LONG if "field limit" in str(error) and len(row) == 1 else Damage.UNMATCHED
            if lenient and "expected after" in str(error):
                found = next(csv.reader(map(_text, row), delimiter=delimiter))
        if not row:
            return
        if found is None:
            found = Damage.LONG
        elif lenient and isinstance(found, list) and len(row) > 1 and len(found) != (width or len(found)):
            found = Damage.UNMATCHED
        number = row[0][0]
        if isinstance(found, Damage):
            doomed = max(doomed, row[-1][0])
            again.extend(reversed(row[1:]))
        elif width is None and any(field.strip() for field in found):
            width = len(found)
        yield number, found


def _text(line: tuple[int, bytes]) -> str:
    return line[1].decode("utf-8", "surrogateescape") + "\n"

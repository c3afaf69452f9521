"""Reads lines and CSV rows with a length limit; a damaged row does not affect the others."""

import codecs
import csv
import enum
import re
from collections.abc import Iterator
from io import BufferedIOBase

from c2c_jax.io.files import describe_placeholder

BLOCK_BYTES = 2**20  # read at a time

# First bytes of files that are not UTF-8 text.
_NON_UTF8 = (
    (codecs.BOM_UTF32_LE, "is UTF-32; save it as UTF-8"),  # before UTF-16, whose mark is a prefix of this one
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
    """Why a row cannot be used: it is too long, or its quotes do not match."""

    LONG = enum.auto()
    UNMATCHED = enum.auto()


def describe_non_utf8(head: bytes) -> str:
    """Recognises a file that is not UTF-8 text by its first bytes. Returns words that follow the file's name, with
    advice; "" for UTF-8 and for an empty file."""
    if head and (placeholder := describe_placeholder(head)):
        return placeholder
    return next((kind for mark, kind in _NON_UTF8 if head.startswith(mark)), _utf_16_without_mark(head))


def _utf_16_without_mark(head: bytes) -> str:
    """Recognises UTF-16 text by its zeros: in most languages every second byte, and never in UTF-8."""
    for start in (0, 1):
        if len(head) > 3 and head[start::2].count(0) > len(head) // 8 and not head[1 - start :: 2].count(0):
            return "is UTF-16; save it as UTF-8"
    return ""


def raw_lines(file: BufferedIOBase, max_bytes: int) -> Iterator[bytes]:
    r"""Yields the lines of a file without line ends (\n, \r\n, \r) and byte order mark. A line longer than `max_bytes`
    is cut, but not to less than `max_bytes` + 1."""
    rest, is_first = b"", True
    while block := file.read(BLOCK_BYTES):
        if block.endswith(b"\r"):  # the next byte may be its \n
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
    """Yields the number of each row's first line and its fields ([] for a blank line), or Damage.

    After a damaged row, reading resumes at its second line, so a stray quote loses no other row. Rows follow RFC 4180,
    with fields up to `csv.field_size_limit()`. Bytes that are not UTF-8 become surrogates. lenient: text may follow a
    closing quote, and a row of several lines must have as many fields as the first row with any text.
    """
    numbered = enumerate(raw_lines(file, max_bytes), start=1)
    unread: list[tuple[int, bytes]] = []  # lines to read again, in reverse order
    row: list[tuple[int, bytes]] = []  # lines of the current row
    # A damaged row extended to this line. A later row with an open quote before it is damaged too; stopping there keeps
    # the time linear.
    damaged_until, width = 0, None

    def lines() -> Iterator[str]:
        size = 0
        row.clear()
        while not (row and row[-1][0] < damaged_until):
            if not (line := unread.pop() if unread else next(numbered, None)):
                return
            row.append(line)
            size += len(line[1]) + 1
            if size > max_bytes + 1:
                return
            yield _text(line)

    while True:
        record: list[str] | Damage | None
        try:
            record = next(csv.reader(lines(), delimiter=delimiter, strict=True), None)
        except csv.Error as error:
            record = Damage.LONG if "field limit" in str(error) and len(row) == 1 else Damage.UNMATCHED
            if lenient and "expected after" in str(error):
                record = next(csv.reader(map(_text, row), delimiter=delimiter))
        if not row:
            return
        if record is None:
            record = Damage.LONG
        elif lenient and isinstance(record, list) and len(row) > 1 and len(record) != (width or len(record)):
            record = Damage.UNMATCHED
        number = row[0][0]
        if isinstance(record, Damage):
            damaged_until = max(damaged_until, row[-1][0])
            unread.extend(reversed(row[1:]))
        elif width is None and any(field.strip() for field in record):
            width = len(record)
        yield number, record


def _text(line: tuple[int, bytes]) -> str:
    return line[1].decode("utf-8", "surrogateescape") + "\n"

"""The one reader of lists as CSV: bounded, and a row that is damaged does not take others with it."""

import codecs
import csv
from collections.abc import Iterator
from pathlib import Path

from c2c_jax.errors import ManifestError
from c2c_jax.evaluation.rows import LeftOut
from c2c_jax.io.files import open_regular

MAX_BYTES = 2**25  # of a list: VGGSound's 200,000 rows take 8 MB
MAX_ROW = 2**16  # characters
ADVICE = "save it as CSV in UTF-8"
# Byte order marks, of which UTF-32's begins as UTF-16's does.
MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_rows(path: Path, delimiter: str = ",") -> tuple[list[tuple[int, list[str]]], list[LeftOut]]:
    """(line, fields) of each row that is not empty, and the rows that cannot be read: of more than MAX_ROW characters,
    with a quote that is not closed, or with a NUL. A row with line ends in quotes counts as the line it begins in.

    Raises ManifestError for what is not a regular file, of more than MAX_BYTES, or not UTF-8.
    """
    rows: list[tuple[int, list[str]]] = []
    left_out: list[LeftOut] = []
    lines = _text_of(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    number = 0
    while number < len(lines):
        taken, found = _row_at(lines, number, delimiter, len(rows[0][1]) if rows else None)
        if isinstance(found, str):
            left_out.append(LeftOut(file=f"{path.name}, line {number + 1}", why=found))
        elif any(field.strip() for field in found):
            rows.append((number + 1, found))
        number += taken
    return rows, left_out


def _row_at(lines: list[str], start: int, delimiter: str, width: int | None) -> tuple[int, list[str] | str]:
    """How many lines a row takes, and its fields, or what is wrong with it. width: of the row with the names.

    A quote opens a row of several lines only where the row is then as wide as others: a stray one is its line's alone.
    """
    line = lines[start]
    if len(line) > MAX_ROW:
        return 1, f"more than {MAX_ROW:,} characters"
    if "\0" in line:
        return 1, "a NUL in it"
    if (alone := _fields(line, delimiter)) is not None:
        return 1, alone
    for count, joined in _joined(lines, start):
        if (fields := _fields(joined, delimiter)) is not None and width in (None, len(fields)):
            return count, fields
        if fields is not None:
            break
    return 1, "a quote that is not closed"


def _joined(lines: list[str], start: int) -> Iterator[tuple[int, str]]:
    """(count, text) of a line joined with the next ones, up to MAX_ROW characters, where the last has a quote."""
    end = start + 1
    size = len(lines[start])
    while end < len(lines) and (size := size + len(lines[end]) + 1) <= MAX_ROW:
        end += 1
        if '"' in lines[end - 1]:
            yield end - start, "\n".join(lines[start:end])


def _fields(text: str, delimiter: str) -> list[str] | None:
    """The fields of one row, None where its last quote is not closed."""
    reader = csv.reader([text], delimiter=delimiter, strict=True)
    try:
        return next(reader, [])
    except csv.Error as error:
        if "unexpected end of data" in str(error):
            return None
        return next(csv.reader([text], delimiter=delimiter), [])  # characters behind a closing quote


def _text_of(path: Path) -> str:
    with open_regular(path, "a list as CSV", ManifestError, "give a CSV file") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ManifestError(f"{path} has more than {MAX_BYTES:,} bytes: split it")
    for mark, encoding in MARKS.items():
        if content.startswith(mark):
            raise ManifestError(f"{path} is in {encoding}: {ADVICE}")
    if content[:2000].count(0) > len(content[:2000]) // 4:
        raise ManifestError(f"{path} is in UTF-16 or not a text: {ADVICE}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{content[error.start]:02x} in line {line}; Latin-1 or Windows-1252, perhaps"
        raise ManifestError(f"{path} is not a CSV file in UTF-8 ({found}): {ADVICE}") from None

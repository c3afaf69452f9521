r"""Rows of caption files, read strictly: each is a caption, or is skipped and counted with the reason.

Files are UTF-8. \n, \r\n and \r end a row, and nothing else does; a byte order mark and blank lines at the end belong
to no row. What takes more than MAX_ROW_BYTES as a row or MAX_CAPTION_BYTES as a caption is skipped too, and never held
in memory as a whole.
"""

import dataclasses
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from c2c_jax.errors import CaptionError
from c2c_jax.io.files import open_regular
from c2c_jax.io.json import parse_json
from c2c_jax.io.rows import Damage, csv_rows, other_than_utf8, raw_lines

MAX_CAPTION_BYTES = 2**16
MAX_ROW_BYTES = 2**20

LONG_ROW = f"row over {MAX_ROW_BYTES:,} bytes or field over 131,072 characters"
UNMATCHED = "unbalanced quotes"
LONG_CAPTION = f"caption longer than {MAX_CAPTION_BYTES:,} bytes"


@dataclasses.dataclass
class LeftOut:
    """Rows that are no captions. counts: reason → how many. first: reason → where the first of them is."""

    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    first: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, reason: str, where: str, count: int = 1) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + count
        self.first.setdefault(reason, where)

    def __str__(self) -> str:
        """`3 rows left out: 2 no tab (first at line 17), 1 empty caption (first at line 40)`, or `no row left out`."""
        total = sum(self.counts.values())
        if not total:
            return "no row left out"
        reasons = [f"{count:,} {reason} (first at {self.first[reason]})" for reason, count in self.counts.items()]
        return f"{total:,} row{'s' if total > 1 else ''} left out: {', '.join(reasons)}"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex. Raises CaptionError where it cannot be read."""
    with _opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_txt(path: Path, left_out: LeftOut, of: str = "") -> Iterator[str]:
    """The caption of each line. of: added to line numbers in `left_out`, such as ` of part-2.txt`."""
    for line_number, text in _lines(path, left_out, of):
        yield from _kept(text, left_out, f"line {line_number:,}{of}")


def read_tsv(path: Path, left_out: LeftOut, of: str = "") -> Iterator[tuple[str, str]]:
    """The first two tab-separated columns of each line, as in Google's (caption, url) files."""
    for line_number, text in _lines(path, left_out, of):
        caption, tab, rest = text.partition("\t")
        if not tab:
            left_out.add("no tab", f"line {line_number:,}{of}")
            continue
        for kept in _kept(caption, left_out, f"line {line_number:,}{of}"):
            yield kept, rest.partition("\t")[0].strip()


def read_csv(path: Path, column: str, left_out: LeftOut, of: str = "") -> Iterator[str]:
    """The field under the header `column` of each record. Raises CaptionError where there is no such header.

    A record whose quotes are not closed, or not by RFC 4180, is skipped, and so is one with a field longer than
    `csv.field_size_limit()`, 131,072 characters; the lines behind its first are read anew: a stray quote loses no other
    row.
    """
    index: int | None = None
    with _opened(path) as file:
        for line_number, record in csv_rows(file, MAX_ROW_BYTES):
            where = f"line {line_number:,}{of}"
            if isinstance(record, Damage):
                reason = LONG_ROW if record == Damage.LONG else UNMATCHED
                if index is None:
                    raise CaptionError(f"{path} has no readable header row ({reason})")
                left_out.add(reason, where)
            elif index is None:
                if record.count(column) != 1:
                    found = ", ".join(record) or "none, the file is empty"
                    raise CaptionError(f"{path} must have exactly one column {column!r}; found {found:.500}")
                index = record.index(column)
            elif not record:  # a blank line
                continue
            elif index >= len(record):
                left_out.add("too few columns", where)
            else:
                yield from texts_of(record[index], left_out, where)
    if index is None:
        raise CaptionError(f"{path} must have exactly one column {column!r}; the file is empty")


def read_jsonl(path: Path, field: str, left_out: LeftOut, of: str = "") -> Iterator[str]:
    """The text or list of texts that each line's JSON object has under `field`."""
    for line_number, text in _lines(path, left_out, of):
        where = f"line {line_number:,}{of}"
        try:
            record: Any = parse_json(text)
        except ValueError:
            left_out.add("not JSON", where)
            continue
        if not isinstance(record, dict) or field not in record:
            left_out.add(f"no {field}", where)
        else:
            yield from texts_of(record[field], left_out, where)


def texts_of(value: Any, left_out: LeftOut, where: str) -> Iterator[str]:
    """The captions in a field's value: itself, or each of a list (COCO's five to a picture); others are counted."""
    for text in value if isinstance(value, list | tuple) else (value,):
        if not isinstance(text, str):
            left_out.add("not text", where)
            continue
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            left_out.add("not UTF-8", where)
            continue
        yield from _kept(text.replace("\r\n", " ").replace("\n", " ").replace("\r", " "), left_out, where)


def _kept(text: str, left_out: LeftOut, where: str) -> Iterator[str]:
    caption = text.strip()
    if not caption:
        left_out.add("empty caption", where)
    elif len(caption) > MAX_CAPTION_BYTES // 4 and len(caption.encode("utf-8")) > MAX_CAPTION_BYTES:
        left_out.add(LONG_CAPTION, where)
    else:
        yield caption


def _opened(path: Path) -> io.BufferedReader:
    """A file of captions. Raises CaptionError for what cannot be read, and for what is not UTF-8 by its first bytes."""
    file = open_regular(path, "a file of captions", CaptionError, "give a UTF-8 text file")
    head = file.read(4096)
    file.seek(0)
    if kind := other_than_utf8(head):
        file.close()
        raise CaptionError(f"cannot read captions from {path}: it {kind}")
    return file  # type: ignore[return-value]


def _lines(path: Path, left_out: LeftOut, of: str) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of each line that is UTF-8 and not too long, blank ones at the end of the file excepted."""
    with _opened(path) as file:
        first_blank = blank = 0
        for line_number, line in enumerate(raw_lines(file, MAX_ROW_BYTES), start=1):
            if not line.strip():
                first_blank, blank = first_blank if blank else line_number, blank + 1
                continue
            if blank:  # only now is it known that these were not the end of the file
                left_out.add("empty caption", f"line {first_blank:,}{of}", blank)
                blank = 0
            if len(line) > MAX_ROW_BYTES:
                left_out.add(LONG_ROW, f"line {line_number:,}{of}")
                continue
            try:
                yield line_number, line.decode("utf-8")
            except UnicodeDecodeError:
                left_out.add("not UTF-8", f"line {line_number:,}{of}")

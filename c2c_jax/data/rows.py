r"""Rows of caption files, read strictly: each is a caption, or is counted with the reason why it is not.

Files are UTF-8. Only \n ends a row; a byte order mark, \r before \n and blank lines at the end belong to no row.
"""

import codecs
import csv
import dataclasses
import hashlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from c2c_jax.errors import CaptionError

UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
csv.field_size_limit(sys.maxsize)  # a stray quote makes a long field of what follows; its loss must be countable


@dataclasses.dataclass
class LeftOut:
    """Rows that are no captions. counts: reason → how many. first: reason → where the first of them is."""

    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    first: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, reason: str, where: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1
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
    """The field under the header `column` of each record. Raises CaptionError where there is no such header."""
    _opened(path).close()
    # Bytes that are no UTF-8 become surrogates, which the field that holds them is then left out for.
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        records = csv.reader(file)
        header = next(records, [])
        if header.count(column) != 1:
            found = ", ".join(header) or "none, the file is empty"
            raise CaptionError(f"{path} has not one column {column!r}; its columns are {found}")
        index = header.index(column)
        for record in records:
            where = f"line {records.line_num:,}{of}"
            if not record:  # a blank line
                continue
            if index >= len(record):
                left_out.add("too few columns", where)
            else:
                yield from texts_of(record[index], left_out, where)


def read_jsonl(path: Path, field: str, left_out: LeftOut, of: str = "") -> Iterator[str]:
    """The text or list of texts that each line's JSON object has under `field`."""
    for line_number, text in _lines(path, left_out, of):
        where = f"line {line_number:,}{of}"
        try:
            record = json.loads(text)
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
        yield from _kept(text.replace("\r\n", " ").replace("\n", " "), left_out, where)


def _kept(text: str, left_out: LeftOut, where: str) -> Iterator[str]:
    if caption := text.strip():
        yield caption
    else:
        left_out.add("empty caption", where)


def _opened(path: Path) -> io.BufferedReader:
    try:
        return open(path, "rb")
    except OSError as error:
        raise CaptionError(f"cannot read captions from {path}: {error.strerror}; give a UTF-8 text file") from error


def _lines(path: Path, left_out: LeftOut, of: str) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of each line that is UTF-8, blank ones at the end of the file excepted."""
    with _opened(path) as file:
        blank: list[int] = []
        for line_number, line in enumerate(file, start=1):
            if line_number == 1:
                if line.startswith(UTF16):
                    raise CaptionError(f"cannot read captions from {path}: it is UTF-16; save it as UTF-8")
                line = line.removeprefix(codecs.BOM_UTF8)
            if not line.strip():
                blank.append(line_number)
                continue
            # Only now is it known that these were not the end of the file.
            for number in blank:
                left_out.add("empty caption", f"line {number:,}{of}")
            blank.clear()
            try:
                yield line_number, line.decode("utf-8").removesuffix("\n").removesuffix("\r")
            except UnicodeDecodeError:
                left_out.add("not UTF-8", f"line {line_number:,}{of}")

r"""Reads captions from txt, tsv, csv and jsonl files. Malformed rows are skipped and counted.

Files are UTF-8. Only \n, \r\n and \r end a row; a byte order mark and blank lines at the end are ignored. A row longer
than MAX_ROW_BYTES is skipped and never read into memory as a whole.
"""

import glob
import hashlib
import os
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

from c2c_jax.data.sources import Malformed, Source, register_source
from c2c_jax.errors import CaptionError
from c2c_jax.io.files import glob_paths, open_regular
from c2c_jax.io.json import parse_json
from c2c_jax.io.names import split_suffix
from c2c_jax.io.rows import Damage, csv_rows, describe_non_utf8, raw_lines

MAX_ROW_BYTES = 2**20
LONG_ROW = f"row over {MAX_ROW_BYTES:,} bytes or field over 131,072 characters"
UNMATCHED = "unbalanced quotes"


class CaptionFiles(Source):
    """One file of captions, or all files that match a glob pattern, sorted by name."""

    def parse(self, text: str) -> None:
        """Stores the path or glob pattern of the files."""
        self.places = (text,)

    def paths(self) -> list[Path]:
        """Lists the files. Raises CaptionError if none matches the pattern."""
        path = os.path.expanduser(self.places[0])
        if not glob.has_magic(path) or os.path.exists(path):
            return [Path(path)]
        if not (matches := sorted(glob_paths(path), key=str)):
            raise CaptionError(f"cannot read captions from {path}: no file matches this pattern")
        return matches

    def stamp(self) -> str:
        """Returns the SHA-256 of the file in hex; for several files, the SHA-256 of their digests.

        Raises CaptionError if no file matches or one cannot be read.
        """
        digests = [file_sha256(path) for path in self.paths()]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    def records(self) -> Iterator[tuple[str, Any]]:
        """Yields each row's position and value. The position names the file if there are several.

        Raises CaptionError if no file matches or one cannot be read.
        """
        paths = self.paths()
        for path in paths:
            suffix = f" of {path.name}" if len(paths) > 1 else ""
            for number, value in self.read(path):
                yield f"line {number:,}{suffix}", value

    def read(self, path: Path) -> Iterator[tuple[int, Any]]:
        """Yields the number of each row's first line and its value; see `records`. Raises CaptionError."""
        raise NotImplementedError


@register_source("txt", "PATH")
class Txt(CaptionFiles):
    """A caption per line."""

    def read(self, path: Path) -> Iterator[tuple[int, Any]]:
        """Yields each line's number and text. A blank, overlong or undecodable line gives Malformed.

        Raises CaptionError if the file cannot be read.
        """
        return lines(path)


@register_source("tsv", "PATH")
class Tsv(CaptionFiles):
    """The first of two or more tab-separated columns, as in Google's Conceptual Captions files."""

    def read(self, path: Path) -> Iterator[tuple[int, Any]]:
        """Yields each line's number and first column. A line without a tab gives Malformed.

        Raises CaptionError if the file cannot be read.
        """
        return ((number, caption) for number, caption, _ in tsv_rows(path))


class FieldFiles(CaptionFiles):
    """Files of records with captions in one field: `PATH:FIELD`."""

    def parse(self, text: str) -> None:
        """Splits the text at its last colon into path and field. Raises CaptionError if there is no path or field."""
        path, self.field = split_suffix(text)
        if path in ("", text):
            raise CaptionError(f"{self.spec!r} names no {self.form.rpartition(':')[2].lower()}; write {self.form}")
        self.places = (path,)


@register_source("csv", "PATH:COLUMN")
class Csv(FieldFiles):
    """A column, named by the header. A row with unbalanced quotes does not affect other rows."""

    def read(self, path: Path) -> Iterator[tuple[int, Any]]:
        """Yields the number of each row's first line and its column. Rows follow RFC 4180, with fields up to
        `csv.field_size_limit()`. Raises CaptionError if the file cannot be read or lacks the column."""
        index: int | None = None
        with _open(path) as file:
            for number, record in csv_rows(file, MAX_ROW_BYTES):
                if isinstance(record, Damage):
                    reason = LONG_ROW if record == Damage.LONG else UNMATCHED
                    if index is None:
                        raise CaptionError(f"{path} has no readable header row ({reason})")
                    yield number, Malformed(reason)
                elif index is None:
                    if record.count(self.field) != 1:
                        header = ", ".join(record) or "a blank line"
                        raise CaptionError(f"{path} must have exactly one column {self.field!r}; found {header:.500}")
                    index = record.index(self.field)
                elif record:  # not a blank line
                    yield number, record[index] if index < len(record) else Malformed("too few columns")
        if index is None:
            raise CaptionError(f"{path} must have exactly one column {self.field!r}; the file is empty")


@register_source("jsonl", "PATH:FIELD")
class Jsonl(FieldFiles):
    """A field of a JSON object per line: a text or a list of texts."""

    def read(self, path: Path) -> Iterator[tuple[int, Any]]:
        """Yields each line's number and the field's value. A line that is not JSON or lacks the field gives Malformed.

        Raises CaptionError if the file cannot be read.
        """
        for number, line in lines(path):
            value: Any = line
            if isinstance(line, str):
                try:
                    record: Any = parse_json(line)
                    has_field = isinstance(record, dict) and self.field in record
                    value = record[self.field] if has_field else Malformed(f"no {self.field}")
                except ValueError:
                    value = Malformed("not JSON")
            yield number, value


def tsv_rows(path: Path) -> Iterator[tuple[int, str | Malformed, str]]:
    """Yields the line's number and the first two columns of each row of a tab-separated file."""
    for number, line in lines(path):
        if isinstance(line, Malformed):
            yield number, line, ""
        else:
            caption, tab, rest = line.partition("\t")
            yield number, caption if tab else Malformed("no tab"), rest.partition("\t")[0].strip()


def lines(path: Path) -> Iterator[tuple[int, str | Malformed]]:
    """Yields the number (from 1) and text of each line of a file, except blank ones at its end."""
    with _open(path) as file:
        first_blank = blank = 0
        for number, line in enumerate(raw_lines(file, MAX_ROW_BYTES), start=1):
            if not line.strip():
                first_blank, blank = first_blank if blank else number, blank + 1
                continue
            if blank:  # the blank lines were not at the end of the file
                yield first_blank, Malformed("empty caption", blank)
                blank = 0
            if len(line) > MAX_ROW_BYTES:
                yield number, Malformed(LONG_ROW)
                continue
            try:
                yield number, line.decode("utf-8")
            except UnicodeDecodeError:
                yield number, Malformed("not UTF-8")


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a caption file in hex. Raises CaptionError if it cannot be read."""
    with _open(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open(path: Path) -> BufferedReader:
    """Opens a caption file. Raises CaptionError if it cannot be read, or its first bytes are not UTF-8 text."""
    file = open_regular(path, "a file of captions", CaptionError, "pass a UTF-8 text file")
    head = file.read(4096)
    file.seek(0)
    if kind := describe_non_utf8(head):
        file.close()
        raise CaptionError(f"cannot read captions from {path}: it {kind}")
    return file

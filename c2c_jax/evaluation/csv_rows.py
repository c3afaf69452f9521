"""Lists as CSV, each row with its line, and the rows that cannot be read."""

import io
from pathlib import Path

from c2c_jax.errors import ManifestError
from c2c_jax.evaluation.rows import LeftOut
from c2c_jax.io.files import open_regular
from c2c_jax.io.rows import Damage, csv_rows, other_than_utf8

MAX_BYTES = 2**25  # of a list: VGGSound's 200,000 rows take 8 MB
MAX_ROW = 2**16  # bytes
ADVICE = "save it as CSV in UTF-8"
WHY = {Damage.LONG: f"more than {MAX_ROW:,} bytes", Damage.UNMATCHED: "a quote that is not closed"}


def read_rows(path: Path, delimiter: str = ",") -> tuple[list[tuple[int, list[str]]], list[LeftOut]]:
    """(line, fields) of each row that is not empty, and the rows that cannot be read: of more than MAX_ROW bytes,
    with a quote that is not closed, or with a NUL. A row with line ends in quotes counts as the line it begins in.

    Raises ManifestError for what is not a regular file, of more than MAX_BYTES, or not UTF-8.
    """
    rows: list[tuple[int, list[str]]] = []
    left_out: list[LeftOut] = []
    for number, found in csv_rows(io.BytesIO(_content_of(path)), MAX_ROW, delimiter=delimiter, lenient=True):
        why = WHY[found] if isinstance(found, Damage) else "a NUL in it" if "\0" in "".join(found) else ""
        if why:
            left_out.append(LeftOut(file=f"{path.name}, line {number}", why=why))
        elif any(field.strip() for field in found):  # type: ignore[union-attr]
            rows.append((number, found))  # type: ignore[arg-type]
    return rows, left_out


def _content_of(path: Path) -> bytes:
    with open_regular(path, "a list as CSV", ManifestError, "give a CSV file") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ManifestError(f"{path} has more than {MAX_BYTES:,} bytes: split it")
    if kind := other_than_utf8(content[:4096]):
        raise ManifestError(f"cannot read {path} as CSV: it {kind}")
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{content[error.start]:02x} in line {line}; Latin-1 or Windows-1252, perhaps"
        raise ManifestError(f"{path} is not a CSV file in UTF-8 ({found}): {ADVICE}") from None
    return content

"""A list of pictures and sounds as a CSV file with a header."""

import dataclasses
from pathlib import Path

from c2c_jax.errors import ManifestError
from c2c_jax.evaluation.csv_rows import read_rows
from c2c_jax.evaluation.rows import LeftOut
from c2c_jax.io.console import printable
from c2c_jax.io.files import found_at, is_regular

COLUMNS = ("image", "audio", "label", "caption")
SEPARATORS = {"semicolons": ";", "tabs": "\t", "bars": "|"}  # that others write


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """A picture, a sound, or a pair, with the class and the caption of what is seen and heard, as far as they are
    known."""

    image: Path | None = None
    audio: Path | None = None
    label: str | None = None
    caption: str | None = None


def read_manifest(path: Path) -> tuple[list[Item], list[LeftOut]]:
    """The rows of a CSV manifest whose files are there, and the files and rows that are not. Raises ManifestError."""
    rows, left_out = read_rows(path)
    header = [name.strip() for name in rows[0][1]] if rows else []
    _check_header(path, header)
    items = []
    for line, record in rows[1:]:
        if len(record) != len(header):
            why = f"{len(record)} fields where the header has {len(header)}"
            left_out.append(LeftOut(file=f"{path.name}, line {line}", why=why))
            continue
        fields = {name: field.strip() for name, field in zip(header, record, strict=True) if field.strip()}
        files: dict[str, Path | None] = {}
        for name in ("image", "audio"):
            files[name] = path.parent / fields[name] if name in fields else None
            if (found := files[name]) and (wrong := _why_not(found)):
                left_out.append(LeftOut(file=printable(found), why=wrong))
                files[name] = None
        items.append(Item(**files, label=fields.get("label"), caption=fields.get("caption")))
    return [item for item in items if item.image or item.audio], left_out


def _why_not(path: Path) -> str | None:
    """What is wrong with a name in a list; None where there is such a file."""
    try:
        path.stat()
    except FileNotFoundError:
        return "there is no such file"
    except (OSError, ValueError) as error:  # a name that no file can have, such as one of 300 letters
        return f"there can be no such file: {error.strerror if isinstance(error, OSError) else error}"
    return None if is_regular(path) else f"expected a file, found {found_at(path)}"


def _check_header(path: Path, header: list[str]) -> None:
    found = ", ".join(header) or "none, the file is empty"
    if len(header) == 1 and (separators := [name for name in SEPARATORS if SEPARATORS[name] in header[0]]):
        raise ManifestError(
            f"{path} separates its columns by {separators[0]}; expected commas: save it as CSV with commas"
        )
    if not {"image", "audio"} & set(header):
        raise ManifestError(f"{path} has neither a column image nor audio; its columns are {found}")
    if wrong := [name for name in header if name not in COLUMNS or header.count(name) > 1]:
        raise ManifestError(
            f"{path} has columns that are not known or come twice: {', '.join(dict.fromkeys(wrong))}; "
            f"expected each once of {', '.join(COLUMNS)}"
        )

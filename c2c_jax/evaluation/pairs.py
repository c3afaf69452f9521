"""Pictures and sounds to evaluate on: those of a CSV manifest, or of a folder in the layout of a usual set."""

import dataclasses
from pathlib import Path

from c2c_jax.errors import ManifestError
from c2c_jax.evaluation.layouts import read_folder
from c2c_jax.evaluation.manifest import COLUMNS, Item, read_manifest
from c2c_jax.evaluation.rows import LeftOut
from c2c_jax.io.console import printable
from c2c_jax.io.files import found_at, is_regular

FILE = "manifest.csv"
NO_SOUND, NO_PICTURE = "it has no sound", "it has no picture"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairs:
    """What a manifest or folder names. told: what it was taken for, for people. left_out: files that are not there,
    pictures and sounds without their other half where others have theirs, and files of which only the first of several
    labels is taken. passed_over: a line on the files of a folder that are neither pictures nor sounds; "": none."""

    items: list[Item]
    told: str
    left_out: list[LeftOut]
    passed_over: str = ""

    @property
    def labels(self) -> list[str]:
        """The classes, each once, sorted."""
        return sorted({item.label for item in self.items if item.label})

    def counted(self) -> str:
        """In a line: `12 pairs, 3 pictures and 0 sounds alone, 5 classes (manifest pairs.csv)`."""
        pairs = sum(bool(item.image and item.audio) for item in self.items)
        pictures, sounds = (sum(bool(getattr(item, name)) for item in self.items) for name in ("image", "audio"))
        alone = f"{pictures - pairs:,} pictures and {sounds - pairs:,} sounds alone"
        passed_over = f"; {self.passed_over}" if self.passed_over else ""
        return f"{pairs:,} pairs, {alone}, {len(self.labels):,} classes ({self.told}){passed_over}"


def read_pairs(path: Path) -> Pairs:
    """A CSV manifest with a header of `image`, `audio`, `label`, `caption` (any order; `image` or `audio` at least, its
    paths relative to the file), a folder that has one as `manifest.csv`, or a folder in a layout of `layouts.py`.

    Raises ManifestError where there is no such file, its columns are others, or nothing in it can be used.
    """
    is_folder = found_at(path) == "a folder"
    if is_folder and not is_regular(path / FILE):
        items, left_out, told, passed_over = read_folder(path)
        return _pairs(items, told, path, left_out, passed_over)
    path = path / FILE if is_folder else path
    if not is_regular(path):
        found = "" if (there := found_at(path)) == "no file" else f", found {there}"
        raise ManifestError(
            f"no manifest at {path}{found}: give a CSV file with a header of {', '.join(COLUMNS)}, or a folder"
        )
    items, left_out = read_manifest(path)
    return _pairs(items, f"manifest {path.name}", path, left_out)


def _pairs(items: list[Item], told: str, path: Path, left_out: list[LeftOut], passed_over: str = "") -> Pairs:
    """Items, with those reported that lack their other half, in a list with pairs. Raises ManifestError where there
    are none."""
    if not items:
        first = f"; the first of {len(left_out)}: {left_out[0].file}, {left_out[0].why}" if left_out else ""
        raise ManifestError(f"{path} names no picture and no sound that is there{first}")
    left_out = list(left_out)
    if any(item.image and item.audio for item in items):
        for item in items:
            if not item.audio:
                left_out.append(LeftOut(file=printable(item.image), why=NO_SOUND))
            elif not item.image:
                left_out.append(LeftOut(file=printable(item.audio), why=NO_PICTURE))
    left_out += _labelled_twice(items)
    return Pairs(items=items, told=told, left_out=left_out, passed_over=passed_over)


def _labelled_twice(items: list[Item]) -> list[LeftOut]:
    labels: dict[Path, dict[str, None]] = {}
    for item in items:
        for file in (item.image, item.audio):
            if file and item.label:
                labels.setdefault(file, {})[item.label] = None
    return [
        LeftOut(file=printable(file), why=f"has several labels ({', '.join(found)}); the first is used")
        for file, found in labels.items()
        if len(found) > 1
    ]

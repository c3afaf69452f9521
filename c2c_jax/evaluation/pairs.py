"""Pictures and sounds to evaluate on: those of a CSV manifest, or of a folder in the layout of a usual set."""

import dataclasses
from pathlib import Path

from c2c_jax.errors import ManifestError
from c2c_jax.evaluation.layouts import read_folder
from c2c_jax.evaluation.manifest import COLUMNS, Item, read_manifest
from c2c_jax.evaluation.rows import LeftOut

FILE = "manifest.csv"
NO_SOUND, NO_PICTURE = "it has no sound", "it has no picture"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairs:
    """What a manifest or folder names. told: what it was taken for, for people. left_out: files that are not there,
    pictures and sounds without their other half where others have theirs, and files of which only the first of several
    labels is taken."""

    items: list[Item]
    told: str
    left_out: list[LeftOut]

    @property
    def labels(self) -> list[str]:
        """The classes, each once, sorted."""
        return sorted({item.label for item in self.items if item.label})

    def counted(self) -> str:
        """In a line: `12 pairs, 3 pictures and 0 sounds alone, 5 classes (manifest pairs.csv)`."""
        pairs = sum(bool(item.image and item.audio) for item in self.items)
        pictures, sounds = (sum(bool(getattr(item, name)) for item in self.items) for name in ("image", "audio"))
        alone = f"{pictures - pairs:,} pictures and {sounds - pairs:,} sounds alone"
        return f"{pairs:,} pairs, {alone}, {len(self.labels):,} classes ({self.told})"


def read_pairs(path: Path) -> Pairs:
    """A CSV manifest with a header of `image`, `audio`, `label`, `caption` (any order; `image` or `audio` at least, its
    paths relative to the file), a folder that has one as `manifest.csv`, or a folder in a layout of `layouts.py`.

    Raises ManifestError where there is no such file, its columns are others, or nothing in it can be used.
    """
    if path.is_dir() and not (path / FILE).is_file():
        items, left_out, told = read_folder(path)
        return _settled(items, told, path, left_out)
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise ManifestError(
            f"no manifest at {path}: give a CSV file with a header of {', '.join(COLUMNS)}, or a folder"
        )
    items, left_out = read_manifest(path)
    return _settled(items, f"manifest {path.name}", path, left_out)


def _settled(items: list[Item], told: str, path: Path, left_out: list[LeftOut]) -> Pairs:
    """Items with what is wrong with them told: in a list with pairs, those that lack their other half. Raises
    ManifestError where there are none."""
    if not items:
        first = f"; the first of {len(left_out)}: {left_out[0].file}, {left_out[0].why}" if left_out else ""
        raise ManifestError(f"{path} names no picture and no sound that is there{first}")
    left_out = list(left_out)
    if any(item.image and item.audio for item in items):
        for item in items:
            if not item.audio:
                left_out.append(LeftOut(file=str(item.image), why=NO_SOUND))
            elif not item.image:
                left_out.append(LeftOut(file=str(item.audio), why=NO_PICTURE))
    return Pairs(items=items, told=told, left_out=left_out + _labelled_twice(items))


def _labelled_twice(items: list[Item]) -> list[LeftOut]:
    labels: dict[Path, dict[str, None]] = {}
    for item in items:
        for file in (item.image, item.audio):
            if file and item.label:
                labels.setdefault(file, {})[item.label] = None
    return [
        LeftOut(file=str(file), why=f"labelled {', '.join(found)}: the first is taken")
        for file, found in labels.items()
        if len(found) > 1
    ]

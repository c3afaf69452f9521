"""Reads lists of images and sounds to evaluate on: a CSV manifest, or the folder of a data set."""

import dataclasses
import io
import re
from collections.abc import Sequence
from pathlib import Path

from c2c_jax.errors import ManifestError
from c2c_jax.evaluation.results import SkippedFile
from c2c_jax.io.console import printable
from c2c_jax.io.files import describe_path, is_regular, open_regular, path_exists, stored_path, walk
from c2c_jax.io.formats import scan_files
from c2c_jax.io.rows import Damage, csv_rows, describe_non_utf8

MANIFEST = "manifest.csv"
COLUMNS = ("image", "audio", "label", "caption")
SEPARATORS = {"semicolons": ";", "tabs": "\t", "bars": "|"}  # written by other programs instead of commas
MAX_LIST_BYTES = 2**25  # VGGSound's 200,000 rows take 8 MB
MAX_ROW_BYTES = 2**16
# Class lists of data sets: their columns of file names and of classes, as documented by their authors.
CLASS_LISTS = {
    "meta/esc50.csv": ("filename", "category"),  # ESC-50, Piczak 2015
    "metadata/UrbanSound8K.csv": ("slice_file_name", "class"),  # Salamon et al. 2014
}
VGGSOUND, VGGSOUND_COLUMNS = "vggsound.csv", ("id", "start", "label", "split")  # Chen et al. 2020
IMAGE_FOLDERS, AUDIO_FOLDERS = ("images", "pictures", "frames"), ("sounds", "audio")
NUMBERED = re.compile(r"([A-Za-z][A-Za-z _-]*?)[ _-]?\d+")  # such as ImageHear's `dog1.jpg` (Sheffer & Adi 2023)
NO_AUDIO, NO_IMAGE = "it has no sound", "it has no image"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """An image, a sound, or a pair of both, with its class and caption if known."""

    image: Path | None = None
    audio: Path | None = None
    label: str | None = None
    caption: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairs:
    """The items of a manifest or folder.

    description: what was read, in words. skipped: files that do not exist, rows that cannot be read, images and sounds
    without a counterpart if others have one, and files with several labels. other_files: one line about the files of a
    folder that are neither images nor sounds; "" if there are none.
    """

    items: list[Item]
    description: str
    skipped: list[SkippedFile]
    other_files: str = ""

    @property
    def labels(self) -> list[str]:
        """The different classes, sorted."""
        return sorted({item.label for item in self.items if item.label})

    def __str__(self) -> str:
        pairs = sum(bool(item.image and item.audio) for item in self.items)
        images, audio = (sum(bool(getattr(item, kind)) for item in self.items) for kind in ("image", "audio"))
        alone = f"{images - pairs:,} unpaired images, {audio - pairs:,} unpaired sounds"
        others = f"; {self.other_files}" if self.other_files else ""
        return f"{pairs:,} pairs, {alone}, {len(self.labels):,} classes ({self.description}){others}"


def read_pairs(path: Path) -> Pairs:
    """Reads a CSV manifest, a folder that contains one as `manifest.csv`, or the folder of a data set.

    A manifest has a header with some of `image`, `audio`, `label` and `caption`, in any order, including `image` or
    `audio`. Paths are relative to the manifest. For folders see `_read_folder`. Raises ManifestError if the file does
    not exist, has other columns, or contains nothing that can be used.
    """
    is_folder = describe_path(path) == "a folder"
    if is_folder and not is_regular(path / MANIFEST):
        pairs = _read_folder(path)
    else:
        pairs = _read_manifest(path / MANIFEST if is_folder else path)
    if not pairs.items:
        first = f"; the first of {len(pairs.skipped)}: {pairs.skipped[0]}" if pairs.skipped else ""
        raise ManifestError(f"none of the images and sounds listed in {path} exist{first}")
    if any(item.image and item.audio for item in pairs.items):
        for item in pairs.items:
            if not (item.image and item.audio):
                why = NO_AUDIO if item.image else NO_IMAGE
                pairs.skipped.append(SkippedFile(file=printable(item.image or item.audio), why=why))
    labels: dict[Path, dict[str, None]] = {}
    for item in pairs.items:
        for file in (item.image, item.audio):
            if file and item.label:
                labels.setdefault(file, {})[item.label] = None
    for file, several in labels.items():
        if len(several) > 1:
            why = f"has several labels ({', '.join(several)}); the first is used"
            pairs.skipped.append(SkippedFile(file=printable(file), why=why))
    return pairs


def _read_manifest(path: Path) -> Pairs:
    if not is_regular(path):
        found = "" if (kind := describe_path(path)) == "no file" else f", found {kind}"
        raise ManifestError(
            f"no manifest at {path}{found}: give a CSV file with a header of {', '.join(COLUMNS)}, or a folder"
        )
    table, header, skipped = _read_table(path)
    if len(header) == 1 and (separators := [name for name in SEPARATORS if SEPARATORS[name] in header[0]]):
        raise ManifestError(
            f"{path} separates its columns by {separators[0]}; expected commas: save it as CSV with commas"
        )
    if not {"image", "audio"} & set(header):
        found = ", ".join(header) or "none, the file is empty"
        raise ManifestError(f"{path} has neither a column image nor audio; its columns are {found}")
    if invalid := [name for name in header if name not in COLUMNS or header.count(name) > 1]:
        raise ManifestError(
            f"{path} has unknown or duplicate columns: {', '.join(dict.fromkeys(invalid))}; "
            f"expected each once of {', '.join(COLUMNS)}"
        )
    items = []
    for fields in table:
        files = {name: stored_path(fields[name], path.parent) for name in ("image", "audio") if fields.get(name)}
        for name, file in [*files.items()]:
            if not is_regular(file):
                kind = describe_path(file)
                why = "there is no such file" if kind == "no file" else f"expected a file, found {kind}"
                skipped.append(SkippedFile(file=printable(files.pop(name)), why=why))
        if files:
            items.append(Item(**files, label=fields.get("label") or None, caption=fields.get("caption") or None))
    return Pairs(items=items, description=f"manifest {path.name}", skipped=skipped)


def _read_table(
    path: Path, columns: Sequence[str] = ()
) -> tuple[list[dict[str, str]], Sequence[str], list[SkippedFile]]:
    """Reads the rows of a CSV file as dicts by column. Returns the rows, the columns, and the skipped rows.

    Rows are skipped if they are longer than MAX_ROW_BYTES, have an unclosed quote, a NUL, or another number of fields
    than the header. columns: of a file without a header. Raises ManifestError unless it is a regular file of at most
    MAX_LIST_BYTES in UTF-8.
    """
    with open_regular(path, "a list as CSV", ManifestError, "give a CSV file") as file:
        content = file.read(MAX_LIST_BYTES + 1)
    if len(content) > MAX_LIST_BYTES:
        raise ManifestError(f"{path} has more than {MAX_LIST_BYTES:,} bytes: split it")
    if kind := describe_non_utf8(content[:4096]):
        raise ManifestError(f"cannot read {path} as CSV: it {kind}")
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{content[error.start]:02x} in line {line}; Latin-1 or Windows-1252, perhaps"
        raise ManifestError(f"{path} is not a CSV file in UTF-8 ({found}): save it as CSV in UTF-8") from None
    rows: list[dict[str, str]] = []
    skipped: list[SkippedFile] = []
    reasons = {Damage.LONG: f"more than {MAX_ROW_BYTES:,} bytes", Damage.UNMATCHED: "a quote that is not closed"}
    for line, fields in csv_rows(io.BytesIO(content), MAX_ROW_BYTES, lenient=True):
        why = reasons[fields] if isinstance(fields, Damage) else "a NUL in it" if "\0" in "".join(fields) else ""
        cells = [] if isinstance(fields, Damage) else [field.strip() for field in fields]
        if any(cells) and not why and not columns:
            columns = cells
        elif any(cells) and not why and len(cells) == len(columns):
            rows.append(dict(zip(columns, cells, strict=True)))
        elif any(cells) or why:
            why = why or f"{len(cells)} fields where the header has {len(columns)}"
            skipped.append(SkippedFile(file=f"{path.name}, line {line}", why=why))
    return rows, columns, skipped


def _read_folder(folder: Path) -> Pairs:
    """Finds the images and sounds of a folder and its subfolders. Links to folders are followed.

    If the folder has one of IMAGE_FOLDERS and one of AUDIO_FOLDERS, in any case, only these are searched. An image and
    a sound with the same name are a pair; if several images or several sounds have the same name, their folders must
    match as well. If there is a class list, see `_read_class_list`, only the files in it are used, with its classes.
    Otherwise files have the names of their folders as classes, if there are at least two.
    """
    folders = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    image_base, audio_base = (
        next((folders[name] for name in names if name in folders), None) for names in (IMAGE_FOLDERS, AUDIO_FOLDERS)
    )
    bases = (image_base, audio_base) if image_base and audio_base else (folder, folder)
    walked = [list(walk(base, include_unreadable=True)) for base in dict.fromkeys(bases)]
    image_files, audio_files = scan_files(walked[0], "image").files, scan_files(walked[-1], "sound").files
    if not image_files and not audio_files:
        raise ManifestError(
            f"{folder} contains no image and no sound; for videos, first extract frames (frames/CLIP.jpg) and audio "
            "(audio/CLIP.wav)"
        )
    class_of, name, skipped = _read_class_list(folder)
    others = {path for paths in walked for path in paths} - {*image_files, *audio_files, folder / name}
    other_files = scan_files(sorted(others), "image").report().replace("not images", "not images or sounds")
    has_equal_names = any(len({path.stem for path in paths}) < len(paths) for paths in (image_files, audio_files))
    image_of, audio_of = (
        {
            str(path.relative_to(base).with_suffix("")) if has_equal_names and class_of is None else path.stem: path
            for path in paths
        }
        for base, paths in zip(bases, (image_files, audio_files), strict=True)
    )
    label_of = _labels_by_name(bases, image_files, audio_files)
    items = []
    for clip in dict.fromkeys([*image_of, *audio_of]) if class_of is None else class_of:
        image, audio = image_of.get(clip), audio_of.get(clip)
        by_name = [label_of[file] for file in (image, audio) if file and file in label_of]
        label = class_of[clip] if class_of is not None else by_name[0] if by_name else None
        if image or audio:
            items.append(Item(image=image, audio=audio, label=label))
        else:
            skipped.append(SkippedFile(file=clip, why=f"listed in {name} but not in the folder"))
    return Pairs(items=items, description=name, skipped=skipped, other_files=other_files)


def _read_class_list(folder: Path) -> tuple[dict[str, str] | None, str, list[SkippedFile]]:
    """Reads the class list of a data set's folder: one of CLASS_LISTS, or VGGSound's.

    Returns the classes by file name without suffix, the list's name, and the skipped rows; None as classes if there is
    no list. VGGSound's list gives the files of the test split, which are named ID_SECONDS with six digits.
    """
    if path_exists(folder / VGGSOUND):
        table, _, skipped = _read_table(folder / VGGSOUND, VGGSOUND_COLUMNS)
        tests = [row for row in table if row["split"] == "test"]
        return {f"{row['id']}_{row['start'].zfill(6)}": row["label"] for row in tests}, VGGSOUND, skipped
    for name, (file, label) in CLASS_LISTS.items():
        if path_exists(folder / name):
            table, header, skipped = _read_table(folder / name)
            if file not in header or label not in header:
                found = ", ".join(header) or "none"
                raise ManifestError(f"{folder / name} lacks a column {file} or {label}; its columns are {found}")
            return {Path(row[file]).stem: row[label].replace("_", " ") for row in table}, name, skipped
    return None, "folder without a list of clips", []


def _labels_by_name(bases: tuple[Path, Path], images: Sequence[Path], audio: Sequence[Path]) -> dict[Path, str]:
    """Infers each file's class from the name of its folder. If there are only images in one folder, their own names
    without numbers are the classes."""
    sides = [
        {path: name for path in paths if (name := path.relative_to(base).parent.name)}
        for base, paths in zip(bases, (images, audio), strict=True)
    ]
    classes = {name for side in sides if len({*side.values()}) > 1 for name in side.values()}
    if classes:
        return {path: name.replace("_", " ") for side in sides for path, name in side.items() if name in classes}
    matches = {path: NUMBERED.fullmatch(path.stem) for path in images}
    names = {path: match[1].replace("_", " ") for path, match in matches.items() if match}
    return names if not audio and len(names) == len(images) and len({*names.values()}) > 1 else {}

"""Reads lists of images and sounds to evaluate on: a CSV manifest, or the folder of a data set."""

import dataclasses
import io
import re
from collections.abc import Sequence
from pathlib import Path

from c2c_jax.errors import ManifestError
from c2c_jax.evaluation.rows import SkippedFile
from c2c_jax.io.console import printable
from c2c_jax.io.files import describe_path, is_regular, open_regular, path_exists, walk
from c2c_jax.io.formats import scan_files
from c2c_jax.io.rows import Damage, csv_rows, describe_non_utf8

MANIFEST = "manifest.csv"
COLUMNS = ("image", "audio", "label", "caption")
SEPARATORS = {"semicolons": ";", "tabs": "\t", "bars": "|"}  # that other programs write in place of commas
MAX_BYTES = 2**25  # of a list: VGGSound's 200,000 rows take 8 MB
MAX_ROW = 2**16  # bytes
# Lists that come with data sets: their columns of file names and of classes, as their authors document them.
LISTS = {
    "meta/esc50.csv": ("filename", "category"),  # ESC-50, Piczak 2015
    "metadata/UrbanSound8K.csv": ("slice_file_name", "class"),  # Salamon et al. 2014
}
VGGSOUND, VGGSOUND_COLUMNS = "vggsound.csv", ("id", "start", "label", "split")  # Chen et al. 2020
IMAGE_FOLDERS, SOUND_FOLDERS = ("images", "pictures", "frames"), ("sounds", "audio")
NUMBERED = re.compile(r"([A-Za-z][A-Za-z _-]*?)[ _-]?\d+")  # names as ImageHear's, `dog1.jpg` (Sheffer & Adi 2023)
NO_SOUND, NO_PICTURE = "it has no sound", "it has no picture"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """An image, a sound, or a pair of both, with its class and its caption where they are known."""

    image: Path | None = None
    audio: Path | None = None
    label: str | None = None
    caption: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairs:
    """The items of a manifest or folder.

    description: what was read, for people. skipped: files that do not exist, rows that cannot be read, images and
    sounds without a counterpart where others have one, and files with several labels. other_files: one line on the
    files of a folder that are neither images nor sounds; "": there are none.
    """

    items: list[Item]
    description: str
    skipped: list[SkippedFile]
    other_files: str = ""

    @property
    def labels(self) -> list[str]:
        """The classes, each once, sorted."""
        return sorted({item.label for item in self.items if item.label})

    def __str__(self) -> str:
        pairs = sum(bool(item.image and item.audio) for item in self.items)
        images, sounds = (sum(bool(getattr(item, name)) for item in self.items) for name in ("image", "audio"))
        alone = f"{images - pairs:,} pictures and {sounds - pairs:,} sounds alone"
        others = f"; {self.other_files}" if self.other_files else ""
        return f"{pairs:,} pairs, {alone}, {len(self.labels):,} classes ({self.description}){others}"


def read_pairs(path: Path) -> Pairs:
    """Reads a CSV manifest, a folder with one as `manifest.csv`, or the folder of a data set.

    A manifest has a header with some of `image`, `audio`, `label` and `caption`, in any order, at least `image` or
    `audio`; paths are relative to the manifest. For folders see `_read_folder`. Raises ManifestError if there is no
    such file, its columns are others, or nothing in it can be used.
    """
    is_folder = describe_path(path) == "a folder"
    if is_folder and not is_regular(path / MANIFEST):
        pairs = _read_folder(path)
    else:
        pairs = _read_manifest(path / MANIFEST if is_folder else path)
    if not pairs.items:
        first = f"; the first of {len(pairs.skipped)}: {pairs.skipped[0]}" if pairs.skipped else ""
        raise ManifestError(f"{path} names no picture and no sound that is there{first}")
    if any(item.image and item.audio for item in pairs.items):
        for item in pairs.items:
            if not (item.image and item.audio):
                why = NO_SOUND if item.image else NO_PICTURE
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
        found = "" if (there := describe_path(path)) == "no file" else f", found {there}"
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
    if wrong := [name for name in header if name not in COLUMNS or header.count(name) > 1]:
        raise ManifestError(
            f"{path} has columns that are not known or come twice: {', '.join(dict.fromkeys(wrong))}; "
            f"expected each once of {', '.join(COLUMNS)}"
        )
    items = []
    for fields in table:
        files = {name: path.parent / fields[name] for name in ("image", "audio") if fields.get(name)}
        for name, file in [*files.items()]:
            if not is_regular(file):
                there = describe_path(file)
                why = "there is no such file" if there == "no file" else f"expected a file, found {there}"
                skipped.append(SkippedFile(file=printable(files.pop(name)), why=why))
        if files:
            items.append(Item(**files, label=fields.get("label") or None, caption=fields.get("caption") or None))
    return Pairs(items=items, description=f"manifest {path.name}", skipped=skipped)


def _read_table(
    path: Path, columns: Sequence[str] = ()
) -> tuple[list[dict[str, str]], Sequence[str], list[SkippedFile]]:
    """The rows of a CSV file as fields by column, its columns, and the rows that are skipped: longer than MAX_ROW, with
    an unclosed quote, a NUL, or another number of fields than the header.

    columns: of a file without a header. Raises ManifestError for what is not a regular file of at most MAX_BYTES in
    UTF-8.
    """
    with open_regular(path, "a list as CSV", ManifestError, "give a CSV file") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ManifestError(f"{path} has more than {MAX_BYTES:,} bytes: split it")
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
    reasons = {Damage.LONG: f"more than {MAX_ROW:,} bytes", Damage.UNMATCHED: "a quote that is not closed"}
    for line, fields in csv_rows(io.BytesIO(content), MAX_ROW, lenient=True):
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
    """The images and sounds of a folder and its subfolders; links to folders are followed.

    If the folder has one of IMAGE_FOLDERS and one of SOUND_FOLDERS, in any case, only these are searched. An image and
    a sound with the same name are a pair; if files of one kind share names, the folders that they are in count as well.
    With one of LISTS, or VGGSound's, only the files that it names are taken, with the classes that it gives. Without
    one, the folders that files are in are their classes, if there are two or more.
    """
    there = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    found = [next((there[name] for name in names if name in there), None) for names in (IMAGE_FOLDERS, SOUND_FOLDERS)]
    bases = (found[0], found[1]) if found[0] and found[1] else (folder, folder)
    within = [list(walk(base, include_unreadable=True)) for base in dict.fromkeys(bases)]
    images, sounds = scan_files(within[0], "image").files, scan_files(within[-1], "sound").files
    if not images and not sounds:
        raise ManifestError(
            f"{folder} contains no image and no sound; of videos, extract frames (frames/CLIP.jpg) and sounds "
            "(audio/CLIP.wav) first"
        )
    listed, name, skipped = _listed(folder)
    others = {path for paths in within for path in paths} - {*images, *sounds, folder / name}
    other_files = scan_files(sorted(others), "image").report().replace("not images", "not images or sounds")
    has_equal_names = any(len({path.stem for path in paths}) < len(paths) for paths in (images, sounds))
    image_of, audio_of = (
        {
            str(path.relative_to(base).with_suffix("")) if has_equal_names and listed is None else path.stem: path
            for path in paths
        }
        for base, paths in zip(bases, (images, sounds), strict=True)
    )
    label_of = _labels_by_name(bases, images, sounds)
    items = []
    for clip in dict.fromkeys([*image_of, *audio_of]) if listed is None else listed:
        image, audio = image_of.get(clip), audio_of.get(clip)
        by_name = [label_of[file] for file in (image, audio) if file and file in label_of]
        label = listed[clip] if listed is not None else by_name[0] if by_name else None
        if image or audio:
            items.append(Item(image=image, audio=audio, label=label))
        else:
            skipped.append(SkippedFile(file=clip, why=f"listed in {name} but not in the folder"))
    return Pairs(items=items, description=name, skipped=skipped, other_files=other_files)


def _listed(folder: Path) -> tuple[dict[str, str] | None, str, list[SkippedFile]]:
    """Names without suffix and their classes by the folder's list, the list's name, and rows that were skipped; None
    without a list. Of VGGSound's list the test split, whose files are named ID_SECONDS with six digits."""
    if path_exists(folder / VGGSOUND):
        table, _, skipped = _read_table(folder / VGGSOUND, VGGSOUND_COLUMNS)
        tests = [row for row in table if row["split"] == "test"]
        return {f"{row['id']}_{row['start'].zfill(6)}": row["label"] for row in tests}, VGGSOUND, skipped
    for name, (file, label) in LISTS.items():
        if path_exists(folder / name):
            table, header, skipped = _read_table(folder / name)
            if file not in header or label not in header:
                found = ", ".join(header) or "none"
                raise ManifestError(f"{folder / name} lacks a column {file} or {label}; its columns are {found}")
            return {Path(row[file]).stem: row[label].replace("_", " ") for row in table}, name, skipped
    return None, "folder without a list of clips", []


def _labels_by_name(bases: tuple[Path, Path], images: Sequence[Path], sounds: Sequence[Path]) -> dict[Path, str]:
    """Each file's class: the name of its folder or, of images alone in one folder, its own name without its number."""
    sides = [
        {path: name for path in paths if (name := path.relative_to(base).parent.name)}
        for base, paths in zip(bases, (images, sounds), strict=True)
    ]
    classes = {name for side in sides if len({*side.values()}) > 1 for name in side.values()}
    if classes:
        return {path: name.replace("_", " ") for side in sides for path, name in side.items() if name in classes}
    numbered = {path: NUMBERED.fullmatch(path.stem) for path in images}
    names = {path: found[1].replace("_", " ") for path, found in numbered.items() if found}
    return names if not sounds and len(names) == len(images) and len({*names.values()}) > 1 else {}

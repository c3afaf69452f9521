"""Folders of the usual sets of pictures and sounds, as their authors and the programs that read them lay them out.

| set | list of clips | files |
|---|---|---|
| VGGSound (Chen et al. 2020) | `vggsound.csv`: ID, start, label, split | `frames/ID_START.jpg`, `audio/ID_START.wav` |
| VGG-SS (Chen et al. 2021) | `vggss_test.csv`: ID_START | the same |
| FlickrSoundNet (Senocak et al. 2018) | `flickr_test.csv`: ID, number; or none | `frames/ID.jpg`, `audio/ID.wav` |
| AVE (Tian et al. 2018) | `testSet.txt`, `Annotations.txt`: Category&ID&Quality&Start&End | `ID.jpg`, `ID.wav` |
| ESC-50 (Piczak 2015), UrbanSound8K | `meta/esc50.csv`, `metadata/UrbanSound8K.csv` | sounds alone |
| ImageHear (Sheffer & Adi 2023) | none | pictures alone: `dog1.jpg`, or `dog/1.jpg` |

One rule covers them: a picture and a sound of one clip have one name, and a list, where there is one, says which clips
count and of what class they are. Names are compared as `clip_of` writes them. Frames of a clip may lie in a folder of
its name: the middle one stands for it. Where a folder has one of PICTURES and one of SOUNDS in it, in large or small
letters, nothing else is looked into. Links to folders are followed. Without a list, the folders that files lie in are
their classes, if the pictures or the sounds lie in two or more.
"""

import collections
import re
from pathlib import Path

from c2c_jax.errors import ManifestError
from c2c_jax.evaluation.csv_rows import read_rows
from c2c_jax.evaluation.manifest import Item
from c2c_jax.evaluation.rows import LeftOut
from c2c_jax.io.files import is_there, walk
from c2c_jax.io.formats import scan_files

PICTURES = ("frames", "images", "pictures", "video_frames")
SOUNDS = ("audio", "sounds", "wav")
# Lists with a header → their columns of file names and of classes.
NAMED = {"meta/esc50.csv": ("filename", "category"), "metadata/UrbanSound8K.csv": ("slice_file_name", "class")}
CLIPS = ("vggsound.csv", "vggss_test.csv", "flickr_test.csv")
ANNOTATIONS = ("testSet.txt", "Annotations.txt", "annotations.txt")
MEDIA = re.compile(r"\.(mp4|wav|flac|mp3|jpg|png)$")
_MILLISECONDS = re.compile(r"(.{11})_(\d{1,12})_\d{1,12}")  # start and end, as audiosetdl names clips
_SECONDS = re.compile(r"(.{11})_(\d{1,6})")  # the start, as VGGSound's authors name them
_NUMBERED = re.compile(r"([A-Za-z][A-Za-z _-]*?)[ _-]?\d+")

Listing = dict[str, str | None]  # clip → class


def clip_of(name: str) -> str:
    """One way to write a clip's name: YouTube's 11 letters and the start in six digits of seconds; other names stay."""
    if found := _MILLISECONDS.fullmatch(name):
        return f"{found[1]}_{int(found[2]) // 1000:06}"
    if found := _SECONDS.fullmatch(name):
        return f"{found[1]}_{int(found[2]):06}"
    return name


def read_folder(folder: Path) -> tuple[list[Item], list[LeftOut], str, str]:
    """The clips of a folder, the clips of its list that are not there and the rows of it that cannot be read, what the
    folder was taken for, and a line on the files in it that were passed over.

    Raises ManifestError for a list that cannot be read, and for a folder without any picture or sound.
    """
    bases = _bases(folder)
    within = [list(walk(base, others=True)) for base in dict.fromkeys(bases)]
    pictures, sounds = scan_files(within[0], "image").files, scan_files(within[-1], "sound").files
    if not pictures and not sounds:
        raise ManifestError(
            f"{folder} contains no image and no sound; of videos, extract frames (frames/CLIP.jpg) and sounds "
            "(audio/CLIP.wav) first"
        )
    listing, list_name, left_out = _listing(folder)
    others = {path for paths in within for path in paths} - {*pictures, *sounds, folder / list_name}
    passed_over = scan_files(sorted(others), "image").report().replace("not images", "not images or sounds")
    if listing is None:
        return _unlisted(bases, pictures, sounds), [], list_name, passed_over
    images, audios = _by_clip(pictures, listing), _by_clip(sounds, listing)
    items = [
        Item(image=_middle(images[clip]), audio=_middle(audios[clip]), label=label)
        for clip, label in listing.items()
        if clip in images or clip in audios
    ]
    absent = [clip for clip in listing if clip not in images and clip not in audios]
    left_out += [LeftOut(file=clip, why=f"listed in {list_name} but not in the folder") for clip in absent]
    return items, left_out, list_name, passed_over


def _bases(folder: Path) -> tuple[Path, Path]:
    """Where pictures are looked for, and where sounds."""
    there = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    found = [next((there[name] for name in names if name in there), None) for names in (PICTURES, SOUNDS)]
    return (found[0], found[1]) if found[0] and found[1] else (folder, folder)


def _middle(paths: list[Path]) -> Path | None:
    return paths[len(paths) // 2] if paths else None


def _listing(folder: Path) -> tuple[Listing | None, str, list[LeftOut]]:
    """The list of a folder's clips, if it has one, its name, and the rows of it that cannot be read."""
    for name in (*NAMED, *CLIPS, *ANNOTATIONS):
        if not is_there(path := folder / name):
            continue
        rows, left_out = read_rows(path, "&" if name in ANNOTATIONS else ",")
        records = [record for _, record in rows]
        if name in NAMED:
            return _named(path, records, *NAMED[name]), name, left_out
        return _clips(records) if name in CLIPS else _annotations(path, rows), name, left_out
    return None, "folder without a list of clips", []


def _named(path: Path, records: list[list[str]], name: str, label: str) -> Listing:
    header, *records = records or [[]]
    if name not in header or label not in header:
        raise ManifestError(f"{path} lacks a column {name} or {label}; its columns are {', '.join(header) or 'none'}")
    at, class_at = header.index(name), header.index(label)
    if short := next((record for record in records if len(record) != len(header)), None):
        raise ManifestError(f"{path}: {len(short)} fields in {','.join(short)!r}, {len(header)} in its header")
    return {MEDIA.sub("", record[at]): record[class_at].replace("_", " ") for record in records}


def _clips(records: list[list[str]]) -> Listing:
    """ID, start, label, split (of which the test split, where there is one); or ID_START; or ID and a frame's
    number."""
    tests = [record for record in records if len(record) == 4 and record[3] == "test"]
    listing: Listing = {}
    for record in tests or records:
        if len(record) >= 3:
            listing[clip_of(f"{record[0]}_{record[1]}")] = record[2]
        else:
            listing[clip_of(MEDIA.sub("", record[0]))] = None
    return listing


def _annotations(path: Path, rows: list[tuple[int, list[str]]]) -> Listing:
    """AVE's, of a video with several events the first."""
    listing: Listing = {}
    for number, record in rows:
        if len(record) != 5:
            raise ManifestError(f"{path}, line {number}: expected Category&VideoID&Quality&StartTime&EndTime")
        if record[1] != "VideoID":
            listing.setdefault(record[1], record[0])
    return listing


def _by_clip(paths: list[Path], listing: Listing) -> dict[str, list[Path]]:
    """The files of each clip on the list, by their names or those of their folders; a name that is a video's alone is
    that of its only clip."""
    videos = collections.Counter(clip[:11] for clip in listing)
    only = {clip[:11]: clip for clip in listing if videos[clip[:11]] == 1}
    found: dict[str, list[Path]] = collections.defaultdict(list)
    for path in paths:
        for name in (clip_of(path.stem), clip_of(path.parent.name)):
            if clip := name if name in listing else only.get(name):
                found[clip].append(path)
                break
    return found


def _unlisted(bases: tuple[Path, Path], pictures: list[Path], sounds: list[Path]) -> list[Item]:
    """Pairs by name; of files that share names, by the folders within as well."""
    clips = {clip_of(path.stem) for path in sounds}
    framed = {path for path in pictures if clip_of(path.stem) not in clips and clip_of(path.parent.name) in clips}
    stems = [clip_of(path.stem) for path in pictures if path not in framed], [clip_of(path.stem) for path in sounds]
    is_by_folder = any(len(set(names)) < len(names) for names in stems)
    classes = _classes(bases, [path for path in pictures if path not in framed], sounds)

    def key(path: Path, base: Path) -> str:
        if path in framed:
            return clip_of(path.parent.name)
        inside = path.relative_to(base).parent
        return str(inside / clip_of(path.stem)) if is_by_folder else clip_of(path.stem)

    images: dict[str, list[Path]] = collections.defaultdict(list)
    for path in pictures:
        images[key(path, bases[0])].append(path)
    audios = {key(path, bases[1]): path for path in sounds}
    return [
        Item(
            image=(image := _middle(images[clip]) if clip in images else None),
            audio=(audio := audios.get(clip)),
            label=(classes.get(image) if image else None) or (classes.get(audio) if audio else None),
        )
        for clip in dict.fromkeys([*images, *audios])
    ]


def _classes(bases: tuple[Path, Path], pictures: list[Path], sounds: list[Path]) -> dict[Path, str]:
    """Each file's class: its folder's name, or of pictures alone in one folder their own without its number."""
    sides = [
        {path: name for path in paths if (name := path.relative_to(base).parent.name)}
        for base, paths in zip(bases, (pictures, sounds), strict=True)
    ]
    classes = {name for side in sides if len({*side.values()}) > 1 for name in side.values()}
    if classes:
        return {path: name.replace("_", " ") for side in sides for path, name in side.items() if name in classes}
    numbered = {path: _NUMBERED.fullmatch(path.stem) for path in pictures}
    names = {path: found[1].replace("_", " ") for path, found in numbered.items() if found}
    if not sounds and len(names) == len(pictures) and len(set(names.values())) > 1:
        return names
    return {}

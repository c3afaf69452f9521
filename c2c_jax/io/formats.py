"""Recognises image and audio files, by suffix or else by their first bytes."""

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from c2c_jax.io.files import describe_path, is_regular, walk

Kind = Literal["image", "sound"]
HEAD = 64  # bytes of a file that identify its format
# Pillow's name of a format → suffixes and first bytes. Only formats that Pillow decodes itself: EPS would start
# Ghostscript.
IMAGES = {
    "JPEG": (".jpg .jpeg .jpe .jfif .mpo", rb"\xff\xd8\xff"),
    "PNG": (".png .apng", rb"\x89PNG\r\n\x1a\n"),
    "GIF": (".gif", rb"GIF8[79]a"),
    "WEBP": (".webp", rb"RIFF....WEBP"),
    "AVIF": (".avif .avifs", rb"....ftypavi[fs]"),
    "TIFF": (".tif .tiff", rb"II\*\x00|MM\x00\*|II\+\x00|MM\x00\+"),
    "BMP": (".bmp", rb"BM.{4}\x00{4}"),
    "DIB": (".dib", rb""),
    "PPM": (".pbm .pgm .ppm .pnm", rb"P[1-6]\s+[#\d]"),
    "JPEG2000": (".jp2 .j2k .jpc .jpf .jpx .j2c", rb"\x00\x00\x00\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
}
# Formats that libsndfile recognises, without those of Matlab and the MPC, which are rarely sounds. MPEG layer I is
# recognised by suffix only, because UTF-16 text begins with the same bytes.
AUDIO = {
    "WAV": (".wav .wave .bwf .amb", rb"RIF[FX]....WAVE"),
    "RF64": (".rf64", rb"RF64....WAVE"),
    "W64": (".w64", rb"riff\x2e\x91\xcf\x11"),
    "AIFF": (".aif .aiff .aifc", rb"FORM....AIF[FC]"),
    "AU": (".au .snd", rb"\.snd|dns\."),
    "CAF": (".caf", rb"caff"),
    "FLAC": (".flac", rb"fLaC"),
    "OGG": (".ogg .oga .opus", rb"OggS(?!.{24}Speex   )"),
    "MPEG": (".mp3 .mp2 .mp1 .mpga .mpa", rb"ID3[\x02-\x04]|\xff[\xe2-\xe5\xf2-\xf5\xfa-\xfd][\x10-\xeb]"),
    "VOC": (".voc", rb"Creative Voice File"),
    "SVX": (".8svx .16sv .svx", rb"FORM....(?:8SVX|16SV)"),
    "NIST": (".sph .nist", rb"NIST_1A\n"),
    "IRCAM": (".sf .ircam", rb"\x64\xa3[\x00-\x07]\x00|\x00[\x00-\x07]\xa3\x64"),
    "AVR": (".avr", rb"2BIT"),
    "PAF": (".paf .fap", rb" paf|fap "),
    "PVF": (".pvf", rb"PVF1\n"),
    "HTK": (".htk", rb""),
    "SDS": (".sds", rb"\xf0\x7e[\x00-\x7f]\x01"),
    "WVE": (".wve", rb"ALawSoundFile\*\*"),
    "XI": (".xi", rb"Extended Instrument: "),
}
_TABLES = {"image": IMAGES, "sound": AUDIO}
SUFFIXES = {
    kind: tuple(" ".join(suffixes for suffixes, _ in table.values()).split()) for kind, table in _TABLES.items()
}
# Suffixes of images and sounds that cannot be read: reports of skipped files list them first.
_UNSUPPORTED = {
    "image": ".heic .heif .hif .jxl .svg .psd".split(),
    "sound": ".m4a .m4b .mp4 .aac .spx .webm .mka .mkv .wma .asf .amr .ape .wv .mpc".split(),
}
# Raw files of cameras are TIFF by content, and their first image is a thumbnail.
CAMERA_RAW = frozenset(".3fr .arw .cr2 .cr3 .dng .erf .iiq .kdc .nef .nrw .orf .pef .raf .raw .rw2 .sr2 .srw".split())
MEL_SUFFIX = ".mel.png"  # spectrograms that are written next to generated sounds
OWN_SUFFIXES = (MEL_SUFFIX, ".sound.json")  # skipped without a report


@dataclasses.dataclass(frozen=True)
class Scan:
    """The files of one kind that a scan found. skipped: suffix or description → number of skipped files."""

    kind: Kind
    files: list[Path]
    skipped: Counter[str]

    def report(self) -> str:
        """Returns one line that counts the skipped files; "" if there are none."""
        if not self.skipped:
            return ""
        known = {*SUFFIXES[self.kind], *_UNSUPPORTED[self.kind]}
        ranked = sorted(self.skipped.most_common(), key=lambda item: item[0] not in known)  # its own kind first
        counts = ", ".join(f"{count:,} {name}" for name, count in ranked[:6])
        more = f" and {len(ranked) - 6} other kinds" if len(ranked) > 6 else ""
        files = "1 file" if self.skipped.total() == 1 else f"{self.skipped.total():,} files"
        return f"{files} skipped, not {self.kind}s of a supported format: {counts}{more}"


def kind_of(path: Path) -> Kind | None:
    """Recognises an image or audio file by its first bytes; None for other files. Raises OSError."""
    with open(path, "rb") as file:
        head = file.read(HEAD)
    kinds: tuple[Kind, ...] = ("image", "sound")
    for kind in kinds:
        if any(magic and re.match(magic, head, re.DOTALL) for _, magic in _TABLES[kind].values()):
            return kind
    return None


def scan(folder: Path, kind: Kind) -> Scan:
    """Finds the images or sounds in a folder and its subfolders, sorted; see `scan_files`."""
    return scan_files(walk(folder, include_unreadable=True), kind)


def scan_files(paths: Iterable[Path], kind: Kind) -> Scan:
    """Selects the images or sounds among some paths.

    These are files with a suffix of that kind, even empty or damaged ones and broken links, so that their reader
    reports them, and files whose first bytes are of that kind. All other paths are counted as skipped, except the
    spectrograms and records that this package writes.
    """
    files: list[Path] = []
    skipped: Counter[str] = Counter()
    for path in paths:
        if path.name.endswith(OWN_SUFFIXES):
            continue
        suffix, description = path.suffix.lower(), describe_path(path).removeprefix("a ")
        if suffix in SUFFIXES[kind] and description in ("file", "broken symbolic link"):
            files.append(path)
        elif not is_regular(path):
            skipped[f"{description} that cannot be read" if os.path.isdir(path) else description] += 1
        elif suffix not in CAMERA_RAW and _has_kind(path, kind):
            files.append(path)
        else:
            skipped[suffix or "without a suffix"] += 1
    return Scan(kind, files, skipped)


def _has_kind(path: Path, kind: Kind) -> bool:
    try:
        return kind_of(path) == kind
    except OSError:
        return False

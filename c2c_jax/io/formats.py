"""Which files are images and which are sounds: by their suffix, else by their first bytes."""

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from c2c_jax.io.files import found_at, is_regular, walk

Kind = Literal["image", "sound"]
HEAD = 64  # bytes that show the format of a file
# Formats that Pillow decodes by itself (an EPS would start Ghostscript): suffixes and first bytes by Pillow's name.
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
# What libsndfile knows by its first bytes; not Matlab's and the MPC's files, which are rarely sounds. Layer I of MPEG
# is known by its suffix alone, as UTF-16 text begins with the same bytes.
SOUNDS = {
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
_TABLES = {"image": IMAGES, "sound": SOUNDS}
SUFFIXES = {
    kind: tuple(" ".join(suffixes for suffixes, _ in table.values()).split()) for kind, table in _TABLES.items()
}
# Of images and sounds that are not read: reports of skipped files begin with them.
_UNREAD = {
    "image": ".heic .heif .hif .jxl .svg .psd".split(),
    "sound": ".m4a .m4b .mp4 .aac .spx .webm .mka .mkv .wma .asf .amr .ape .wv .mpc".split(),
}
# Raw files of cameras are TIFF by their content, and their first picture is a thumbnail.
CAMERA_RAW = frozenset(".3fr .arw .cr2 .cr3 .dng .erf .iiq .kdc .nef .nrw .orf .pef .raf .raw .rw2 .sr2 .srw".split())
MEL_SUFFIX = ".mel.png"  # spectrograms, written beside sounds: not images to make sounds of
WRITTEN_HERE = (MEL_SUFFIX, ".sound.json")  # skipped without a report


@dataclasses.dataclass(frozen=True)
class Scan:
    """The files of one kind among others. skipped: suffix or kind of file → how many were skipped."""

    kind: Kind
    files: list[Path]
    skipped: Counter[str]

    def report(self) -> str:
        """One line on the skipped files; empty where there are none."""
        if not self.skipped:
            return ""
        known = {*SUFFIXES[self.kind], *_UNREAD[self.kind]}
        most = sorted(self.skipped.most_common(), key=lambda found: found[0] not in known)  # its own kind first
        counts = ", ".join(f"{count:,} {name}" for name, count in most[:6])
        more = f" and {len(most) - 6} other kinds" if len(most) > 6 else ""
        files = "1 file" if self.skipped.total() == 1 else f"{self.skipped.total():,} files"
        return f"{files} skipped, not {self.kind}s of a supported format: {counts}{more}"


def kind_of(path: Path) -> Kind | None:
    """What a file is by its first bytes; None: neither an image nor a sound that is read. Raises OSError."""
    with open(path, "rb") as file:
        head = file.read(HEAD)
    kinds: tuple[Kind, ...] = ("image", "sound")
    for kind in kinds:
        if any(magic and re.match(magic, head, re.DOTALL) for _, magic in _TABLES[kind].values()):
            return kind
    return None


def scan(folder: Path, kind: Kind) -> Scan:
    """The images or sounds in a folder and its subfolders, sorted; see `scan_files`."""
    return scan_files(walk(folder, others=True), kind)


def scan_files(paths: Iterable[Path], kind: Kind) -> Scan:
    """The images or sounds among some paths: files with a suffix of the kind, empty and damaged ones and broken links
    too, so that their readers report them; and others with its first bytes. Pipes, devices and folders without access
    are skipped. Spectrograms and records of our sounds are skipped without a report."""
    files: list[Path] = []
    skipped: Counter[str] = Counter()
    for path in paths:
        if path.name.endswith(WRITTEN_HERE):
            continue
        suffix, found = path.suffix.lower(), found_at(path).removeprefix("a ")
        if suffix in SUFFIXES[kind] and found in ("file", "link to nothing"):
            files.append(path)
        elif not is_regular(path):
            skipped[f"{found} that cannot be read" if os.path.isdir(path) else found] += 1
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

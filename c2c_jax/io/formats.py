"""Which image and sound formats are read, and by which library: by content, else by suffix."""

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from c2c_jax.io.files import found_at, is_regular, walk

Kind = Literal["image", "sound"]
HEAD = 64  # bytes of a file that its format is told by
# Raw files of cameras are TIFF by their content, and their first picture is a thumbnail.
CAMERA_RAW = frozenset(".3fr .arw .cr2 .cr3 .dng .erf .iiq .kdc .nef .nrw .orf .pef .raf .raw .rw2 .sr2 .srw".split())
MEL_SUFFIX = ".mel.png"  # spectrograms, written beside sounds: not images to make sounds of
WRITTEN_HERE = (MEL_SUFFIX, ".sound.json")  # passed over without a word


@dataclasses.dataclass(frozen=True)
class Format:
    """One file format. library: what reads it, None where nothing here does. signature: of the file's first bytes, None
    where it has none that can be relied on. pillow: Pillow's name of it."""

    name: str
    kind: Kind
    suffixes: tuple[str, ...]
    signature: re.Pattern[bytes] | None
    library: Literal["Pillow", "libsndfile"] | None
    pillow: str | None = None


def _format(name: str, kind: Kind, suffixes: str, signature: bytes, library: str | None, pillow: str = "") -> Format:
    compiled = re.compile(signature, re.DOTALL) if signature else None
    return Format(name, kind, tuple(suffixes.split()), compiled, library, pillow or None)  # type: ignore[arg-type]


FORMATS: tuple[Format, ...] = (
    # Only formats that Pillow decodes by itself: an EPS, for one, would start Ghostscript.
    _format("JPEG", "image", ".jpg .jpeg .jpe .jfif .mpo", rb"\xff\xd8\xff", "Pillow", "JPEG"),
    _format("PNG", "image", ".png .apng", rb"\x89PNG\r\n\x1a\n", "Pillow", "PNG"),
    _format("GIF", "image", ".gif", rb"GIF8[79]a", "Pillow", "GIF"),
    _format("WebP", "image", ".webp", rb"RIFF....WEBP", "Pillow", "WEBP"),
    _format("AVIF", "image", ".avif .avifs", rb"....ftypavi[fs]", "Pillow", "AVIF"),
    _format("TIFF", "image", ".tif .tiff", rb"II\*\x00|MM\x00\*|II\+\x00|MM\x00\+", "Pillow", "TIFF"),
    _format("BMP", "image", ".bmp", rb"BM.{4}\x00{4}", "Pillow", "BMP"),
    _format("DIB", "image", ".dib", b"", "Pillow", "DIB"),
    _format("Netpbm", "image", ".pbm .pgm .ppm .pnm", rb"P[1-6]\s+[#\d]", "Pillow", "PPM"),
    _format(
        "JPEG 2000", "image", ".jp2 .j2k .jpc .jpf .jpx .j2c",
        rb"\x00\x00\x00\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "Pillow", "JPEG2000",
    ),
    _format("HEIC", "image", ".heic .heif .hif", rb"....ftyp(?:hei[cxms]|hev[cx]|mif1|msf1)", None),
    _format("JPEG XL", "image", ".jxl", rb"\xff\x0a|\x00\x00\x00\x0cJXL ", None),
    _format("SVG", "image", ".svg", rb"", None),
    _format("Photoshop", "image", ".psd", rb"8BPS", None),
    # What libsndfile finds by a file's content; not Matlab's and the MPC's, which are rarely sounds. Layer I of MPEG is
    # known by its suffix alone, as UTF-16 text begins with the same bytes.
    _format("WAV", "sound", ".wav .wave .bwf .amb", rb"RIFF....WAVE|RIFX....WAVE", "libsndfile"),
    _format("RF64", "sound", ".rf64", rb"RF64....WAVE", "libsndfile"),
    _format("Wave64", "sound", ".w64", rb"riff\x2e\x91\xcf\x11", "libsndfile"),
    _format("AIFF", "sound", ".aif .aiff .aifc", rb"FORM....AIF[FC]", "libsndfile"),
    _format("AU", "sound", ".au .snd", rb"\.snd|dns\.", "libsndfile"),
    _format("CAF", "sound", ".caf", rb"caff", "libsndfile"),
    _format("FLAC", "sound", ".flac", rb"fLaC", "libsndfile"),
    _format("Speex", "sound", ".spx", rb"OggS.{24}Speex   ", None),
    _format("Ogg", "sound", ".ogg .oga .opus", rb"OggS", "libsndfile"),
    _format(
        "MPEG audio", "sound", ".mp3 .mp2 .mp1 .mpga .mpa",
        rb"ID3[\x02-\x04]|\xff[\xe2-\xe5\xf2-\xf5\xfa-\xfd][\x10-\xeb]", "libsndfile",
    ),
    _format("VOC", "sound", ".voc", rb"Creative Voice File", "libsndfile"),
    _format("SVX", "sound", ".8svx .16sv .svx", rb"FORM....(?:8SVX|16SV)", "libsndfile"),
    _format("NIST Sphere", "sound", ".sph .nist", rb"NIST_1A\n", "libsndfile"),
    _format("IRCAM", "sound", ".sf .ircam", rb"\x64\xa3[\x00-\x07]\x00|\x00[\x00-\x07]\xa3\x64", "libsndfile"),
    _format("AVR", "sound", ".avr", rb"2BIT", "libsndfile"),
    _format("PARIS", "sound", ".paf .fap", rb" paf|fap ", "libsndfile"),
    _format("PVF", "sound", ".pvf", rb"PVF1\n", "libsndfile"),
    _format("HTK", "sound", ".htk", rb"", "libsndfile"),
    _format("Sample Dump", "sound", ".sds", rb"\xf0\x7e[\x00-\x7f]\x01", "libsndfile"),
    _format("Psion", "sound", ".wve", rb"ALawSoundFile\*\*", "libsndfile"),
    _format("FastTracker", "sound", ".xi", rb"Extended Instrument: ", "libsndfile"),
    _format("MPEG-4", "sound", ".m4a .m4b .mp4", rb"....ftyp(?:M4A|M4B|mp4|isom|iso2)", None),
    _format("AAC", "sound", ".aac", rb"\xff[\xf0\xf1\xf8\xf9]", None),
    _format("Matroska", "sound", ".webm .mka .mkv", rb"\x1aE\xdf\xa3", None),
    _format("WMA", "sound", ".wma .asf", rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", None),
    _format("AMR", "sound", ".amr", rb"#!AMR", None),
    _format("Monkey's Audio", "sound", ".ape", rb"MAC ", None),
    _format("WavPack", "sound", ".wv", rb"wvpk", None),
    _format("Musepack", "sound", ".mpc", rb"MPCK|MP\+", None),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Scan:
    """What a folder holds of one kind. passed_over: suffix or format name → how many files were not taken."""

    kind: Kind
    files: list[Path]
    passed_over: Counter[str]

    def report(self) -> str:
        """One line on the files that were passed over; empty where there are none."""
        if not self.passed_over:
            return ""
        known = {suffix for one in FORMATS if one.kind == self.kind for suffix in one.suffixes}
        most = sorted(self.passed_over.most_common(), key=lambda found: found[0] not in known)  # its own kind first
        counts = ", ".join(f"{count:,} {name}" for name, count in most[:6])
        more = len(self.passed_over) - 6
        count = self.passed_over.total()
        return (
            f"{count:,} file{'s' if count > 1 else ''} skipped, not {self.kind}s of a supported format: "
            f"{counts}{f' and {more} other kinds' if more > 0 else ''}"
        )


def readable_suffixes(kind: Kind) -> tuple[str, ...]:
    """The suffixes of the formats that are read."""
    return tuple(suffix for one in FORMATS if one.kind == kind and one.library for suffix in one.suffixes)


def format_of(path: Path) -> Format | None:
    """The format of a file by its first bytes, or, where these say nothing, by its suffix; None: no known one. Raises
    OSError for a file that cannot be opened."""
    with open(path, "rb") as file:
        head = file.read(HEAD)
    for one in FORMATS:
        if one.signature and one.signature.match(head):
            return one
    return next((one for one in FORMATS if path.suffix.lower() in one.suffixes), None)


def scan(folder: Path, kind: Kind) -> Scan:
    """The images or sounds in a folder and its subfolders, sorted. A file whose content contradicts its suffix is
    classified by its content. Empty files, damaged files and broken links are included if their suffix is supported,
    so that their readers report them. Pipes, devices and folders without access are skipped.
    """
    return scan_files(walk(folder, others=True), kind)


def scan_files(paths: Iterable[Path], kind: Kind) -> Scan:
    """The images or sounds among some paths; see `scan`. Spectrograms and records of our sounds are passed over without
    a word."""
    files: list[Path] = []
    passed_over: Counter[str] = Counter()
    suffixes = readable_suffixes(kind)
    for path in paths:
        if path.name.endswith(WRITTEN_HERE):
            continue
        found_here, is_known = found_at(path).removeprefix("a "), path.suffix.lower() in suffixes
        if is_known and found_here in ("file", "link to nothing"):
            files.append(path)
            continue
        if not is_regular(path):
            passed_over[f"{found_here} that cannot be read" if os.path.isdir(path) else found_here] += 1
            continue
        try:
            found = None if path.suffix.lower() in CAMERA_RAW else format_of(path)
        except OSError:
            found = None
        if found and found.kind == kind and found.library:
            files.append(path)
        else:
            passed_over[path.suffix.lower() or (found.name if found else "without a suffix")] += 1
    return Scan(kind, files, passed_over)

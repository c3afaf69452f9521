"""The table of formats against the libraries that read them, and scans of folders."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image, features

from c2c_jax.io.formats import IMAGES, SUFFIXES, kind_of, scan, scan_files

NOT_SOUNDS = {"RAW", "SD2", "MAT4", "MAT5", "MPC2K"}  # of libsndfile's: without a header of their own, or rarely sounds
SUFFIX_OF = {"WAVEX": ".wav", "SVX": ".8svx", "IRCAM": ".sf", "NIST": ".sph", "OGG": ".ogg"}


def audio_in(path, layout: str):
    rate = 8000 if layout == "WVE" else 24_000
    subtype = {"WVE": "ALAW"}.get(layout)
    soundfile.write(path, np.full(2400, 0.1), rate, format=layout, subtype=subtype)
    return path


@pytest.mark.parametrize("layout", sorted(set(soundfile.available_formats()) - NOT_SOUNDS))
def test_each_format_of_libsndfile_is_found_by_suffix_and_by_content(tmp_path, layout):
    suffix = SUFFIX_OF.get(layout, f".{layout.lower()}")
    named, bare = audio_in(tmp_path / f"a{suffix}", layout), audio_in(tmp_path / "b.bin", layout)
    assert suffix in SUFFIXES["sound"]
    if layout == "HTK":  # of which no byte is the same in all files
        assert kind_of(bare) is None
        return
    assert kind_of(bare) == "sound"
    assert scan(tmp_path, "sound").files == [named, bare]


def test_opus(tmp_path):
    soundfile.write(tmp_path / "a.bin", np.full(2400, 0.1), 24_000, format="OGG", subtype="OPUS")
    assert kind_of(tmp_path / "a.bin") == "sound"


def image_formats() -> list[str]:
    absent = {"AVIF"} - {name.upper() for name in ("avif",) if features.check(name)}
    return sorted(set(IMAGES) - absent)


@pytest.mark.parametrize("name", image_formats())
def test_each_image_format_of_the_table_is_one_of_pillows(tmp_path, name):
    """A file that Pillow writes is recognised by its first bytes, if the format has a signature."""
    suffixes, signature = IMAGES[name]
    image, file = Image.new("RGB", (8, 6), (200, 100, 50)), io.BytesIO()
    image.save(file, name)
    path = tmp_path / "a.bin"
    path.write_bytes(file.getvalue())
    assert kind_of(path) == ("image" if signature else None)
    with Image.open(path, formats=[name]) as read:
        assert read.size == (8, 6)
    named = path.rename(tmp_path / f"a{suffixes.split()[0]}")
    assert scan(tmp_path, "image").files == [named]


def test_every_suffix_that_is_read_is_found(tmp_path):
    for kind in ("image", "sound"):
        names = [tmp_path / kind / f"{number:02}{suffix.upper()}" for number, suffix in enumerate(SUFFIXES[kind])]
        (tmp_path / kind).mkdir()
        for name in names:
            name.write_bytes(b"\0")
        result = scan(tmp_path / kind, kind)
        assert result.files == names and result.report() == ""


@pytest.mark.parametrize(
    "suffix", [".wave", ".aifc", ".snd", ".rf64", ".mp2", ".opus", ".oga", ".w64", ".caf", ".voc", ".sph", ".paf"]
)
def test_suffixes_of_sounds(suffix):
    assert suffix in SUFFIXES["sound"]


def test_no_suffix_is_of_two_formats():
    suffixes = [*SUFFIXES["image"], *SUFFIXES["sound"]]
    assert len(suffixes) == len(set(suffixes)) and all(
        suffix.startswith(".") and suffix == suffix.lower() for suffix in suffixes
    )


@pytest.mark.parametrize(
    "content",
    [
        "words in UTF-16".encode("utf-16"),
        b"\xff\xfe" + "Ähnlich".encode("utf-16-le"),
        b"\xff\xf1\x50\x80\0\0\0\0" * 8,  # AAC, whose frames begin almost as MP3's
        b"\xff" * 64,
        bytes(64),
        b"plain words\n",
        b"",
    ],
)
def test_what_is_no_sound_by_its_content(tmp_path, content):
    (tmp_path / "a.bin").write_bytes(content)
    assert kind_of(tmp_path / "a.bin") is None


def test_a_scan_reports_once_what_it_passed_over(tmp_path):
    audio_in(tmp_path / "a.wav", "WAV")
    audio_in(tmp_path / "called.txt", "FLAC")
    audio_in(tmp_path / "bare", "AIFF")
    for name in ("x.m4a", "y.M4A", "z.txt", "notes", ".hidden.wav", "a.mel.png", "page.spx"):
        (tmp_path / name).write_bytes(b"\1\2\3 and more")
    (tmp_path / "empty.mp3").touch()
    (tmp_path / "lost.ogg").symlink_to(tmp_path / "nowhere.ogg")
    (tmp_path / "lost.txt").symlink_to(tmp_path / "nowhere.txt")
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "zero.wav").symlink_to("/dev/zero")
    result = scan(tmp_path, "sound")
    assert [path.name for path in result.files] == ["a.wav", "bare", "called.txt", "empty.mp3", "lost.ogg"]
    assert dict(result.skipped) == {
        ".m4a": 2,
        ".txt": 1,
        ".spx": 1,
        "without a suffix": 1,
        "named pipe": 1,
        "device": 1,
        "broken symbolic link": 1,
    }
    assert result.report().startswith("8 files skipped, not sounds of a supported format: 2 .m4a, ")
    assert result.report().endswith("and 1 other kinds") and "\n" not in result.report()
    assert scan_files([tmp_path / "x.m4a"], "sound").report() == (
        "1 file skipped, not sounds of a supported format: 1 .m4a"
    )


def test_a_scan_of_linked_folders(tmp_path):
    """A linked folder is part of the library; a link to the library's parent does not loop."""
    library, real = tmp_path / "library", tmp_path / "real"
    for folder in (library, real):
        folder.mkdir()
        audio_in(folder / "a.wav", "WAV")
    (library / "linked").symlink_to(real)
    (real / "back").symlink_to(library)
    assert scan(library, "sound").files == [library / "a.wav", library / "linked" / "a.wav"]


def test_what_may_not_be_looked_at_is_counted(tmp_path, monkeypatch):
    """A link without access, like /proc/1/cwd for other users: pathlib raises there."""

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    (tmp_path / "lost").symlink_to("nowhere")
    monkeypatch.setattr(Path, "is_dir", refuse)
    assert scan(tmp_path, "sound").skipped == {"broken symbolic link": 1}

"""Only regular files are read, and each folder is walked once."""

import glob
import inspect
import os
import socket
import sys
from pathlib import Path

import pytest

from c2c_jax.errors import AudioError
from c2c_jax.io.files import describe_path, glob_paths, is_regular, open_regular, sha256_of, walk


@pytest.fixture
def places(tmp_path):
    """A folder with one path of each kind."""
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "lost").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket"))
        yield tmp_path


KINDS = {
    "file": "a file",
    "link": "a file",
    "folder": "a folder",
    "pipe": "a named pipe",
    "device": "a device",
    "socket": "a socket",
    "lost": "a broken symbolic link",
    "loop": "a broken symbolic link",
    "none": "no file",
    "nul\0": "no file",
    "n" * 300: "no file",
}


@pytest.mark.parametrize(("name", "kind"), KINDS.items(), ids=lambda value: value[:6].replace("\0", ""))
def test_what_is_at_a_path(places, name, kind):
    path = places / name
    assert describe_path(path) == kind and is_regular(path) == (kind == "a file")
    if kind == "a file":
        with open_regular(path, "a sound file", AudioError, "name one") as file:
            assert file.read() == b"abc"
        assert sha256_of(path).startswith("ba7816bf")
        return
    with pytest.raises(AudioError) as caught:
        open_regular(path, "a sound file", AudioError, "name one")
    assert str(caught.value).endswith("name one") and "\n" not in str(caught.value)
    assert kind in str(caught.value) or "cannot be read" in str(caught.value)


def test_a_walk_follows_links_and_enters_each_folder_once(tmp_path):
    library, real = tmp_path / "library", tmp_path / "real"
    for name in ("b.wav", "in/a.wav", ".hidden.wav", ".folder/c.wav", "in/.d.wav"):
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        (library / name).touch()
    (real / "deep").mkdir(parents=True)
    (real / "deep" / "e.wav").touch()
    (library / "linked").symlink_to(real)
    (real / "deep" / "up").symlink_to(library)  # a loop
    (library / "in" / "self").symlink_to(library / "in")
    (library / "f.wav").symlink_to(real / "deep" / "e.wav")
    names = [path.relative_to(library).as_posix() for path in walk(library)]
    assert names == ["b.wav", "f.wav", "in/a.wav", "linked/deep/e.wav"]


def test_a_walk_among_pipes_devices_and_links_to_nothing(places):
    assert [path.name for path in walk(places)] == ["file", "link"]
    others = [path.name for path in walk(places, include_unreadable=True)]
    assert others == ["device", "file", "link", "loop", "lost", "pipe", "socket"]


def test_a_walk_of_folders_nested_deeper_than_python_recurses(tmp_path):
    deepest = tmp_path.joinpath(*["d"] * 200)
    deepest.mkdir(parents=True)
    (deepest / "a.wav").touch()
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 100)
    try:
        assert list(walk(tmp_path)) == list(glob_paths(f"{tmp_path}/**/*.wav")) == [deepest / "a.wav"]
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.parametrize(
    "pattern",
    ["*.wav", "*", "**", "**/*", "**/*.wav", "in/**/?.wav", "*/*.wav", "in*/", ".*", "in/[a-b].wav", "no/*", "**/in",
     "in/../*.wav", "./*.wav", "**/deep/*.wav"],
)  # fmt: skip
def test_patterns_match_as_pythons_own_do(tmp_path, monkeypatch, pattern):
    for name in ("b.wav", "in/a.wav", "in/deep/c.wav", "in/deep/d.txt", ".hidden.wav", ".folder/c.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "lost.wav").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)
    for start in ("", f"{tmp_path}/"):
        expected = [Path(path) for path in glob.glob(start + pattern, recursive=True)]
        assert set(walk(*glob_paths(start + pattern), include_unreadable=True)) == set(
            walk(*expected, include_unreadable=True)
        )


def test_a_pattern_over_looping_links_enters_each_folder_once(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").touch()
    for name in ("one", "other"):
        (tmp_path / "in" / name).symlink_to(tmp_path)
    assert list(glob_paths(f"{tmp_path}/**/*.wav")) == [tmp_path / "in" / "a.wav"]
    assert list(glob_paths(f"{tmp_path}/{'**/*/' * 40}*.wav")) == []


def test_a_walk_of_no_folder(tmp_path):
    assert not list(walk(tmp_path / "none"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(tmp_path):
    (tmp_path / "in").mkdir(mode=0)
    assert not list(walk(tmp_path))
    assert list(walk(tmp_path, include_unreadable=True)) == [tmp_path / "in"]


def test_a_walk_of_a_drive_that_does_not_number_files(tmp_path, monkeypatch):
    for name in ("a/1", "b/2"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "a" / "again").symlink_to("..")
    stat = os.stat

    def without_number(path, **options):
        fields = list(stat(path, **options))
        fields[1] = 0
        return os.stat_result(fields)

    monkeypatch.setattr(os, "stat", without_number)
    assert list(walk(tmp_path)) == [tmp_path / "a" / "1", tmp_path / "b" / "2"]

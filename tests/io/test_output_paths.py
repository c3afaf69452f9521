"""Checks of output paths, and paths as UTF-8 text."""

import os
from pathlib import Path

import pytest

from c2c_jax.errors import ConfigError
from c2c_jax.io.console import print_fields
from c2c_jax.io.files import path_to_text, text_to_path, user_path
from c2c_jax.io.output_paths import require_output_file, require_output_folder, require_replaceable_folder
from c2c_jax.io.text import require_text


def test_places_that_can_be_written(tmp_path):
    (tmp_path / "there.txt").touch()
    for name in ("there.txt", "new.txt", "new/folder/file.txt", "n" * 255):
        require_output_file(tmp_path / name, "--out")
    for name in (".", "new", "new/folder"):
        require_output_folder(tmp_path / name, "--out")
    assert [path.name for path in tmp_path.iterdir()] == ["there.txt"]


def test_places_that_cannot(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, message in (
        ("folder", "is a folder: pass a file in it"),
        ("pipe", "is a named pipe: pass a regular file"),
        ("file/x", "is a file, not a folder"),
        ("pipe/x", "is a named pipe, not a folder"),
        ("n" * 256, "takes 256 bytes, 255 are allowed"),
        ("é" * 128, "takes 256 bytes"),
        ("x/" * 2100, "is a path of"),
        ("a\0b", "contains a NUL"),
        ("file", "is one of the inputs"),
    ):
        with pytest.raises(ConfigError, match=f"^--out.*{message}"):
            require_output_file(tmp_path / name, "--out", [tmp_path / "none", tmp_path / "file"])
    with pytest.raises(ConfigError, match="is a device: pass a regular file"):
        require_output_file(Path("/dev/null"), "--out")
    for name, message in (
        ("file", "is a file: pass a folder"),
        ("pipe", "is a named pipe"),
        ("file/x", "is a file, not a folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            require_output_folder(tmp_path / name, "--out")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_link_to_an_input_is_the_input(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("file")
    with pytest.raises(ConfigError, match="is one of the inputs"):
        require_output_file(tmp_path / "link", "--out", [tmp_path / "file"])


def test_a_folder_that_may_not_be_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr("c2c_jax.io.output_paths.os.access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(ConfigError, match=f"the folder {tmp_path} is not writable"):
        require_output_file(tmp_path / "x" / "y.txt", "--out")


def test_the_working_folder_is_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    for place in (".", "..", tmp_path):
        with pytest.raises(ConfigError, match="contains the current directory"):
            require_replaceable_folder(Path(place), "--out")
    require_replaceable_folder(tmp_path / "inside" / "new", "--out")


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain name.png", "plain name.png"),
        ("猫.png".encode(), "猫.png"),
        (b"caf\xe9 %.png", "file:caf%E9%20%25.png"),
        (b"file:x", "file:file%3Ax"),
        (b"/a/\xff", "file:/a/%FF"),
    ],
)
def test_names_are_written_down_and_read_again(raw, text):
    path = Path(os.fsdecode(raw))
    assert path_to_text(path) == text and text_to_path(text) == path and text.encode("utf-8")


def test_users_paths(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert user_path("~/x") == Path("/home/me/x")
    assert user_path("~nosuchuser/clip") == Path("~nosuchuser/clip")  # as shells leave it


def test_texts():
    require_text("a dog", "--text")
    for text, message in (
        ("", "is empty"), (" \n", "is empty"), ("a" * 10_001, "10,001 characters"), ("a\0", "NUL"), ("\udce9", "UTF-8"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=f"^--text.*{message}"):
            require_text(text, "--text")


def test_a_line_of_fields(capsys):
    print_fields("0.5", Path("a\tb\nc\x1b[31m"), "猫")
    assert capsys.readouterr().out == "0.5\ta\\tb\\nc\\x1b[31m\t猫\n"

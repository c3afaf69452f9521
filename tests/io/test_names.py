"""Names and paths of Windows, read as strings on any system."""

from pathlib import PurePosixPath, PureWindowsPath

import pytest

from c2c_jax.io.files import path_to_text, stored_path, text_to_path
from c2c_jax.io.names import is_path_only, last_component, split_name, split_suffix, windows_name_fault


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("openai/clip", ["openai/clip"]),
        ("cvssp/audioldm:text_encoder", ["cvssp/audioldm", "text_encoder"]),
        (r"C:\models\clip", [r"C:\models\clip"]),
        (r"C:\models\ldm:text_encoder", [r"C:\models\ldm", "text_encoder"]),
        ("c:/models/ldm:text_encoder", ["c:/models/ldm", "text_encoder"]),
        (r"\\server\share\ldm:text_encoder", [r"\\server\share\ldm", "text_encoder"]),
        (r"\\?\C:\models\ldm:text_encoder", [r"\\?\C:\models\ldm", "text_encoder"]),
        (r"configs\mlp.py:gcc", [r"configs\mlp.py", "gcc"]),
        (r"csv:C:\a.csv:text", ["csv", r"C:\a.csv", "text"]),
        ("a:b", ["a", "b"]),
        ("a::b:", ["a", "", "b", ""]),
        ("", [""]),
    ],
)
def test_splitting(name, parts):
    assert split_name(name) == parts
    assert split_suffix(name) == ((":".join(parts[:-1]), parts[-1]) if len(parts) > 1 else (name, ""))


def test_a_drive_is_where_pathlib_sees_one():
    for name in (r"C:\models\clip", "D:/x", r"\\server\share\x", r"\\?\C:\x"):
        assert PureWindowsPath(name).anchor and split_name(name) == [name] and is_path_only(name)


def test_hub_names_are_not_paths():
    assert not any(map(is_path_only, ("openai/clip", "gpt2", "miniworld/clap")))
    assert all(map(is_path_only, ("/data/clip", "./clip", "~/clip", r"models\clip", "a/b/c")))


@pytest.mark.parametrize(
    ("path", "last"),
    [
        (r"C:\Users\me\clip", "clip"),
        (r"..\clip", "clip"),
        ("/home/me/clip/", "clip"),
        ("C:/me/clip", "clip"),
        (".", ""),
    ],
)
def test_last_component(path, last):
    assert last_component(path) == last


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("dog.wav", ""),
        (".c2c-index", ""),
        ("dog:1.wav", "contains ':'"),
        ("what?.wav", "contains '?'"),
        ("tab\t.wav", "contains '\\t'"),
        ("dog.", "ends with a dot"),
        ("dog ", "ends with a dot or a space"),
        ("NUL", "is reserved for a device"),
        ("aux.wav", "is reserved for a device"),
        ("auxiliary.wav", ""),
    ],
)
def test_names_that_windows_refuses(name, fault):
    """As pathlib says, where it knows: it does not say which characters are allowed."""
    assert windows_name_fault(name).startswith(fault) and bool(windows_name_fault(name)) == bool(fault)
    if fault == "is reserved for a device":
        assert PureWindowsPath(name).stem.upper() in {"NUL", "AUX"}


def test_stored_paths_have_slashes():
    assert path_to_text(PureWindowsPath(r"C:\sounds\dog.wav")) == "C:/sounds/dog.wav"
    assert path_to_text(PureWindowsPath(r"deep\dog.wav")) == path_to_text(PurePosixPath("deep/dog.wav"))
    assert PureWindowsPath(path_to_text(PureWindowsPath(r"\\server\share\x"))) == PureWindowsPath(r"\\server\share\x")


def test_stored_backslashes_are_read_as_folders_but_names_keep_theirs(tmp_path, monkeypatch):
    assert text_to_path(r"deep\dog.wav") == text_to_path("deep/dog.wav")
    name = PurePosixPath("a\\b.wav")
    assert path_to_text(name) == "file:a%5Cb.wav" and text_to_path(path_to_text(name)) == name
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "dog.wav").touch()
    (tmp_path / "a\\b.wav").touch()
    for text, found in ((r"deep\dog.wav", "deep/dog.wav"), ("deep/dog.wav", "deep/dog.wav"), (r"a\b.wav", r"a\b.wav")):
        assert stored_path(text).samefile(found) and stored_path(text, tmp_path) == tmp_path / found
    assert stored_path(r"no\file", tmp_path) == tmp_path / "no/file"


def test_a_posix_name_that_is_not_utf_8_is_read_on_windows(monkeypatch):
    text = path_to_text(PurePosixPath("caf\udce9.wav"))
    assert text == "file:caf%E9.wav"
    monkeypatch.setattr("os.fsdecode", lambda encoded: encoded.decode("utf-8", "surrogatepass"))  # as on Windows
    assert text_to_path(text).name == "caf\udce9.wav"

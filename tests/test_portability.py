"""The package on Windows and macOS, simulated on Linux: no test here has run on these systems."""

import contextlib
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from c2c_jax.cli.arguments import require_captions
from c2c_jax.cli.recipe import read_config
from c2c_jax.data.captions import open_sources
from c2c_jax.errors import CaptionError, CheckpointError, ConfigError
from c2c_jax.evaluation.pairs import read_pairs
from c2c_jax.generation.plan import plan
from c2c_jax.io import system
from c2c_jax.io.atomic import atomic_write
from c2c_jax.io.console import is_closed_pipe
from c2c_jax.io.names import windows_name_fault
from c2c_jax.io.output_paths import require_output_file
from c2c_jax.publishing.names import public_caption_spec, public_name
from c2c_jax.spaces.weights.folders import checkpoint_folder
from c2c_jax.training import checkpoints
from tests.fixtures.kills import contents
from tests.fixtures.windows_demo import ROOT, SOUNDS


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What the commands of `windows_demo` wrote."""
    folder = tmp_path_factory.mktemp("windows")
    command = [sys.executable, "-m", "tests.fixtures.windows_demo", str(folder)]
    environment = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_module_and_the_demo_work_without_what_windows_lacks(folder):
    entries = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries if entry["phase"] == "validation"] == [2, 4, 6, 8]
    assert sorted(path.name for path in (folder / "run" / "checkpoints").iterdir()) == ["6", "8"]
    assert np.linalg.norm(np.load(folder / "vector.npy")) == pytest.approx(1, abs=1e-6)
    assert (folder / "sounds" / "00000.wav").read_bytes()[:4] == b"RIFF"
    [index] = (folder / "pairs" / "sounds" / ".c2c-index").iterdir()
    assert json.loads((index / "manifest.json").read_text())["rows"] == SOUNDS
    assert (folder / "report.html").read_text("utf-8").lstrip().lower().startswith("<!doctype html")


def test_written_text_has_the_same_line_ends_on_every_system(folder):
    suffixes = {".csv", ".html", ".json", ".jsonl", ".md", ".txt"}
    texts = [path for path in folder.rglob("*") if path.suffix in suffixes]
    assert {path.suffix for path in texts} == suffixes
    assert [path for path in texts if b"\r" in path.read_bytes()] == []


def test_written_names_are_allowed_on_windows_and_nothing_is_left_behind(folder):
    names = {path.name for path in folder.rglob("*")}
    assert {name: fault for name in names if (fault := windows_name_fault(name))} == {}
    assert [name for name in names if name.startswith(".c2c-") and name != ".c2c-index"] == []


def test_checkpoints_on_a_drive(tmp_path, monkeypatch):
    """On Linux these are names with backslashes, in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / r"C:\models\ldm" / "text_encoder").mkdir(parents=True)
    assert checkpoint_folder(r"C:\models\ldm").name == r"C:\models\ldm"
    assert checkpoint_folder(r"C:\models\ldm:text_encoder") == Path(r"C:\models\ldm") / "text_encoder"
    for name in (r"D:\clip", "D:/clip", r"\\server\share\clip", r"models\clip"):
        with pytest.raises(CheckpointError, match="^the folder .* does not exist; pass a checkpoint folder"):
            checkpoint_folder(name)
    (tmp_path / "models" / "clip").mkdir(parents=True)
    assert checkpoint_folder(r"models\clip") == Path("models/clip")  # as a bundle from Windows names it


def test_captions_on_a_drive(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = r"C:\captions.csv"
    (tmp_path / name).write_text("text\na dog\n")
    assert list(open_sources(f"csv:{name}:text")[0].rows()) == ["a dog"]
    assert list(open_sources(f"0.5*txt:{name} + tsv:b.tsv")[0].rows()) == ["text", "a dog"]
    with pytest.raises(CaptionError, match="names no column; write csv:PATH:COLUMN"):
        open_sources(f"csv:{name}")
    source = open_sources(r"hf:C:\data:train[:10]:text")[0]
    assert (source.places, source.split, source.field) == ((r"C:\data",), "train[:10]", "text")
    with pytest.raises(CaptionError, match="expected a source such as txt:FILE"):
        require_captions(r"C:\nothing")


@pytest.mark.parametrize(
    ("name", "public"),
    [
        (r"C:\Users\me\ldm:text_encoder", "ldm:text_encoder"),
        (r"C:\Users\me\clip", "clip"),
        (r"\\server\me\clip", "clip"),
    ],
)
def test_paths_of_windows_are_not_published(name, public):
    assert public_name(name) == public
    assert public_caption_spec(r"2*csv:C:\Users\me\a.csv:text + lyrics:C:\Users\me\b") == "2*csv:a.csv:text + lyrics:b"


def test_manifests_from_windows(tmp_path):
    for name in ("images/dog.png", "sounds/dog.wav"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "pairs.csv").write_text("image,audio\r\nimages\\dog.png,sounds\\dog.wav\r\n")
    [item] = read_pairs(tmp_path / "pairs.csv").items
    assert (item.image, item.audio) == (tmp_path / "images/dog.png", tmp_path / "sounds/dog.wav")


@pytest.mark.parametrize("ignores_case", [True, False])
def test_sounds_whose_names_differ_in_case(tmp_path, monkeypatch, ignores_case):
    """As on macOS, where Path compares the case of names but the file system does not."""
    monkeypatch.setattr(system, "IGNORES_CASE", ignores_case)
    images = [tmp_path / "a" / "Caf\u00e9.png", tmp_path / "b" / "cafe\u0301.png"]
    if ignores_case:
        with pytest.raises(ConfigError, match="would both be written to"):
            plan(images, out=tmp_path / "out")
    else:
        assert len({item.out for item in plan(images, out=tmp_path / "out")}) == 2


def test_output_names_on_windows(tmp_path, monkeypatch):
    require_output_file(tmp_path / "a:b.wav", "--out")
    monkeypatch.setattr(system, "IS_WINDOWS", True)
    require_output_file(tmp_path / "deep" / "a.wav", "--out")
    for name in ("a:b.wav", "nul", "deep./a.wav"):
        with pytest.raises(ConfigError, match="^--out: the name .*: pass another path"):
            require_output_file(tmp_path / name, "--out")
    with pytest.raises(ConfigError, match="^--out: /proc/a.wav cannot be written"):
        require_output_file(Path("/proc/a.wav"), "--out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_windows", [True, False])
def test_a_file_that_another_program_has_open_for_a_moment(tmp_path, monkeypatch, is_windows):
    (tmp_path / "file").write_text("old")
    replace, refusals = os.replace, [PermissionError(13, "in use")] * 2

    def refusing(source, target):
        if refusals:
            raise refusals.pop()
        replace(source, target)

    monkeypatch.setattr(os, "replace", refusing)
    monkeypatch.setattr(system, "IS_WINDOWS", is_windows)
    with contextlib.nullcontext() if is_windows else pytest.raises(PermissionError, match="in use"):
        with atomic_write(tmp_path / "file") as temporary:
            temporary.write_text("new")
    assert contents(tmp_path) == {"file": b"new" if is_windows else b"old"}


def test_a_closed_pipe_on_windows(monkeypatch):
    odd, file = OSError(errno.EINVAL, "Invalid argument"), OSError(errno.EINVAL, "Invalid argument", "file")
    assert is_closed_pipe(BrokenPipeError()) and not is_closed_pipe(odd)
    monkeypatch.setattr(system, "IS_WINDOWS", True)
    assert is_closed_pipe(odd) and not is_closed_pipe(file)


def test_a_full_disk_where_no_space_can_be_reserved(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate")  # as on macOS and Windows
    checkpoints._require_space(tmp_path, 1000)
    with pytest.raises(OSError, match="No space left on device"):
        checkpoints._require_space(tmp_path, 2**62)


def test_a_recipe_on_a_drive(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "configs" / "mlp.py").read_text()
    for name in (r"C:\me\mlp.py", r"configs\mlp.py"):
        (tmp_path / name).write_text(text)
        assert read_config(name, []).source == "miniworld/clip"
        assert read_config(f"{name}:gcc", []).source != "miniworld/clip"

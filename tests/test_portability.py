"""The package on Windows and macOS, simulated on Linux: no test here has run on these systems."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from c2c_jax.io.names import windows_name_fault
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

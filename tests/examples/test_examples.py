"""The programs and the notebook in examples/ run, and give what they say."""

import re
import runpy
import sys
from pathlib import Path

import jupytext
import nbclient
import nbformat
import numpy as np
import pytest
import torch

import c2c_jax
from c2c_jax.miniworld.captions import captions
from c2c_jax.miniworld.pairs import image_at

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs an example in an empty folder and returns what it prints."""

    def run(name: str, *arguments: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_training_on_captions(run, tmp_path):
    (tmp_path / "captions.txt").write_text("\n".join(captions("train", 300)))
    (tmp_path / "photos").mkdir()
    for index in range(64):
        image_at("train", index).save(tmp_path / "photos" / f"{index}.png")
    printed = run("train_on_your_captions.py", "captions.txt", "--out", "mine", "--images", "photos", "--steps", "20")
    translator = c2c_jax.load(tmp_path / "mine")
    assert printed.splitlines()[-1] == "mine"
    assert f"held_out             {translator.metrics['held_out']}" in printed and translator.metrics["held_out"] == 30
    assert translator.bundle.means.source_image is not None
    assert translator.source.name == "miniworld/clip" and translator.source.fingerprint


def test_objective_of_ones_own(run, registries):
    printed = run("custom_objective.py")
    scores = dict(re.findall(r"(\w+) +recall@1 (0\.\d+)", printed))
    assert set(scores) == {"infonce", "hardest_negative"}
    assert all(float(score) > 0.5 for score in scores.values()), printed  # chance is 1 of 200


def test_torch_alone(run, tmp_path):
    vectors = np.random.default_rng(0).normal(size=(3, 64))
    np.save(tmp_path / "clip.npy", vectors)
    assert run("torch_only.py", "--vectors", "clip.npy") == "clap.npy: (3, 64)\n"
    expected = c2c_jax.load("miniworld/translator").translate(vectors.astype(np.float32))
    np.testing.assert_allclose(np.load(tmp_path / "clap.npy"), expected, atol=1e-5)
    run("torch_only.py", "--out", "random.npy")
    lengths = np.linalg.norm(np.load(tmp_path / "random.npy"), axis=1)
    np.testing.assert_allclose(lengths, torch.ones(4), atol=1e-5)


def test_notebook_is_made_from_its_source():
    source = jupytext.read(EXAMPLES / "quickstart.py")
    notebook = nbformat.read(EXAMPLES / "quickstart.ipynb", 4)
    nbformat.validate(notebook)
    cells = [(cell.cell_type, cell.source) for cell in notebook.cells]
    assert cells == [(cell.cell_type, cell.source) for cell in source.cells], "make examples/quickstart.ipynb again"
    assert notebook.metadata.kernelspec.name == "python3"
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code")


def test_notebook_runs(tmp_path):
    notebook = nbformat.read(EXAMPLES / "quickstart.ipynb", 4)
    assert sum("install" in cell.metadata.get("tags", []) for cell in notebook.cells) == 1
    notebook.cells = [cell for cell in notebook.cells if "install" not in cell.metadata.get("tags", [])]
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=str(tmp_path))
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = [output.data for output in outputs if output.output_type in ("display_data", "execute_result")]
    assert sum("image/png" in data for data in shown) == 2  # the drawing and the spectrogram
    assert sum("<audio controls" in data.get("text/html", "") for data in shown) == 1
    assert any("| translator |" in data.get("text/markdown", "") for data in shown)
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    right, chance = (
        float(re.search(rf"{name} +right source (0\.\d+)", printed)[1]) for name in ("translator", "chance")
    )
    assert right > 0.5 > chance

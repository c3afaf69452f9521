"""Every command and Python block of the tutorials runs, in order, in one folder, and gives the results they show."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from c2c_jax.cli.main import main

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"(?P<mark><!-- not run: .+? -->\n)?```(?P<language>\w*)\n(?P<code>.*?)```", re.DOTALL)
SHELL = "python3 -m venv", "source ", "pip install"  # the set-up, which only a new machine needs


def commands(block: str) -> list[list[str]]:
    lines = block.replace("\\\n", " ").strip().splitlines()
    return [shlex.split(line, comments=True) for line in lines if not line.startswith(SHELL)]


def shown_figures(page: str) -> dict[str, list[float]]:
    """The rows of a page's table of an evaluation: method → recall@1 and neighbour accuracy."""
    rows = re.findall(r"^\| ([a-z ]+) \| ([\d.]+) \| ([\d.]+) \|$", (DOCS / page).read_text("utf-8"), re.MULTILINE)
    return {method: [float(recall), float(accuracy)] for method, recall, accuracy in rows}


def measured_figures(folder: Path, methods: list[str]) -> dict[str, list[float]]:
    rows = json.loads((folder / "metrics.json").read_text("utf-8"))["rows"]
    values = {(row["method"], row["metric"]): row["value"] for row in rows if row["task"] == "images_to_sounds"}
    names = "recall@1", "neighbour_accuracy"
    return {method: [values[method.replace(" ", "_"), name] for name in names] for method in methods}


@pytest.mark.slow
def test_the_tutorials_run_as_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    printed = ""
    shown = 0
    names: dict[str, Any] = {}
    for page in ("tutorial.md", "tutorial-training.md"):
        for block in BLOCK.finditer((DOCS / page).read_text("utf-8")):
            if block["mark"]:
                continue
            if block["language"] == "text":
                assert [line.split() for line in printed.splitlines()] == [
                    line.split() for line in block["code"].splitlines()
                ]
                shown += 1
            elif block["language"] == "python":
                capsys.readouterr()
                exec(compile(block["code"], page, "exec"), names)
                printed = capsys.readouterr().out
            else:
                for program, *arguments in commands(block["code"]):
                    assert program == "c2c"
                    capsys.readouterr()
                    assert main(arguments) == 0, arguments
                    printed = capsys.readouterr().out
    assert shown == 2
    assert names["clap_vectors"].shape == (1, 64) and names["audio"].sample_rate == 16_000
    for file in ("sounds/00102.wav", "dogs.wav", "mine.wav", "report.html", "translators/mine/model.safetensors"):
        assert (tmp_path / file).stat().st_size > 1000, file
    for page, folder in (("tutorial.md", "evaluated"), ("tutorial-training.md", "runs/mine/evaluation")):
        shown_rows = shown_figures(page)
        measured = measured_figures(tmp_path / folder, list(shown_rows))
        assert len(measured) >= 2
        for method, figures in shown_rows.items():
            assert measured[method] == pytest.approx(figures, abs=0.03), (page, method)


def test_commands_are_found():
    text = (DOCS / "tutorial.md").read_text("utf-8")
    found = [line for block in BLOCK.finditer(text) if not block["language"] for line in commands(block["code"])]
    assert ["c2c", "infer", "pairs/pictures/00102.png", "--out", "sounds"] in found and len(found) == 5

"""Pages of runs of other versions, and of damaged, unfinished or differently selected runs."""

import json
import re
import shutil
from pathlib import Path

import pytest

from c2c_jax.errors import ReportError
from c2c_jax.evaluation.report.page import write_report
from tests.evaluation.report.test_page import Outline, broken, flat


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{", "config.json cannot be read as JSON"),
        ("config.json", None, "config.json, found no file"),
        ("config.json", "null", "Expected `object`, got `null`"),
        ("config.json", '{"seed": "x"}', "Expected `int`, got `str` - at `$.seed`"),
        ("config.json", '{"embed": {"store_dt9pe": "float32"}}', "unknown field embed.store_dt9pe"),
    ],
)
def test_damaged_runs_are_refused(run, tmp_path, name, content, message):
    folder = broken(Path(shutil.copytree(run, tmp_path / "run")), name, content)
    with pytest.raises(ReportError, match=re.escape(message)):
        write_report(folder, tmp_path / "report.html")


def test_runs_of_earlier_versions(run, tmp_path):
    """Their configs have fields that no longer exist."""
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    config = json.loads((folder / "config.json").read_text())
    config["augment"]["noise_most"] = 0.95
    (folder / "config.json").write_text(json.dumps(config | {"min_steps": 500}))
    write_report(folder, tmp_path / "report.html")
    assert (tmp_path / "report.html").is_file()


def test_a_candidate_selected_by_noisy_cosine(run, tmp_path):
    """That score is named and marks the candidate; the table has both scores."""
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    config = json.loads((folder / "bundle" / "config.json").read_text())
    cosines = {"rotation": 0.75, "trained": 0.5, "0.5 trained + rotation, memory": -0.125}
    config["choice"] |= {"linear": "rotation", "noisy_cosine": cosines, "selected_by": "noisy_cosine"}
    (folder / "bundle" / "config.json").write_text(json.dumps(config))
    write_report(folder, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    text = flat(Outline(page).text)
    assert "It scored best of 3 candidates. The score, noisy cosine, needs no pairs" in text
    assert "Their translations are then compared with the captions’ own vectors" in text
    assert "rotation 0.125 0.750" in text and "0.5 trained + rotation, memory 0.375 −0.125" in text
    assert (
        re.search(r'class="ours"><th scope="row">rotation<', page) and page.count('class="ours"><th scope="row">') == 1
    )


@pytest.mark.parametrize(
    "line", ['{"step": 3, "phase": "train"}\n', '{"step": 3, "phase": "validation", "recall@10": 1}\n']
)
def test_damaged_metrics_are_reported(run, tmp_path, caplog, line):
    """Curves are drawn up to the first damaged line."""
    folder = broken(Path(shutil.copytree(run, tmp_path / "run")), "metrics.jsonl", line)
    write_report(folder, tmp_path / "report.html")
    assert f"{folder / 'metrics.jsonl'}: line 1 cannot be read" in caplog.text


def test_a_config_that_lacks_fields_is_reported(run, tmp_path, caplog):
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    content = json.loads((folder / "config.json").read_text())
    del content["seed"], content["embed"]["dtype"]
    (folder / "config.json").write_text(json.dumps(content))
    write_report(folder, tmp_path / "report.html")
    assert f"{folder / 'config.json'} does not state seed, embed.dtype" in caplog.messages


@pytest.mark.parametrize("content", ["", "\0" * 4096])
def test_metrics_without_entries_are_reported(run, tmp_path, caplog, content):
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    (folder / "metrics.jsonl").write_text(content)
    write_report(folder, tmp_path / "report.html")
    assert f"{folder / 'metrics.jsonl'} has no readable entries" in caplog.messages


def test_an_unfinished_run(run, tmp_path):
    """Its last line is incomplete, and it has a single validation."""
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:6]) + lines[6][:10])
    write_report(folder, tmp_path / "report.html")
    outline = Outline((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Training loss over 5 steps, from 10 to 6." in outline.all("aria-label")
    assert "c2c infer IMAGES --translator run/bundle" in flat(outline.text)

"""`c2c report`."""

import dataclasses
import re
import shutil

import pytest

from c2c_jax.cli.main import main
from c2c_jax.evaluation.results import Results, Row, write
from c2c_jax.translator.bundle import load_bundle


@pytest.fixture
def report(capsys):
    """Runs the command; returns the exit code, stdout and stderr."""

    def run(*arguments):
        capsys.readouterr()
        code = main(["report", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run


def test_sounds_of_infer_on_a_page(report, infer, image_folder, bundle, tmp_path, monkeypatch):
    assert infer(image_folder, "--control", "rain", "--out", tmp_path / "sounds")[0] == 0
    monkeypatch.chdir(tmp_path)
    code, out, err = report(bundle, "--sounds", tmp_path / "sounds")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert code == 0 and not err and page.count("<audio") == 6
    assert re.fullmatch(r"report\.html  \d+\.\d\d MB\n", out)
    assert float(out.split()[1]) == pytest.approx(len(page.encode()) / 1e6, abs=0.01)
    # Damaged files are reported and skipped, and the exit code is 2.
    (tmp_path / "sounds/b.wav").write_bytes(b"")
    (image_folder / "c.png").unlink()
    code, out, err = report(bundle, "--sounds", tmp_path / "sounds", "--out", tmp_path / "new/page.html")
    assert code == 2 and out.startswith(f"{tmp_path / 'new/page.html'}  ")
    lines = err.splitlines()
    assert len(lines) == 3 and all(line.startswith("left out: ") for line in lines[:2])
    assert "b.wav is not the sound that b.sound.json describes" in err and "c.png" in err
    assert lines[2].startswith("c2c report: 2 of the files in")
    assert (tmp_path / "new/page.html").read_text(encoding="utf-8").count("<audio") == 4


def test_the_evaluation_of_the_run_is_found(report, bundle, tmp_path):
    """In RUN/evaluation; one of another translator is refused there, too."""
    run = tmp_path / "run"
    shutil.copytree(bundle, run / "bundle")
    (run / "config.json").write_text("{}")
    loaded = load_bundle(bundle)
    spec = loaded.spec.to_json()
    rows = [Row(task="captions", method="translator", metric="mrr", value=0.123, n=60)]
    evaluation = Results(
        bundle={"spec": spec, "metrics": loaded.metrics}, spaces={}, settings={"captions": "60 that training held out"},
        rows=rows, left_out=[], missing=[], vectors={},
    )  # fmt: skip
    write(evaluation, run / "evaluation")
    assert report(run, "--out", tmp_path / "page.html")[0] == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "0.123" in page and "captions: 60 that training held out" in page
    write(dataclasses.replace(evaluation, bundle={"spec": spec, "metrics": {"step": -1}}), run / "evaluation")
    code, _, err = report(run, "--out", tmp_path / "page.html")
    assert code == 2 and "evaluation is the evaluation of another translator" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is neither a local run or bundle"),
        (["BUNDLE", "--sounds", "nowhere"], "expected a folder of sounds with their records at nowhere"),
        (["BUNDLE", "--evaluation", "nowhere"], "expected an output folder of c2c evaluate at nowhere"),
        (["BUNDLE", "--most", "0"], "--most must be 1 or more, found 0"),
        (["BUNDLE", "--out", "."], "--out . is a folder"),
        (["BUNDLE", "--out", "file/report.html"], "file"),
        (["BUNDLE", "--out", "notes.txt"], "notes.txt exists and is not an HTML page"),
        (["BUNDLE", "--out", "/dev/null"], "is a device"),
        (["BUNDLE", "--out", f"{'n' * 256}.html"], "255 are allowed"),
    ],
)
def test_misuse(report, bundle, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "notes.txt").write_text("mine")
    code, out, err = report(*(str(bundle) if word == "BUNDLE" else word for word in arguments))
    assert code == 2 and not out and message in err
    assert len(err.splitlines()) == 1 and err.startswith("c2c report: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "notes.txt"]
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit):
        main(["report", "--help"])
    assert "c2c report runs/mlp --sounds sounds" in capsys.readouterr().out


def test_a_damaged_bundle(report, bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    (copy / "model.safetensors").write_bytes(b"")
    code, _, err = report(copy, "--out", tmp_path / "report.html")
    assert code == 2 and "model.safetensors" in err and len(err.splitlines()) == 1

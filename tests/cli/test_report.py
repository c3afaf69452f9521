"""`c2c report` as a user meets it."""

import re
import shutil

import pytest

from c2c_jax.cli.main import main


@pytest.fixture
def report(capsys):
    """Runs the verb; gives the exit code, stdout and stderr."""

    def run(*arguments):
        capsys.readouterr()
        code = main(["report", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run


def test_sounds_of_infer_on_a_page(report, infer, pictures, bundle, tmp_path, monkeypatch):
    assert infer(pictures, "--control", "rain", "--out", tmp_path / "sounds")[0] == 0
    monkeypatch.chdir(tmp_path)
    code, out, err = report(bundle, "--sounds", tmp_path / "sounds")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert code == 0 and not err and page.count("<audio") == 6
    assert re.fullmatch(r"report\.html  \d+\.\d\d MB\n", out)
    assert float(out.split()[1]) == pytest.approx(len(page.encode()) / 1e6, abs=0.01)
    # What is damaged is named, the rest is shown, and the exit code says so.
    (tmp_path / "sounds/b.wav").write_bytes(b"")
    (pictures / "c.png").unlink()
    code, out, err = report(bundle, "--sounds", tmp_path / "sounds", "--out", tmp_path / "new/page.html")
    assert code == 2 and out.startswith(f"{tmp_path / 'new/page.html'}  ")
    lines = err.splitlines()
    assert len(lines) == 3 and all(line.startswith("left out: ") for line in lines[:2])
    assert "b.wav is empty" in err and "c.png" in err
    assert lines[2].startswith("c2c report: 2 of the files below")
    assert (tmp_path / "new/page.html").read_text(encoding="utf-8").count("<audio") == 4


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere"], "nowhere holds no translator bundle"),
        (["BUNDLE", "--sounds", "nowhere"], "nowhere is no folder"),
        (["BUNDLE", "--evaluation", "nowhere"], "nowhere/metrics.json is missing"),
        (["BUNDLE", "--most", "0"], "--most is 0"),
        (["BUNDLE", "--out", "."], "--out . is a folder"),
        (["BUNDLE", "--out", "file/report.html"], "file"),
    ],
)
def test_misuse(report, bundle, tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    code, out, err = report(*(str(bundle) if word == "BUNDLE" else word for word in arguments))
    assert code == 2 and not out and told in err
    assert len(err.splitlines()) == 1 and err.startswith("c2c report: ")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit):
        main(["report", "--help"])
    assert "c2c report runs/mlp --sounds sounds" in capsys.readouterr().out


def test_a_damaged_bundle(report, bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    (copy / "model.safetensors").write_bytes(b"")
    code, _, err = report(copy, "--out", tmp_path / "report.html")
    assert code == 2 and "model.safetensors" in err and len(err.splitlines()) == 1

"""Recipes by name and by file, `--list`, and the short flags."""

import argparse
import io
import json
import os
import subprocess
import sys

import pytest

from c2c_jax import recipes
from c2c_jax.cli import recipe
from c2c_jax.cli.main import main
from c2c_jax.cli.recipe import read_config, requested_config
from c2c_jax.config import Config
from c2c_jax.data.store import Store
from c2c_jax.errors import ConfigError
from tests.cli.test_main import ROOT, refused
from tests.fixtures.random_store import random_store


def config_of(*flags: str, overrides: tuple[str, ...] = ()) -> Config:
    parser = argparse.ArgumentParser()
    recipe.add_arguments(parser)
    return requested_config(argparse.Namespace(**vars(parser.parse_args(flags)), overrides=list(overrides)))


def test_list_in_a_pipe():
    """Without JAX, and without a config."""
    code = (
        "import sys\nfor name in ('jax', 'torch', 'transformers', 'flax', 'numpy', 'ml_collections'):\n"
        "    sys.modules[name] = None\nfrom c2c_jax.cli.main import program\nprogram(['train', '--list'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    listed = [line.split("\t") for line in done.stdout.splitlines()]
    assert [name for name, _ in listed] == recipes.names() == sorted(path.stem for path in (ROOT / "configs").iterdir()
        if path.suffix == ".py")  # fmt: skip
    first_lines = [(ROOT / f"configs/{name}.py").read_text().split("\n")[0][3:] for name in recipes.names()]
    assert [what for _, what in listed] == first_lines and all(line.endswith(".") for line in first_lines)


def test_list_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdout", screen := Terminal())
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["train", "--list"]) == 0
    rows = [line.strip("│\n ").split("│") for line in screen.getvalue().splitlines() if line.startswith("│")]
    assert [name.strip() for name, _ in rows] == recipes.names() and "\t" not in screen.getvalue()


def test_names_and_files(tmp_path):
    assert config_of("--recipe", "recommended") == recipes.get("recommended")
    assert config_of("--recipe", "mlp:gcc") == config_of("--config", str(ROOT / "configs/mlp.py:gcc"))
    own = tmp_path / "own.py"
    own.write_text("from c2c_jax import recipes\ndef get_config(name='mlp5'): return recipes.get(name)\n")
    assert config_of("--config", str(own)) == recipes.get("mlp5")
    assert config_of("--config", f"{own}:mlp:coco") == recipes.get("mlp:coco")


def test_short_flags():
    flags = ["--data", "txt:a.txt + 2*tsv:b.tsv", "--source", "me/clip", "--target", "clap.pt"]
    long = ["--config.data.captions=txt:a.txt + 2*tsv:b.tsv", "--config.source=me/clip", "--config.target=clap.pt"]
    config = config_of("--recipe", "mlp:gcc", *flags, overrides=("--config.seed=7",))
    assert config == read_config(str(ROOT / "configs/mlp.py:gcc"), [*long, "--config.seed=7"])
    assert (config.data.captions, config.source, config.target, config.seed, config.batch_size) == (
        "txt:a.txt + 2*tsv:b.tsv", "me/clip", "clap.pt", 7, 32,
    )  # fmt: skip
    assert config_of("--recipe", "mlp", "--source", "").source == ""
    for override in ("--config.data.captions=txt:b", "--config.data.captions"):
        with pytest.raises(ConfigError, match="--data and --config.data.captions set the same field"):
            config_of("--recipe", "mlp", "--data", "txt:a", overrides=(override, "txt:b"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], r"pass --recipe NAME \(c2c train --list shows the names\) or --config FILE"),
        (["--recipe", "mlp", "--config", "x.py"], "--recipe and --config exclude each other"),
        (["--recipe", "recomended"], "unknown recipe 'recomended'; known are recommended, linear, .*_coco$"),
        (["--recipe", "mlps"], "known are mlp, mlp5, .*linear"),
        (["--recipe", "names"], "unknown recipe 'names'"),
        (["--recipe", "mlp:gc"], "unknown data preset 'gc' after the recipe's name; known are miniworld, gcc, coco"),
        (["--config", "configs/mlp.py:gcc"], "found no file.; for the recipe in the package pass --recipe mlp:gcc$"),
        (["--config", "configs"], "found a folder.; pass a Python file, or --recipe NAME"),
        (["--config", "number.py"], "number.py: get_config.. must return a c2c_jax.config.Config"),
        (["--config", "syntax.py"], "config file syntax.py does not run: SyntaxError: "),
        (["--config", "error.py"], "config file error.py does not run: ValueError: first line$"),
        (["--config", "empty.py"], "config file empty.py does not run: AttributeError: .*get_config"),
    ],
)  # fmt: skip
def test_misuse(flags, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    for name, code in (
        ("number", "def get_config(): return 5"),
        ("syntax", "def get_config("),
        ("error", "raise ValueError('first line\\nsecond line')"),
        ("empty", ""),
    ):
        (tmp_path / f"{name}.py").write_text(code)
    with pytest.raises(ConfigError, match=message) as caught:
        config_of(*flags)
    assert "\n" not in str(caught.value)


def test_split_at_the_preset():
    assert recipe.split_preset("mlp") == ["mlp"]
    assert recipe.split_preset("configs/mlp.py:gcc:x") == ["configs/mlp.py", "gcc:x"]
    assert recipe.split_preset("C:\\own\\mlp.py:gcc") == ["C:\\own\\mlp.py", "gcc"]
    assert recipe.split_preset("C:\\own\\mlp.py") == ["C:\\own\\mlp.py"]


def test_train_and_embed_by_name(tmp_path, monkeypatch, capsys):
    """In an empty folder, as after an installation."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "captions.txt").write_text("a dog barks\na bell rings\na train passes\n")
    data = ["--recipe", "miniworld", "--data", "txt:captions.txt"]
    assert main(["embed", *data, "--out", "captions"]) == 0
    plan = Store.open(tmp_path / "captions").plan
    assert (plan.rows, plan.source.name, plan.target.name) == (3, "miniworld/clip", "miniworld/clap")
    random_store(tmp_path / "store", rows=300, source_dim=16, target_dim=16)
    few = ["--source", "", "--target", "", "--config.data.store=store", "--config.batch_size=80", "--config.steps=2"]
    assert main(["train", "--recipe", "mlp_infonce", "--config.data.validation_size=100", *few]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == os.path.join("runs", "mlp_infonce", "bundle")
    config = json.loads((tmp_path / "runs" / "mlp_infonce" / "config.json").read_text())
    assert (config["source"], config["steps"], config["select_by"]) == ("", 2, "recall@10")
    assert "no image matches" in refused(capsys, ["train", *data, "--images", "photos/*.png"])
    assert "unknown argument --images" in refused(capsys, ["embed", *data, "--images", "photos/", "--out", "x"])
    assert "unknown recipe 'x'" in refused(capsys, ["embed", "--recipe", "x", "--out", "store"])


def test_a_file_of_captions_without_its_kind(tmp_path, capsys):
    (tmp_path / "captions.txt").write_text("a dog barks\n")
    file = tmp_path / "captions.txt"
    assert f"write txt:{file} for one caption a line" in refused(
        capsys, ["train", "--recipe", "mlp", "--data", str(file)]
    )

"""Every recipe runs as its docstring prints it, and the README's table names it."""

import re
import shlex
from pathlib import Path

import pytest

from c2c_jax.cli.main import main
from c2c_jax.weights.translator import load_bundle
from tests.training.random_store import random_store

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "configs").glob("*.py"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores") / "store"
    random_store(folder, rows=200, source_dim=16, target_dim=16)
    return folder


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_runs_as_printed(recipe, store, tmp_path, monkeypatch):
    """Its own command, on a store of 200 rows: 100 to train on, for an epoch."""
    monkeypatch.chdir(ROOT)
    (command,) = re.findall(r"^    (python train\.py --config .*)$", recipe.read_text(), re.MULTILINE)
    program, *arguments = shlex.split(command)[1:]
    assert program == "train.py" and arguments[:2] == ["--config", f"configs/{recipe.name}"]
    arguments[arguments.index("--workdir") + 1] = str(tmp_path / "run")
    few = [
        "--config.source=", "--config.target=", f"--config.data.store={store}", "--config.data.holdout=100",
        "--config.epochs=1", "--config.batch_size=32",
    ]  # fmt: skip
    assert main(["train", *arguments, *few]) == 0
    bundle = load_bundle(tmp_path / "run" / "bundle")
    assert bundle.metrics["step"] == 4 and bundle.recipe["translator"]["kind"] == bundle.spec.kind


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_readme_names_it(recipe):
    assert f"(configs/{recipe.name})" in (ROOT / "README.md").read_text()

"""Every recipe runs as its docstring prints it, and the README's table names it."""

import re
import shlex
from pathlib import Path

import pytest

from c2c_jax import recipes
from c2c_jax.cli.main import main
from c2c_jax.cli.recipe import read_config
from c2c_jax.cli.train import default_workdir
from c2c_jax.errors import ConfigError
from c2c_jax.translator.bundle import load_bundle
from tests.fixtures.random_store import random_store

ROOT = Path(__file__).parents[1]
SLOW = ("linear2_coco", "mlp5", "mlp_layernorm", "transformer_coco")  # like others here, or long to compile
PACKAGE = ROOT / "c2c_jax" / "recipes"
RECIPES = sorted((ROOT / "configs").glob("*.py"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores") / "store"
    random_store(folder, rows=200, source_dim=16, target_dim=16)
    return folder


@pytest.mark.parametrize(
    "recipe",
    [pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem in SLOW)) for path in RECIPES],
)
def test_runs_as_printed(recipe, store, tmp_path, monkeypatch):
    """The command in its docstring, on a store of 200 rows, 100 of them for training, for an epoch."""
    monkeypatch.chdir(tmp_path)
    (command,) = re.findall(r"^    (c2c train --recipe .*)$", (PACKAGE / recipe.name).read_text(), re.MULTILINE)
    arguments = shlex.split(command)[2:]
    assert arguments[1].partition(":")[0] == recipe.stem
    if "--images" in arguments:  # the store's vectors belong to no CLIP
        start = arguments.index("--images")
        del arguments[start : start + 2]
    arguments[arguments.index("--workdir") + 1] = str(tmp_path / "run")
    few = [
        "--config.source=", "--config.target=", f"--config.data.store={store}", "--config.data.validation_size=100",
        "--config.epochs=1", "--config.batch_size=32", "--config.images.files=", "--config.steps=0",
    ]  # fmt: skip
    assert main(["train", *arguments, *few]) == 0
    bundle = load_bundle(tmp_path / "run" / "bundle")
    if bundle.recipe["adapt"]:  # a tenth is held out
        assert bundle.metrics["step"] == 6 and bundle.choice is not None
    else:
        assert bundle.metrics["step"] == 4 and bundle.recipe["translator"]["kind"] == bundle.spec.kind


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_readme_names_it(recipe):
    assert f"(configs/{recipe.name})" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("preset", ["", ":gcc", ":coco"])
def test_files_and_names_give_the_same_configs(preset):
    assert recipes.names() == [path.stem for path in RECIPES]
    for path in RECIPES:
        config = recipes.get(f"{path.stem}{preset}")
        assert config == read_config(f"{path}{preset}", []) and config is not recipes.get(f"{path.stem}{preset}")


def test_presets():
    """A preset after a recipe's path sets CLIP2CLAP's checkpoints and captions; the default is the mini world."""
    paper = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "cvssp/audioldm-l-full:text_encoder"
    for name, expected in (
        ("", ("miniworld/clip", "miniworld/clap", "miniworld:50000")),
        (":gcc", (*paper, "tfds:conceptual_captions:train")),
        (":coco", (*paper, "tfds:coco_captions:train:captions/text")),
    ):
        config = read_config(f"{ROOT / 'configs/mlp.py'}{name}", [])
        assert (config.source, config.target, config.data.captions) == expected and config.batch_size == 32
    with pytest.raises(
        ConfigError, match="unknown data preset 'gccs' after the recipe's name; known are miniworld, gcc, coco"
    ):
        read_config(f"{ROOT / 'configs/mlp.py'}:gccs", [])
    with pytest.raises(ConfigError, match="unknown data preset 'gccs'"):
        recipes.get("mlp:gccs")
    for name in ("configs/mlp.py", "mlp"):
        assert default_workdir(name) == Path("runs/mlp") and default_workdir(f"{name}:gcc") == Path("runs/mlp-gcc")

"""The recipes of docs/extending.md run unchanged: they register an objective and a translator kind."""

import dataclasses
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from c2c_jax.cli.recipe import read_config
from c2c_jax.config import Config, ObjectiveConfig, TranslatorConfig, setting
from c2c_jax.data.sources import Source, register_source
from c2c_jax.errors import BundleError, ConfigError, ExportError
from c2c_jax.publishing.export import publish
from c2c_jax.training.check import check
from c2c_jax.training.objectives import OBJECTIVES, Objective, build_objective, register_objective
from c2c_jax.training.train import train
from c2c_jax.translator.bundle import load_bundle
from c2c_jax.translator.kinds import KINDS, Translator, register_kind
from tests.fixtures.random_store import random_store

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```python\n# (my/\w+\.py)\n(.*?)```", (ROOT / "docs/extending.md").read_text(), re.DOTALL)
PROGRAMS = {Path(name).stem: code for name, code in BLOCKS}


@pytest.fixture
def recipe(tmp_path, registries):
    """Reads one of the page's recipes."""

    def read(name: str) -> Config:
        path = tmp_path / f"{name}.py"
        path.write_text(PROGRAMS[name])
        config = read_config(str(path), ["--config.source=", "--config.target="])
        config.batch_size, config.steps, config.data.validation_size = 40, 30, 100
        config.eval_every = config.checkpoint_every = 30
        return config

    return read


def test_an_objective_that_is_not_row_wise(recipe, tmp_path):
    config = recipe("covariance")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 16, 5))
    objective = build_objective("covariance", {"weight": 0.5})
    loss = objective.loss(objective.init(), jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32))
    expected = ((x - y) ** 2).sum(1).mean() + 0.5 * ((np.cov(x.T) - np.cov(y.T)) ** 2).sum()
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    assert jax.device_count() == 4
    train(config, random_store(tmp_path / "store"), tmp_path / "run")
    assert load_bundle(tmp_path / "run/bundle").recipe["objective"] == {
        "kind": "covariance", "settings": {"weight": 0.5},
    }  # fmt: skip
    with pytest.raises(ConfigError, match="config.objective.settings.weight is -1.0; it must be above 0"):
        check(Config(objective=ObjectiveConfig(kind="covariance", settings={"weight": -1.0})))


def test_terms_of_a_sum_keep_their_own_defaults(recipe):
    """`check` writes the settings of a run into its config; a name that two terms share must not mix their defaults."""
    recipe("covariance")

    @register_objective("scaled")
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Scaled(Objective):
        weight: float = setting(5.0, "Weight.", ge=0, le=10)

    kind = "covariance + scaled"
    config = check(Config(objective=ObjectiveConfig(kind=kind)))
    terms = build_objective(kind, config.objective.settings).terms
    assert {name: term.weight for name, (_, term) in terms.items()} == {"covariance": 1.0, "scaled": 5.0}
    config = check(Config(objective=ObjectiveConfig(kind=kind, settings={"weight": 2.0})))
    terms = build_objective(kind, config.objective.settings).terms
    assert [term.weight for _, term in terms.values()] == [2.0, 2.0] and config.objective.settings == {"weight": 2.0}


def test_objectives_that_cannot_be_registered(recipe):
    recipe("covariance")
    recipe("covariance")  # the same class again replaces itself

    class Plain(OBJECTIVES["covariance"]):
        pass

    for name, message in (("vic-reg", "must consist of letters"), ("infonce", "is built in: choose")):
        with pytest.raises(ConfigError, match=message):
            register_objective(name)(OBJECTIVES["covariance"])
    with pytest.raises(ConfigError, match="put @dataclasses.dataclass"):
        register_objective("plain")(Plain)


def test_kinds_and_sources_that_cannot_be_registered(registries):
    class Clamping(Translator):
        @dataclasses.dataclass(frozen=True, kw_only=True)
        class Settings:
            clamp: float = setting(1.0, "Clipping.", ge=0, le=10)

    with pytest.raises(ConfigError, match="its setting clamp is one of all kinds"):
        register_kind("clamping")(Clamping)
    with pytest.raises(ConfigError, match="translator kind 'mlp' is built in"):
        register_kind("mlp")(type("MLP", (Translator,), {}))
    with pytest.raises(ConfigError, match="caption source 'tsv' is built in"):
        register_source("tsv", "PATH")(type("Tsv", (Source,), {}))


def test_a_translator_kind(recipe, tmp_path):
    """It is trained, saved under PyTorch's names and loaded again; without its class, an error says what to do."""
    config = recipe("bilinear")
    train(config, random_store(tmp_path / "store"), tmp_path / "run")
    bundle = load_bundle(tmp_path / "run/bundle")
    tensors = safetensors.numpy.load_file(tmp_path / "run/bundle/model.safetensors")
    layer = bundle.translator.left
    np.testing.assert_array_equal(tensors["left.weight"], np.asarray(layer.kernel[...]).T)
    assert bundle.spec.settings.rank == 32 and tensors["out.bias"].shape == (16,)
    with pytest.raises(ConfigError, match="config.translator.settings.rank is 0; it must be 1 or more"):
        check(Config(translator=TranslatorConfig(kind="bilinear", settings={"rank": 0})))
    with pytest.raises(ExportError, match="kind bilinear, which c2c_jax.torch does not have"):
        publish(tmp_path / "run", out=tmp_path / "published")
    del KINDS["bilinear"]
    with pytest.raises(BundleError, match="unknown translator kind 'bilinear'.*import the module that registers it"):
        load_bundle(tmp_path / "run/bundle")

"""The caption memory that training stores in bundles."""

import numpy as np
import pytest

from c2c_jax.config import Config, DataConfig, MemoryConfig, TranslatorConfig
from c2c_jax.data.store import Store
from c2c_jax.errors import ConfigError
from c2c_jax.training.check import check
from c2c_jax.training.loader import split_rows
from c2c_jax.training.memory import draw_memory
from c2c_jax.training.train import train
from c2c_jax.translator.bundle import load_bundle
from tests.fixtures.random_store import random_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of 500 rows in four chunks."""
    return random_store(tmp_path_factory.mktemp("stores") / "store")


def rows_of(store: Store, source_MS: np.ndarray) -> list[int]:
    """The rows of the store whose unit vectors these are."""
    source_NS = store.read("source").astype(np.float64)
    unit_NS = source_NS / np.linalg.norm(source_NS, axis=1, keepdims=True)
    cosines_MN = np.asarray(source_MS, np.float64) @ unit_NS.T
    assert (cosines_MN.max(axis=1) > 0.999).all()
    return np.argmax(cosines_MN, axis=1).tolist()


def test_memory_is_drawn_from_the_training_rows(store):
    held_out, training = split_rows(500, 100, 420)
    drawn = {
        count: rows_of(store, draw_memory(MemoryConfig(size=count), store, training, 420).source)
        for count in (30, 120, 400, 9999, -1)
    }
    for count in (400, 9999, -1):
        assert drawn[count] == training.tolist()
    assert len(set(drawn[30])) == 30 and len(set(drawn[120])) == 120
    assert set(drawn[30]) < set(drawn[120]) < set(training.tolist())
    other = draw_memory(MemoryConfig(size=30), store, training, 421)
    assert len(set(rows_of(store, other.source)) & set(drawn[30])) < 10
    assert draw_memory(MemoryConfig(), store, training, 420) is None


def test_run_stores_the_memory_in_its_bundle(store, tmp_path):
    """Its scores are those of a run without a memory."""
    bundles = []
    for captions in (70, 0):
        memory = MemoryConfig(size=captions, weight=0.4)
        translator = TranslatorConfig(kind="ridge", input_norm="unit")
        train(
            Config(data=DataConfig(validation_size=100), translator=translator, memory=memory),
            store,
            tmp_path / f"{captions}",
        )
        bundles.append(load_bundle(tmp_path / f"{captions}" / "bundle"))
    remembering, without = bundles
    of_images = {"noisy_mrr", "noisy_cosine"}
    assert {k: v for k, v in remembering.metrics.items() if k not in of_images} == {
        k: v for k, v in without.metrics.items() if k not in of_images
    }
    assert remembering.choice.memory and list(without.choice.noisy_mrr) == ["trained"]
    assert without.memory.weight == 0 and len(without.memory.source) == 400  # reference queries alone
    assert set(rows_of(store, remembering.memory.source)) <= set(split_rows(500, 100, Config().seed)[1].tolist())
    assert remembering.memory.record == {"captions": 70, "share": 0.4, "temperature": 0.01}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"captions": -2}, "config.memory.size is -2; it must be -1 or more"),
        ({"share": 0.0}, "config.memory.weight is 0.0; it must be above 0"),
        ({"share": 1.1}, "config.memory.weight is 1.1; it must be at most 1"),
        ({"temperature": 0.0}, "config.memory.temperature is 0.0; it must be 1e-06 or more"),
    ],
)
def test_misuse(fields, message):
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        check(Config(batch_size=40, memory=MemoryConfig(**fields)))

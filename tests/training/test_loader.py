"""Both loaders give every training row once per epoch, with its own target, and resume at any step."""

import jax
import numpy as np
import pytest

from c2c_jax.config import Config
from c2c_jax.errors import StoreError
from c2c_jax.training import loader
from c2c_jax.training.loader import (
    ResidentLoader,
    StreamingLoader,
    WindowSource,
    choose_loader,
    open_loader,
    split_rows,
)
from c2c_jax.training.step import data_mesh
from tests.fixtures.random_store import random_store

ROWS, HELD_OUT, B = 500, 60, 48  # 440 rows to train on: an epoch is 9 steps and 8 rows

CONFIG = Config(batch_size=B, steps_per_call=28, seed=7)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return random_store(tmp_path_factory.mktemp("stores") / "store")


@pytest.fixture(scope="module")
def training():
    return split_rows(ROWS, HELD_OUT, 7)[1]


def opened(kind, store, training):
    return open_loader(choose_loader(kind, store), CONFIG, store, training, data_mesh(), epochs=5)


def drawn(opened_loader, store, step: int, count: int) -> np.ndarray:
    """The store's rows that some steps get, found by their vectors. Checks that sources come with their own targets."""
    batches = opened_loader.batches(step, count)
    items = [
        opened_loader.gather(opened_loader.table, jax.tree.map(lambda side, k=k: side[k], batches))
        for k in range(count)
    ]
    source, target = (np.concatenate([np.asarray(item[side]) for item in items]) for side in range(2))
    sources, targets = store.read("source"), store.read("target")
    rows = [int(np.flatnonzero((sources == vector).all(1))[0]) for vector in source]
    np.testing.assert_array_equal(targets[rows], target)
    return np.asarray(rows)


@pytest.mark.parametrize("kind", ["resident", "streamed"])
@pytest.mark.parametrize("window_rows", [128, 256, 65_536])
def test_every_row_once_an_epoch(store, training, monkeypatch, kind, window_rows):
    monkeypatch.setattr(loader, "WINDOW_ROWS", window_rows)
    rows = drawn(opened(kind, store, training), store, 0, 28)[: 3 * len(training)]
    epochs = rows.reshape(3, len(training))
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), training)
        assert np.mean(np.diff(epoch) == 1) < 0.05
    assert np.mean(epochs[0] == epochs[1]) < 0.05


@pytest.mark.parametrize("kind", ["resident", "streamed"])
def test_resuming_at_any_step(store, training, monkeypatch, kind):
    monkeypatch.setattr(loader, "WINDOW_ROWS", 256)
    stream = drawn(opened(kind, store, training), store, 0, 20)
    for start in range(0, 20, 3):
        resumed = opened(kind, store, training)
        parts = [drawn(resumed, store, start, 1), drawn(resumed, store, start + 1, 20 - start - 1)]
        np.testing.assert_array_equal(np.concatenate(parts), stream[start * B :])


def test_windows_by_hand(store, training, monkeypatch):
    """The windows of an epoch have all training rows, and `locate` finds rows of the stream in them."""
    monkeypatch.setattr(loader, "WINDOW_ROWS", 256)  # two chunks of 128
    windows = WindowSource(store, training, 7, epochs=3)
    lengths = [len(windows[number][0]) for number in range(4)]
    assert sum(lengths[:2]) == sum(lengths[2:]) == len(training)
    assert windows.locate(0) == (0, 0)
    assert windows.locate(lengths[0] - 1) == (0, lengths[0] - 1)
    assert windows.locate(lengths[0]) == (1, 0)
    assert windows.locate(len(training) + lengths[2] + 5) == (3, 5)


def test_auto_depends_on_free_memory(store, training, monkeypatch):
    size = ROWS * (24 + 16) * 2
    for free, expected in ((2 * size, ResidentLoader), (2 * size - 1, StreamingLoader)):
        monkeypatch.setattr(loader, "free_memory", lambda device, free=free: free)
        assert isinstance(opened("auto", store, training), expected)


def test_damaged_chunk_while_streaming(tmp_path, training):
    store = random_store(tmp_path / "store")
    chunk = tmp_path / "store" / "target" / "c" / "2" / "0"
    chunk.write_bytes(bytes(len(chunk.read_bytes())))
    with pytest.raises(StoreError, match="chunk 2 is damaged"):
        opened("streamed", store, training).batches(0, 9)


def test_split_is_a_partition():
    held_out, training = split_rows(1000, 100, seed=7)
    assert len(held_out) == 100
    np.testing.assert_array_equal(np.sort(np.concatenate([held_out, training])), np.arange(1000))
    assert not np.array_equal(split_rows(1000, 100, seed=8)[0], held_out)

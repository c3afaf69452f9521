"""TensorBoard and Weights & Biases."""

import sys
from pathlib import Path

import pytest

from c2c_jax.config import LogConfig
from c2c_jax.data.store import Store
from c2c_jax.errors import MissingExtraError
from c2c_jax.training.train import train
from tests.fixtures.random_store import random_store
from tests.training.test_train import lines, small


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return random_store(tmp_path / "store")


def test_a_missing_tracker_stops_the_run_before_anything_is_written(store, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match=r"^config\.log\.wandb needs wandb, .*: pip install 'c2c_jax\[log\]'$"):
        train(small(log=LogConfig(wandb="sounds")), store, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_tensorboard(store, tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    train(small(log=LogConfig(tensorboard=True)), store, tmp_path / "run")
    (events,) = (tmp_path / "run" / "tensorboard").iterdir()
    content, place, scalars = events.read_bytes(), 0, {}
    while place < len(content):  # a record: its length in 8 bytes, 4 of checksum, the event, 4 of checksum
        length = int.from_bytes(content[place : place + 8], "little")
        event = Event.FromString(content[place + 12 : place + 12 + length])
        scalars.update({(value.tag, event.step): value.simple_value for value in event.summary.value})
        place += 16 + length
    for line in lines(tmp_path / "run"):
        for name in ("loss",) if line["phase"] == "train" else ("recall@1", "median_rank"):
            assert scalars[f"{line['phase']}/{name.replace('@', '_')}", line["step"]] == pytest.approx(line[name])

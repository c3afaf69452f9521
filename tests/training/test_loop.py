"""The training program: what it leaves, how it resumes, what it refuses before anything is compiled."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from c2c_jax.config import Config, DataConfig, ObjectiveConfig, OptimizerConfig, TranslatorConfig
from c2c_jax.data.store import Store
from c2c_jax.errors import ConfigError, TrainingError
from c2c_jax.training.log import RunLog
from c2c_jax.training.loop import batches, split, train
from c2c_jax.weights.translator import load_bundle
from tests.training.random_store import random_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return random_store(tmp_path_factory.mktemp("stores") / "store")


def small(**fields) -> Config:
    defaults = dict(
        batch_size=40, epochs=3, log_every=5, eval_every=10, checkpoint_every=10, data=DataConfig(holdout=100),
        translator=TranslatorConfig(width=32, depth=2),
    )  # fmt: skip
    return Config(**{**defaults, **fields})


def lines(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_all_it_should_and_learns(store, tmp_path):
    config = small(epochs=20, optimizer=OptimizerConfig(learning_rate=3e-3))
    train(config, store, tmp_path)
    told = lines(tmp_path)
    training = [line for line in told if line["phase"] == "train"]
    validation = [line for line in told if line["phase"] == "validation"]
    assert [line["step"] for line in training] == list(range(5, 201, 5))
    assert [line["step"] for line in validation] == list(range(10, 201, 10))
    names = {"loss", "grad_norm", "update_norm", "temperature", "learning_rate", "rows_per_second"}
    assert names <= training[0].keys()
    assert training[-1]["loss"] < 0.7 * training[0]["loss"]
    assert validation[-1]["recall@10"] > 0.5  # chance is 0.1: 100 held out
    assert json.loads((tmp_path / "config.json").read_text())["epochs"] == 20
    bundle = load_bundle(tmp_path / "bundle")
    assert (bundle.source, bundle.target) == (store.plan.source, store.plan.target)
    assert bundle.metrics["recall@10"] == validation[-1]["recall@10"]


@pytest.mark.parametrize("objective", ["inverse_euclidean", "infonce"])
def test_killed_run_resumes_to_the_same_bits(store, tmp_path, monkeypatch, objective):
    config = small(objective=ObjectiveConfig(kind=objective))
    train(config, store, tmp_path / "unbroken")
    count = RunLog.count

    def dying(self, rows):
        if self.step == 16:  # six steps after the checkpoint, with a line of metrics between
            raise KeyboardInterrupt
        return count(self, rows)

    monkeypatch.setattr(RunLog, "count", dying)
    with pytest.raises(KeyboardInterrupt):
        train(config, store, tmp_path / "killed")
    assert lines(tmp_path / "killed")[-1]["step"] == 15
    monkeypatch.undo()
    train(config, store, tmp_path / "killed")
    one, two = (
        safetensors.numpy.load_file(tmp_path / run / "bundle/model.safetensors") for run in ("unbroken", "killed")
    )
    for key in one:
        np.testing.assert_array_equal(two[key], one[key], err_msg=key)
    steps = [[(line["step"], line["phase"]) for line in lines(tmp_path / run)] for run in ("unbroken", "killed")]
    assert steps[0] == steps[1]


def test_finished_run_started_again_keeps_its_bundle(store, tmp_path):
    train(small(), store, tmp_path)
    before = (tmp_path / "bundle" / "model.safetensors").read_bytes()
    told = [(line["step"], line["phase"]) for line in lines(tmp_path)]
    train(small(), store, tmp_path)
    assert (tmp_path / "bundle" / "model.safetensors").read_bytes() == before
    assert [(line["step"], line["phase"]) for line in lines(tmp_path)] == told


def test_damaged_checkpoint_is_named_and_the_one_before_serves(store, tmp_path):
    train(small(), store, tmp_path)
    before = (tmp_path / "bundle" / "model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "checkpoints" / "30" / "default")
    with pytest.raises(TrainingError, match="checkpoints/30 is damaged") as caught:
        train(small(), store, tmp_path)
    assert "\n" not in str(caught.value)
    shutil.rmtree(tmp_path / "checkpoints" / "30")
    train(small(), store, tmp_path)
    assert (tmp_path / "bundle" / "model.safetensors").read_bytes() == before


def test_another_config_in_the_same_work_directory(store, tmp_path):
    train(small(epochs=1), store, tmp_path)
    with pytest.raises(ConfigError, match=r"translator\.width 32, now 16"):
        train(small(translator=TranslatorConfig(width=16, depth=2)), store, tmp_path)
    train(small(epochs=2), store, tmp_path)  # going on for longer is the same run


def test_non_finite_loss_stops_and_keeps_the_last_good_checkpoint(store, tmp_path):
    config = small(
        objective=ObjectiveConfig(kind="infonce"), optimizer=OptimizerConfig(learning_rate=1e38), checkpoint_every=1
    )
    with pytest.raises(TrainingError, match="learning_rate") as caught:
        train(config, store, tmp_path)
    assert "\n" not in str(caught.value)
    kept = [int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()]
    step = int(str(caught.value).split("at step ")[1].split(";")[0])
    assert all(number < step for number in kept)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (dict(batch_size=500), "400 are left to train on"),
        (dict(batch_size=42), "no multiple of the 4 devices"),
        (dict(epochs=0), "config.epochs is 0"),
        (dict(data=DataConfig(holdout=0)), "config.data.holdout is 0"),
        (dict(data=DataConfig(holdout=600)), "0 are left to train on"),
        (dict(objective=ObjectiveConfig(kind="contrast")), "known are inverse_euclidean, infonce"),
        (dict(translator=TranslatorConfig(kind="mpl")), "known are linear, linear2, mlp, "),
        (dict(translator=TranslatorConfig(input_norm="l2")), "known are none, unit"),
        (dict(optimizer=OptimizerConfig(learning_rate=math.nan)), "config.optimizer.learning_rate is nan"),
    ],
)
def test_misuse_is_one_line_and_leaves_nothing(store, tmp_path, fields, told):
    with pytest.raises(ConfigError) as caught:
        train(small(**fields), store, tmp_path / "run")
    assert told in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_split_parts_the_rows():
    held_out, training = split(1000, 100, seed=7)
    assert len(held_out) == 100
    np.testing.assert_array_equal(np.sort(np.concatenate([held_out, training])), np.arange(1000))
    assert not np.array_equal(split(1000, 100, seed=8)[0], held_out)


def test_batches_show_every_row_once_an_epoch_and_resume_anywhere():
    training = np.arange(100, 160)
    every = list(batches(training, 20, 9, seed=1, start=0))
    assert len(every) == 9
    for epoch in range(3):
        np.testing.assert_array_equal(np.sort(np.concatenate(every[3 * epoch : 3 * epoch + 3])), training)
    assert not np.array_equal(every[0], every[3])
    for start in range(9):
        np.testing.assert_array_equal(
            np.stack(list(batches(training, 20, 9, seed=1, start=start))), np.stack(every[start:])
        )

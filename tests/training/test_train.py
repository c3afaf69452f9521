"""The training program: its outputs, resuming, and errors before anything is compiled."""

import json
import math
import re
import resource
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from c2c_jax.config import (
    Config,
    DataConfig,
    MemoryConfig,
    ObjectiveConfig,
    OptimizerConfig,
    TranslatorConfig,
)
from c2c_jax.data.store import Store
from c2c_jax.errors import BundleError, ConfigError, TrainingError
from c2c_jax.training import check as checks
from c2c_jax.training import loader as loaders
from c2c_jax.training import train as program
from c2c_jax.training.curves import score_table
from c2c_jax.training.log import RunLog
from c2c_jax.training.train import train
from c2c_jax.translator.bundle import load_bundle
from tests.fixtures.random_store import random_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return random_store(tmp_path_factory.mktemp("stores") / "store")


def small(**fields) -> Config:
    defaults = dict(batch_size=40, epochs=3, log_every=5, eval_every=10, checkpoint_every=10)
    translator, data = TranslatorConfig(settings={"width": 32, "depth": 2}), DataConfig(validation_size=100)
    return Config(**{**defaults, "translator": translator, "data": data, **fields})


def lines(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def entries(workdir: Path) -> list[tuple[int, str]]:
    return [(line["step"], line["phase"]) for line in lines(workdir)]


def weights(workdir: Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(workdir / "bundle" / "model.safetensors")


def assert_equal(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for key in expected:
        np.testing.assert_array_equal(actual[key], expected[key], err_msg=key)


def test_run_learns_and_writes_all_files(store, tmp_path, caplog):
    config = small(epochs=20, optimizer=OptimizerConfig(learning_rate=3e-3))
    result = train(config, store, tmp_path)
    entries = lines(tmp_path)
    training = [line for line in entries if line["phase"] == "train"]
    validation = [line for line in entries if line["phase"] == "validation"]
    assert [line["step"] for line in training] == list(range(5, 201, 5))
    assert [line["step"] for line in validation] == list(range(10, 201, 10))
    names = {"loss", "grad_norm", "update_norm", "temperature", "learning_rate", "rows_per_second"}
    assert names <= training[0].keys()
    assert training[-1]["loss"] < 0.7 * training[0]["loss"]
    best = max(validation, key=lambda line: line["noisy_mrr"])
    assert best["recall@10"] > 0.5  # chance is 0.1: 100 held out
    assert json.loads((tmp_path / "config.json").read_text())["epochs"] == 20
    bundle = load_bundle(tmp_path / "bundle")
    assert (bundle.source, bundle.target) == (store.plan.source, store.plan.target)
    assert bundle.metrics == {name: value for name, value in best.items() if name != "phase"}
    assert result.history == entries and result.bundle.metrics == bundle.metrics
    assert "training for 200 steps: mlp, 400 captions, on 4 cpu device(s), resident" in caplog.text
    kept = score_table(bundle.metrics, validation[-1]).columns[1]
    assert kept.header == f"kept, step {best['step']:,}" and f"{best['recall@10']:.4g}" in kept.cells
    with Image.open(tmp_path / "curves.png") as curves:
        assert curves.size == (1200, 480) and len(curves.convert("L").getcolors()) > 20


@pytest.mark.parametrize(
    ("objective", "loader"),
    [
        ("inverse_euclidean", "resident"),
        ("infonce", "streamed"),
        pytest.param("inverse_euclidean", "streamed", marks=pytest.mark.slow),
        pytest.param("infonce", "resident", marks=pytest.mark.slow),
    ],
)
def test_killed_run_resumes_to_the_same_bits(store, tmp_path, monkeypatch, objective, loader):
    """A run that is killed between two calls resumes from its last checkpoint."""
    config = small(
        objective=ObjectiveConfig(kind=objective, settings={"margin_growth": 0.03} if objective != "infonce" else {}),
        data=DataConfig(validation_size=100, loader=loader),
        optimizer=OptimizerConfig(ema=0.9, warmup=5, clip_norm=0.5), translator=TranslatorConfig(kind="residual"),
        memory=MemoryConfig(size=50),
    )  # fmt: skip
    train(config, store, tmp_path / "unbroken")
    done = RunLog.log_steps

    def dying(self, metrics, count, seconds):
        done(self, metrics, count, seconds)
        if self.step >= 16:  # six steps or more after the checkpoint, with a line of metrics between
            raise KeyboardInterrupt

    monkeypatch.setattr(RunLog, "log_steps", dying)
    with pytest.raises(KeyboardInterrupt):
        train(config, store, tmp_path / "killed")
    assert lines(tmp_path / "killed")[-1]["step"] >= 15
    monkeypatch.undo()
    train(config, store, tmp_path / "killed")
    assert_equal(weights(tmp_path / "killed"), weights(tmp_path / "unbroken"))
    timeless = [[{**line, "rows_per_second": 0} for line in lines(tmp_path / run)] for run in ("killed", "unbroken")]
    assert timeless[0] == timeless[1]  # to the last bit of every loss, to the last step


def test_finished_run_started_again_changes_nothing(store, tmp_path):
    train(small(), store, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".png"}
    train(small(), store, tmp_path)
    for path, content in before.items():
        assert path.read_bytes() == content, path


@pytest.mark.parametrize("damage", ["missing", "truncated", "changed"])
def test_damaged_checkpoint_is_moved_and_the_previous_one_restored(store, tmp_path, caplog, damage):
    train(small(), store, tmp_path / "first")
    before = weights(tmp_path / "first")
    run = Path(shutil.copytree(tmp_path / "first", tmp_path / "run"))  # what lay at the first path is cached in memory
    newest = run / "checkpoints" / "30"
    if damage == "missing":
        shutil.rmtree(newest / "state")
    elif damage == "truncated":
        for file in newest.glob("state/**/d/*"):
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    else:
        file = max(newest.glob("state/**/d/*"), key=lambda path: path.stat().st_size)
        content = file.read_bytes()
        file.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    caplog.clear()
    train(small(), store, run)
    shown = caplog.text
    assert f"checkpoint {newest} is damaged" in shown and "resuming at step 20" in shown
    assert (run / "checkpoints-damaged" / "30").is_dir()
    assert_equal(weights(run), before)


@pytest.mark.slow
def test_full_disk(store, tmp_path):
    """Simulated by a limit on file sizes: the bundle does not fit, and existing files stay."""
    train(small(epochs=6), store, tmp_path / "unbroken")
    train(small(), store, tmp_path / "run")
    before = weights(tmp_path / "run")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, limits[1]))
    try:
        with pytest.raises(
            BundleError, match="bundle could not be written .*File too large.*free disk space"
        ) as caught:
            train(small(epochs=6), store, tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert_equal(weights(tmp_path / "run"), before)
    train(small(epochs=6), store, tmp_path / "run")
    assert_equal(weights(tmp_path / "run"), weights(tmp_path / "unbroken"))


def test_another_config_in_the_same_work_directory(store, tmp_path):
    train(small(epochs=1), store, tmp_path)
    with pytest.raises(ConfigError, match=r"translator\.settings\.width 32, now 16"):
        train(small(translator=TranslatorConfig(settings={"width": 16, "depth": 2})), store, tmp_path)
    train(small(epochs=2), store, tmp_path)  # going on for longer is the same run
    decaying = OptimizerConfig(decay="cosine")
    train(small(epochs=1, optimizer=decaying), store, tmp_path / "decaying")
    with pytest.raises(ConfigError, match="epochs 1, now 2"):
        train(small(epochs=2, optimizer=decaying), store, tmp_path / "decaying")


@pytest.fixture
def any_learning_rate(monkeypatch):
    monkeypatch.setattr(checks, "check_fields", lambda config: None)


def test_non_finite_loss_stops_the_run_after_a_good_checkpoint(store, tmp_path, any_learning_rate):
    config = small(
        objective=ObjectiveConfig(kind="infonce"), optimizer=OptimizerConfig(learning_rate=1e15), checkpoint_every=1
    )
    with pytest.raises(TrainingError, match="learning_rate") as caught:
        train(config, store, tmp_path)
    assert "\n" not in str(caught.value)
    kept = [int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()]
    step = int(str(caught.value).split("at step ")[1].split(";")[0])
    assert all(number < step for number in kept)
    assert f"the last good checkpoint is {tmp_path / 'checkpoints' / str(max(kept))}" in str(caught.value)


def test_non_finite_weights_are_never_saved(store, tmp_path, any_learning_rate):
    """A single step whose loss is finite and whose update is not."""
    config = small(batch_size=400, epochs=1, checkpoint_every=1, optimizer=OptimizerConfig(learning_rate=1e38))
    with pytest.raises(TrainingError, match="norm is (inf|nan) at step 1; no checkpoint is saved"):
        train(config, store, tmp_path)
    assert not (tmp_path / "bundle").exists()


def test_another_store_in_the_same_work_directory(store, tmp_path):
    train(small(epochs=1), store, tmp_path / "run")
    before = weights(tmp_path / "run")
    other = random_store(tmp_path / "store", rows=300)
    with pytest.raises(ConfigError, match=r"another store \(rows 500, now 300\)"):
        train(small(epochs=2), other, tmp_path / "run")
    assert_equal(weights(tmp_path / "run"), before)


def test_resumed_run_keeps_its_loader(store, tmp_path, monkeypatch, caplog):
    """Regardless of the free memory when it resumes, because the loaders' orders differ."""
    train(small(epochs=4), store, tmp_path / "unbroken")
    train(small(epochs=2), store, tmp_path / "run")
    monkeypatch.setattr(loaders, "free_memory", lambda device: 1.0)
    caplog.clear()
    train(small(epochs=4), store, tmp_path / "run")
    assert "resident" in caplog.text
    assert_equal(weights(tmp_path / "run"), weights(tmp_path / "unbroken"))
    caplog.clear()
    train(small(epochs=2), store, tmp_path / "other")
    assert "streamed" in caplog.text


def test_another_number_of_devices_is_reported(store, tmp_path, caplog):
    train(small(epochs=1), store, tmp_path)
    state = json.loads((tmp_path / "run_state.json").read_text())
    assert state["devices"] == 4
    (tmp_path / "run_state.json").write_text(json.dumps({**state, "devices": 8}))
    assert "started on" not in caplog.text
    train(small(epochs=2), store, tmp_path)
    shown = " ".join(caplog.text.split())
    assert "was started on 8 device(s) and resumes on 4: sums are taken in another order" in shown


def test_run_of_version_0_1_resumes(store, tmp_path):
    """Its config has the old names of all fields, and its state is in `rows.json`."""
    train(small(), store, tmp_path / "new")
    old = tmp_path / "old"
    train(small(epochs=2), store, old)
    config = json.loads((old / "config.json").read_text())
    translator, objective = config["translator"].pop("settings"), config["objective"].pop("settings")
    names = {"false_negative_threshold": "twin_cosine", "loss_chunks": "blocks", "remat": "recompute"}
    config["translator"] |= {**translator, "heads": 8, "start": "identity", "dropout": 0.0}
    config["objective"] |= {names.get(name, name): value for name, value in objective.items()} | {"margin_most": 1.0}
    config["data"]["holdout"] = config["data"].pop("validation_size")
    config["data"]["feed"] = config["data"].pop("loader")
    config["memory"] = {"captions": 0, "share": 0.5, "temperature": 0.01}
    config["augment"], config["pictures"] = {"noise": 1.0}, config.pop("images")
    config["groups"] = config.pop("steps_per_call") * 0
    (old / "config.json").write_text(json.dumps(config))
    state = json.loads((old / "run_state.json").read_text())
    (old / "run_state.json").rename(old / "rows.json")
    (old / "rows.json").write_text(json.dumps({**state, "feed": state.pop("loader")}))
    train(small(), store, old)
    assert_equal(weights(old), weights(tmp_path / "new"))


def test_damaged_line_of_metrics_is_reported(store, tmp_path, caplog):
    train(small(epochs=1), store, tmp_path)
    good = entries(tmp_path)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('garbage\n{"step": 10, "phase": "train"}\n')
    train(small(epochs=2), store, tmp_path)
    assert f"metrics.jsonl: line {len(good) + 1} cannot be read" in caplog.text
    assert entries(tmp_path)[: len(good)] == good and entries(tmp_path)[-1][0] == 20


@pytest.mark.slow
def test_early_stopping_and_the_best_bundle(store, tmp_path, caplog):
    """With a destructive learning rate the run ends early, and the bundle is that of the best validation."""
    config = small(
        epochs=100, patience=3, eval_every=5, optimizer=OptimizerConfig(learning_rate=0.3), select_by="recall@5"
    )
    train(config, store, tmp_path)
    scores = [line["recall@5"] for line in lines(tmp_path) if line["phase"] == "validation"]
    best = int(np.argmax(scores))
    assert len(scores) == best + 4 < 200
    assert load_bundle(tmp_path / "bundle").metrics["step"] == 5 * (best + 1)
    before = entries(tmp_path), weights(tmp_path)
    train(config, store, tmp_path)
    assert entries(tmp_path) == before[0]
    assert_equal(weights(tmp_path), before[1])
    config.patience = 5  # more patience: it goes on
    train(config, store, tmp_path)
    assert len(entries(tmp_path)) > len(before[0])


def test_lowest_median_rank_is_best(store, tmp_path):
    config = small(epochs=10, select_by="median_rank", optimizer=OptimizerConfig(learning_rate=3e-3))
    train(config, store, tmp_path)
    ranks = [line["median_rank"] for line in lines(tmp_path) if line["phase"] == "validation"]
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.metrics["median_rank"] == min(ranks) < max(ranks) and bundle.choice is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "of_products"), [("float32", "HIGHEST"), ("tensorfloat32", "HIGH"), ("bfloat16", "DEFAULT")]
)
def test_products_have_the_configs_precision(store, tmp_path, monkeypatch, precision, of_products):
    """Every product of a step, forward and backward, has that jax.lax.Precision."""
    traced = []

    def make_step(*arguments, **more):
        step = program.make_step_(*arguments, **more)

        def traced_step(*batch):
            traced.append(str(jax.make_jaxpr(step)(*batch)))
            return step(*batch)

        return traced_step

    monkeypatch.setattr(program, "make_step_", program.make_step, raising=False)
    monkeypatch.setattr(program, "make_step", make_step)
    train(small(epochs=1, precision=precision, objective=ObjectiveConfig(kind="cosine")), store, tmp_path / "run")
    precisions = re.findall(r"precision=\((\S+), (\S+)\)|precision=(None)", traced[0])
    assert len(precisions) >= 5 and set(precisions) == {(f"Precision.{of_products}", f"Precision.{of_products}", "")}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(batch_size=500), "only 400 of 500 captions remain for training"),
        (dict(batch_size=42), "must be a multiple of the 4 devices"),
        (dict(epochs=0), "config.epochs is 0"),
        (dict(data=DataConfig(validation_size=0)), "config.data.validation_size is 0"),
        (
            dict(data=DataConfig(validation_size=600)),
            "600 captions cannot be held out for validation, because there are only 500",
        ),
        (dict(data=DataConfig(loader="disk")), "known are auto, resident, streamed"),
        (dict(objective=ObjectiveConfig(kind="contrast")), "known are infonce, inverse_euclidean"),
        (dict(translator=TranslatorConfig(kind="transformer", settings={"heads": 0})), "settings.heads is 0"),
        (
            dict(translator=TranslatorConfig(kind="transformer", settings={"width": 10})),
            "width 10 must be a multiple of heads 8",
        ),
        (
            dict(
                translator=TranslatorConfig(kind="ridge", settings={"penalty": 0.0}),
                data=DataConfig(validation_size=480),
            ),
            "needs at least 25",
        ),
        (dict(translator=TranslatorConfig(kind="procrustes"), data=DataConfig(validation_size=499)), "at least 2: "),
        (dict(translator=TranslatorConfig(kind="mpl")), "known are mlp, linear, linear2, "),
        (dict(translator=TranslatorConfig(input_norm="l2")), "known are none, unit"),
        (dict(optimizer=OptimizerConfig(learning_rate=math.nan)), "config.optimizer.learning_rate is nan"),
        (dict(optimizer=OptimizerConfig(decay="step")), "known are constant, cosine, linear"),
        (dict(optimizer=OptimizerConfig(ema=1.0)), "config.optimizer.ema is 1.0; it must be below 1"),
        (dict(optimizer=OptimizerConfig(warmup=-1)), "config.optimizer.warmup is -1"),
        (dict(precision="half"), "config.precision is 'half'; known are float32, tensorfloat32, bfloat16"),
        (dict(select_by="recall"), "config.select_by is 'recall'; known are noisy_mrr, noisy_cosine, recall@1, "),
        (dict(patience=-1), "config.patience is -1"),
        (dict(translator=TranslatorConfig(settings={"heads": 8})), "translator.settings.heads is unknown; known"),
        (
            dict(objective=ObjectiveConfig(settings={"margin_growth": 1.0})),
            "settings.margin_growth is unknown; infonce",
        ),
    ],
)
def test_misuse_is_one_line_and_writes_nothing(store, tmp_path, fields, message):
    with pytest.raises(ConfigError) as caught:
        train(small(**fields), store, tmp_path / "run")
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()

"""Runs that resume in a work directory with damaged files, leftovers, other settings or an unusual path."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from c2c_jax.config import DataConfig, ImagesConfig, OptimizerConfig
from c2c_jax.data import images
from c2c_jax.data.images import CACHE, image_vectors
from c2c_jax.data.store import Store
from c2c_jax.errors import ConfigError, TrainingError
from c2c_jax.io.atomic import PREFIX
from c2c_jax.training.check import check, check_rows
from c2c_jax.training.checkpoints import FILES
from c2c_jax.training.log import RunLog, read_entries
from c2c_jax.training.train import train
from tests.fixtures.kills import contents, killed_at_every_step
from tests.fixtures.random_store import random_store
from tests.training.test_train import assert_equal, lines, small, weights


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return random_store(tmp_path_factory.mktemp("stores") / "store")


@pytest.fixture(scope="module")
def run(store, tmp_path_factory) -> Path:
    """A run of two epochs."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    train(small(epochs=2), store, workdir)
    return workdir


@pytest.fixture(scope="module")
def longer(store, tmp_path_factory) -> Path:
    """An uninterrupted run of three epochs."""
    workdir = tmp_path_factory.mktemp("longer") / "run"
    train(small(), store, workdir)
    return workdir


@pytest.mark.parametrize("name", ["config.json", "run_state.json"])
@pytest.mark.parametrize(
    "content", [b"", b"null", b"5", b"[]", b"{", b"[" * 100_000, b'{"seed": ' + b"1" * 5000 + b"}", b"\xff\xfe", b"{}"]
)
def test_damaged_files_of_a_run(run, store, tmp_path, name, content):
    workdir = Path(shutil.copytree(run, tmp_path / "run"))
    (workdir / name).write_bytes(content)
    with pytest.raises(ConfigError, match="pass another --workdir") as caught:
        train(small(), store, workdir)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("field", "value"),
    [("rows", "x"), ("devices", 0), ("devices", 10**30), ("loader", "disk"), ("loader", {}), ("dtype", 5)],
)
def test_fields_of_other_types_in_the_run_state(run, store, tmp_path, field, value):
    workdir = Path(shutil.copytree(run, tmp_path / "run"))
    fields = json.loads((workdir / "run_state.json").read_text())
    (workdir / "run_state.json").write_text(json.dumps({**fields, field: value}))
    with pytest.raises(ConfigError, match=rf"run_state\.json .*{field}.*pass another --workdir"):
        train(small(), store, workdir)


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 20, "phase": "train"}', '{"step": 20, "phase": "validation", "recall@1": 0.5}', "[]", "null",
        '{"step": "20", "phase": "train", "loss": 1.0}', '{"step": 20, "phase": [], "loss": 1.0}',
        '{"step": 20, "phase": "train", "loss": "x"}', '{"step": 20, "phase": "train", "loss": NaN}',
        '{"step": -1, "phase": "train", "loss": 1.0}', "[" * 100_000, '{"step": ' + "1" * 5000 + "}",
    ],
)  # fmt: skip
def test_damaged_lines_of_metrics(run, tmp_path, line, caplog):
    good = lines(run)
    whole = (run / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(f"{whole}{line}\n{whole}")
    assert read_entries(tmp_path / "metrics.jsonl") == good
    assert f"metrics.jsonl: line {len(good) + 1} cannot be read" in caplog.text
    caplog.clear()
    (tmp_path / "metrics.jsonl").write_text(f"{whole}{line}")  # its end is missing: it was being written
    assert read_entries(tmp_path / "metrics.jsonl") == good and not caplog.text
    (tmp_path / "metrics.jsonl").unlink()
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(TrainingError, match="found a named pipe"):
        read_entries(tmp_path / "metrics.jsonl")


def test_run_resumes_after_metrics_lost_a_field(run, longer, store, tmp_path):
    workdir = Path(shutil.copytree(run, tmp_path / "run"))
    whole = (workdir / "metrics.jsonl").read_text()
    (workdir / "metrics.jsonl").write_text(whole.replace('"loss"', '"lost"'))
    train(small(), store, workdir)
    assert_equal(weights(workdir), weights(longer))


def test_decaying_run_of_another_length_is_refused(store, tmp_path):
    config = small(epochs=1, optimizer=OptimizerConfig(decay="linear"))
    train(config, store, tmp_path)
    config.epochs = 2
    message = r"epochs 1, now 2.*optimizer\.decay linear.*pass --config\.epochs=1, or another --workdir"
    with pytest.raises(ConfigError, match=message):
        train(config, store, tmp_path)


def test_validation_of_all_captions_is_refused(store):
    for kind in ("mlp", "procrustes"):
        config = small(data=DataConfig(validation_size=500))
        config.translator.kind = kind
        message = (
            "only 0 of 500 captions remain for training after holding out 500: "
            "pass a smaller --config.data.validation_size"
        )
        with pytest.raises(ConfigError, match=message):
            check_rows(config, store)


@pytest.mark.parametrize("name", ["a b/é ✓", "x#1?", "%20", "x[0]*", "a\\b", "{y}:z", "c/../d"])
def test_unusual_work_directories(store, longer, tmp_path, name):
    (tmp_path / "c").mkdir()
    for epochs in (2, 3):
        train(small(epochs=epochs), store, tmp_path / name / "run")
    assert not list(tmp_path.rglob("checkpoints-damaged"))
    assert_equal(weights(tmp_path / name / "run"), weights(longer))


@pytest.mark.slow
def test_damaged_checkpoints_never_reach_orbax(run, longer, store, tmp_path, capfd, caplog):
    """Damages each file of the newest checkpoint in turn. Orbax would print tracebacks on stderr."""
    names = [path.relative_to(run / "checkpoints" / "20") for path in (run / "checkpoints" / "20").rglob("*")]
    names = [name for name in names if (run / "checkpoints" / "20" / name).is_file()]
    assert len(names) > 5
    for number, name in enumerate([*names[:: len(names) // 4], Path(FILES)]):
        workdir = Path(shutil.copytree(run, tmp_path / str(number)))
        file = workdir / "checkpoints" / "20" / name
        if number % 2:
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[:-1] + b"\x00")
        capfd.readouterr()
        caplog.clear()
        train(small(), store, workdir)
        assert "Traceback" not in capfd.readouterr().err
        assert "resuming at step 10" in caplog.text, (name, caplog.text)
        assert_equal(weights(workdir), weights(longer))


def test_leftovers_of_killed_runs_are_removed(run, store, tmp_path):
    workdir = Path(shutil.copytree(run, tmp_path / "run"))
    (workdir / "bundle").rename(tmp_path / "bundle")
    for folder in (workdir, workdir / "checkpoints" / "20"):
        (folder / f"{PREFIX}dead" / ".replaced").mkdir(parents=True)
    (tmp_path / "bundle").rename(workdir / f"{PREFIX}dead" / ".replaced" / "bundle")  # moved away, and then killed
    (workdir / "checkpoints" / "20.orbax-checkpoint-tmp").mkdir()
    (workdir / "checkpoints" / "5" / "state").mkdir(parents=True)  # whose deletion was interrupted
    before = contents(run)
    train(small(epochs=2), store, workdir)
    after = contents(workdir)
    assert after.keys() == before.keys() and all(after[name] == before[name] for name in before if name[-4:] != ".png")


def test_the_log_killed_at_every_step(store, run, tmp_path, monkeypatch):
    """Kills a start, a line of metrics and a better bundle: the next start finds complete lines and a complete
    bundle."""
    from c2c_jax.translator.bundle import load_bundle

    monkeypatch.setattr(os, "fsync", lambda file: None)
    bundle, workdir = load_bundle(run / "bundle"), tmp_path / "run"
    bundle.metrics.update({"recall@10": 1.0})
    before = lines(run)
    metrics = {name: np.full(1, 0.5) for name in ("loss", "grad_norm", "update_norm")}

    def do() -> None:
        with RunLog(workdir, check(small(epochs=2))) as log:
            log.start(19, 20, 400, "again")
            log.log_steps(metrics, 1, 0.1)
            log.log_validation(bundle)

    def restore() -> None:
        shutil.rmtree(workdir, ignore_errors=True)
        shutil.copytree(run, workdir)

    for _ in killed_at_every_step(do, restore):
        with RunLog(workdir, check(small(epochs=2))) as log:
            log.start(19, 20, 400, "again")
            assert log.history == [line for line in before if line["step"] <= 19]
            assert log.best is not None and load_bundle(workdir / "bundle").metrics["recall@10"] in (
                1.0, lines(run)[-1]["recall@10"],
            )  # fmt: skip
        assert not list(workdir.rglob(f"{PREFIX}*"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "not one", "other width", "not finite"])
def test_damaged_image_vectors_are_recomputed(tmp_path, damage):
    config = ImagesConfig(files="miniworld:64")
    expected = image_vectors(config, "miniworld/clip", tmp_path)
    kept = tmp_path / CACHE
    whole = kept.read_bytes()
    with np.load(kept) as arrays_file:
        arrays = dict(arrays_file)
    if damage == "cut":
        kept.write_bytes(whole[: len(whole) // 2])
    elif damage == "flipped":
        kept.write_bytes(whole[:3000] + b"\xff\x00\xff\x00" + whole[3004:])
    elif damage == "not one":
        kept.write_bytes(b"none")
    else:
        bad = arrays["source_PS"][:, 1:] if damage == "other width" else np.full_like(arrays["source_PS"], np.nan)
        np.savez(kept, key=arrays["key"], source_PS=bad)
    np.testing.assert_array_equal(image_vectors(config, "miniworld/clip", tmp_path), expected)
    assert images._cached_vectors(kept, str(arrays["key"]), *expected.shape) is not None


def test_a_run_with_fewer_steps_than_it_has_done(store, tmp_path):
    constant = OptimizerConfig(decay="constant")
    train(small(optimizer=constant), store, tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(ConfigError, match=r"trained for 30 steps, more than the 20 of this config: pass more"):
        train(small(optimizer=constant, epochs=2), store, tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before


def test_what_a_killed_process_left_is_removed(store, tmp_path, caplog):
    """A checkpoint without its checksums was not written to its end: the run resumes from the one before."""
    train(small(), store, tmp_path / "first")
    run = Path(shutil.copytree(tmp_path / "first", tmp_path / "run"))
    (run / "checkpoints" / "30" / "files.json").unlink()
    (run / "checkpoints" / ".c2c-tmp-abc").mkdir()
    caplog.clear()
    train(small(), store, run)
    shown = caplog.text
    removed = f"{run / 'checkpoints' / '30'} was not written completely: removed"
    assert "resuming at step 20" in shown and removed in shown
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"20", "30"}
    assert not (run / "checkpoints-damaged").exists()
    assert_equal(weights(run), weights(tmp_path / "first"))

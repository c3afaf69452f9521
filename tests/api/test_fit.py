"""`fit`, compared with `train` on a store, and with maps that are known."""

import dataclasses
import logging
import os

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import c2c_jax
from c2c_jax import recipes
from c2c_jax.config import Config, DataConfig, MemoryConfig, TranslatorConfig
from c2c_jax.data.arrays import store_of_arrays
from c2c_jax.errors import CheckpointError, ConfigError, ImageError, StoreError, TrainingError, VectorError
from c2c_jax.spaces.space_id import SpaceId
from c2c_jax.training.log import RunLog
from c2c_jax.training.train import train

RNG = np.random.default_rng(0)
SOURCE = RNG.normal(size=(500, 24)).astype(np.float16)
TARGET = np.tanh(SOURCE.astype(np.float32) @ RNG.normal(size=(24, 16)) / 4).astype(np.float16)
IMAGES = (RNG.normal(size=(80, 24)) + 0.5).astype(np.float32)
QUICK = {"steps": 20, "eval_every": 10, "batch_size": 64, "progress": False}


def test_result_is_that_of_train_on_a_store(tmp_path):
    config = dataclasses.replace(recipes.get("recommended"), steps=20, eval_every=10, batch_size=64, seed=3)
    config.data.validation_size = 50
    spaces = [SpaceId(name=name, dim=dim, fingerprint=name) for name, dim in (("clip", 24), ("clap", 16))]
    store = store_of_arrays(tmp_path / "store", SOURCE, TARGET, tuple(spaces))
    expected = c2c_jax.Translator(train(config, store, tmp_path / "run", IMAGES).bundle)
    found = c2c_jax.fit(SOURCE, TARGET, images=IMAGES, validation=50, seed=3, **QUICK)
    assert found.metrics == expected.metrics
    np.testing.assert_array_equal(found.translate(SOURCE), expected.translate(SOURCE))
    assert found.bundle.choice == expected.bundle.choice
    assert [entry["step"] for entry in found.history if entry["phase"] == "validation"] == [10, 20]


def test_a_rotation_is_recovered_exactly():
    rotation, _ = np.linalg.qr(RNG.normal(size=(24, 24)))
    target = SOURCE.astype(np.float64) @ rotation
    translator = c2c_jax.fit(SOURCE, target, "residual", translator={"kind": "procrustes", "input_norm": "unit"})
    expected = target / np.linalg.norm(target, axis=1, keepdims=True)
    np.testing.assert_allclose(translator.translate(SOURCE, kind="text"), expected, atol=2e-3)
    assert translator.metrics["recall@1"] == 1


@pytest.mark.parametrize(
    "convert",
    [
        lambda x, _: x.astype(np.float32), lambda x, _: x.astype(np.float64), lambda x, _: jnp.asarray(x, jnp.float32),
        lambda x, _: torch.tensor(x).float(), lambda x, path: mapped(x, path),
        lambda x, path: str(saved(x, path)),
    ],
)  # fmt: skip
def test_arrays_of_all_kinds_give_the_same_translator(convert, tmp_path):
    expected = c2c_jax.fit(SOURCE.astype(np.float32), TARGET.astype(np.float32), **QUICK)
    found = c2c_jax.fit(convert(SOURCE, tmp_path / "s"), convert(TARGET, tmp_path / "t"), **QUICK)
    np.testing.assert_array_equal(found.translate(SOURCE), expected.translate(SOURCE))


def saved(array, path):
    np.save(path.with_suffix(".npy"), array.astype(np.float32))
    return path.with_suffix(".npy")


def mapped(array, path):
    return np.load(saved(array, path), mmap_mode="r")


def test_nothing_is_written_or_printed(tmp_path, monkeypatch, capfd, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    logging.getLogger("c2c_jax").setLevel(logging.CRITICAL)
    try:
        c2c_jax.fit(SOURCE, TARGET, **QUICK)
    finally:
        logging.getLogger("c2c_jax").setLevel(logging.NOTSET)
    assert os.listdir(tmp_path) == []
    assert capfd.readouterr() == ("", "")


def test_progress_is_shown_on_stderr(capfd, monkeypatch):
    monkeypatch.setattr("c2c_jax.training.log.SECONDS_BETWEEN_LINES", 0.0)
    c2c_jax.fit(SOURCE, TARGET, **{**QUICK, "progress": True})
    out, err = capfd.readouterr()
    assert out == "" and "step 20 of 20" in err


def test_a_run_with_a_work_directory_resumes(tmp_path, monkeypatch):
    expected = c2c_jax.fit(SOURCE, TARGET, **QUICK)
    log_validation = RunLog.log_validation

    def fail_at_20(self, bundle):
        if self.step == 20:
            raise KeyboardInterrupt
        log_validation(self, bundle)

    monkeypatch.setattr(RunLog, "log_validation", fail_at_20)
    with pytest.raises(KeyboardInterrupt):
        c2c_jax.fit(SOURCE, TARGET, workdir=tmp_path / "run", checkpoint_every=10, **QUICK)
    monkeypatch.undo()
    found = c2c_jax.fit(SOURCE, TARGET, workdir=tmp_path / "run", checkpoint_every=10, **QUICK)
    np.testing.assert_array_equal(found.translate(SOURCE), expected.translate(SOURCE))
    assert found.metrics == expected.metrics == c2c_jax.load(tmp_path / "run").metrics
    assert found.path == tmp_path / "run"
    with pytest.raises(ConfigError, match="holds a run on another store .*pass another workdir"):
        c2c_jax.fit(SOURCE, TARGET[::-1], workdir=tmp_path / "run", checkpoint_every=10, **QUICK)


def test_fields_of_the_recipe_are_overridden():
    config = Config(
        batch_size=64, steps=3, translator=TranslatorConfig(settings={"width": 16}), data=DataConfig(validation_size=9)
    )
    translator = c2c_jax.fit(
        SOURCE, TARGET, config, validation=0.2, seed=7, progress=False,
        translator={"kind": "residual", "settings": {"depth": 2}}, memory={"size": 5}, **{"optimizer.ema": 0.5},
    )  # fmt: skip
    recipe = translator.bundle.recipe
    assert recipe["translator"]["kind"] == "residual" and recipe["translator"]["settings"]["depth"] == 2
    assert recipe["memory"] == dataclasses.asdict(MemoryConfig(size=5)) and recipe["optimizer"]["ema"] == 0.5
    assert recipe["seed"] == 7 and recipe["data"]["validation_size"] == 100 == translator.metrics["held_out"]
    assert recipe["data"]["captions"] == "arrays" and recipe["images"]["files"] == ""
    assert config.seed == 420 and config.translator.kind == "mlp"  # the caller's config is not changed


def test_settings_of_another_kind_are_dropped_from_the_recipe():
    translator = c2c_jax.fit(SOURCE, TARGET, translator={"kind": "ridge"}, adapt=False, progress=False)
    assert set(translator.bundle.recipe["translator"]["settings"]) == {"penalty"}


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"stesp": 3}, ConfigError, "'stesp' is neither an argument of fit nor a config field; did you mean steps"),
        ({"optimizer.lerning_rate": 3}, ConfigError, "did you mean optimizer.learning_rate"),
        ({"translator": {"settings": {"widht": 3}}}, ConfigError, "settings.widht is unknown"),
        ({"translator": {"kind": "nokind"}}, ConfigError, "nokind"),
        ({"batch_size": "x"}, ConfigError, "of type int"),
        ({"recipe": "norecipe"}, ConfigError, "norecipe"),
        ({"validation": 0}, ConfigError, "validation is 0"),
        ({"data.validation_size": 7}, ConfigError, "set by fit itself: pass validation="),
        ({"translator": "mlp"}, ConfigError, "must be a dictionary"),
        ({"workdir": __file__}, ConfigError, "workdir .* is a file"),
        ({"source": SOURCE[:1], "target": TARGET[:1]}, ConfigError, "source has 1 rows"),
        ({"images": "photos/"}, ConfigError, "image files need spaces="),
        ({"validation": 500}, ConfigError, "validation is 500"),
        ({"images": IMAGES[:3]}, ImageError, "images has 3"),
        ({"images": IMAGES[:, :5]}, VectorError, r"images must be an array \[N, 24\]"),
        ({"target": TARGET[:9]}, StoreError, "500 source and 9 target"),
        ({"target": TARGET[:, 0]}, VectorError, "target"),
        (
            {"source": np.where(np.arange(500)[:, None] == 7, np.nan, SOURCE)},
            StoreError,
            "source vector 7 is not finite",
        ),
        ({"target": np.where(np.arange(500)[:, None] == 7, 0, TARGET)}, StoreError, "target vector 7 is zero"),
        ({"target": np.ones((500, 16))}, StoreError, "same vector"),
        ({"spaces": ("miniworld/clip", "miniworld/clap")}, StoreError, "24 wide; those of miniworld/clip are 64"),
        ({"spaces": ("miniworld/x", "miniworld/clap")}, CheckpointError, "miniworld/x"),
        ({"log": {"tensorboard": True}}, ConfigError, "pass workdir"),
        ({"recipe": "mlp", "optimizer": {"learning_rate": 900.0}, "batch_size": 64}, TrainingError, "no checkpoint"),
    ],
)
def test_mistakes_are_one_line(arguments, error, words):
    with pytest.raises(error, match=words) as raised:
        c2c_jax.fit(**{"source": SOURCE, "target": TARGET, **QUICK, **arguments})
    assert "\n" not in str(raised.value) and "--" not in str(raised.value)


def test_spaces_are_recorded_and_found_again():
    source, target = RNG.normal(size=(2, 300, 64))
    named = c2c_jax.fit(source, target, spaces=("miniworld/clip", c2c_jax.load_space("miniworld/clap")), **QUICK)
    assert (named.source.name, named.target.name) == ("miniworld/clip", "miniworld/clap")
    assert named.encode_images("examples/dog.png").shape == (1, 64)
    unnamed = c2c_jax.fit(source, target, **QUICK)
    with pytest.raises(ConfigError, match="does not name its CLIP"):
        unnamed.encode_images("examples/dog.png")
    assert unnamed.encode_images("examples/dog.png", clip="miniworld/clip").shape == (1, 64)


def test_the_docstrings_example():
    translator = c2c_jax.fit(
        SOURCE, TARGET, adapt=False, translator={"kind": "mlp", "settings": {"width": 256}},
        **{**QUICK, "steps": np.int64(3), "optimizer.learning_rate": np.float32(1e-4)},
    )  # fmt: skip
    assert translator.bundle.spec.settings.width == 256

"""Candidates next to the trained translator: closed-form maps, blends, their selection, and runs on few captions."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from c2c_jax.cli.recipe import read_config
from c2c_jax.config import Config, DataConfig, MemoryConfig, OptimizerConfig, TranslatorConfig
from c2c_jax.data.arrays import store_of_arrays
from c2c_jax.data.store import Store
from c2c_jax.errors import ConfigError
from c2c_jax.spaces.space_id import SpaceId
from c2c_jax.training import closed_form
from c2c_jax.training.candidates import CandidateSelector, blend, closed_form_maps
from c2c_jax.training.check import check, fit_to_rows, run_length
from c2c_jax.training.closed_form import Moments, set_linear
from c2c_jax.training.memory import draw_memory
from c2c_jax.training.selection import perturb_captions
from c2c_jax.training.train import train
from c2c_jax.translator.bundle import load_bundle, read_choice
from c2c_jax.translator.kinds import TranslatorSpec, build_translator
from tests.training.test_train import assert_equal, lines, weights

S, E = 24, 16
SPEC = TranslatorSpec.from_json(dict(
    kind="residual", source_dim=S, target_dim=E, width=32, depth=3, heads=1, mlp_width=1, dropout=0.0, clamp=0.0,
    input_norm="centred",
))  # fmt: skip


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def rotated_store(path, rows: int, noise: float) -> tuple[Store, np.ndarray]:
    """A store whose targets are rotated sources with another mean, plus noise."""
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(S, S)))[0][:, :E]
    source = unit(rng.normal(size=(rows, S)))
    target = unit(source @ rotation) + noise * rng.normal(size=(rows, E))
    source, target = 3 * (source + 0.7 * np.eye(S)[0]), target - 0.5 * np.eye(E)[1]
    spaces = SpaceId(name="s", dim=S, fingerprint="s" * 64), SpaceId(name="t", dim=E, fingerprint="t" * 64)
    return store_of_arrays(path, source.astype(np.float32), target.astype(np.float32), spaces), rotation


def moments_of(x: np.ndarray, y: np.ndarray) -> Moments:
    x_S, y_E = x.mean(0), y.mean(0)
    return Moments(len(x), x_S, y_E, (x - x_S).T @ (x - x_S), (x - x_S).T @ (y - y_E))


def test_maps_by_hand():
    """Average lengths of 1; the rotation of three quarters of the directions by numpy's SVD; the mean of rotation and
    ridge of their outputs."""
    rng = np.random.default_rng(1)
    x = unit(rng.normal(size=(300, S)))
    y = unit(np.tanh(x @ rng.normal(size=(S, E))))
    outputs = {linear.name: linear(x) for linear in closed_form_maps(moments_of(x * np.sqrt(S), y), x)}
    assert list(outputs) == ["partial rotation", "ridge", "partial rotation and ridge"]
    for output in outputs.values():
        assert np.mean(np.linalg.norm(output, axis=1)) == pytest.approx(1, abs=1e-5)
    left, _, right = np.linalg.svd((x - x.mean(0)).T @ (y - y.mean(0)), full_matrices=False)
    np.testing.assert_allclose(
        unit(outputs["partial rotation"] - outputs["partial rotation"].mean(0)),
        unit((x - x.mean(0)) @ left[:, :12] @ right[:12]),
        atol=1e-4,
    )
    mean = outputs["partial rotation"] + outputs["ridge"]
    np.testing.assert_allclose(unit(outputs["partial rotation and ridge"]), unit(mean), atol=1e-5)


def test_a_blend_is_the_sum_of_outputs():
    rng = np.random.default_rng(2)
    translator = build_translator(SPEC, rngs=nnx.Rngs(0))
    translator.layers[-1].kernel = nnx.Param(jnp.asarray(rng.normal(size=(32, E)), jnp.float32))
    translator.layers[-1].bias = nnx.Param(jnp.asarray(rng.normal(size=E), jnp.float32))
    kernel, bias = rng.normal(size=(S, E)), rng.normal(size=E)
    x = unit(rng.normal(size=(7, S))).astype(np.float32)
    before = np.asarray(translator(jnp.asarray(x)))
    expected = 0.3 * before + np.sqrt(S) * x @ kernel + bias
    np.testing.assert_allclose(blend(translator, 0.3, kernel, bias)(jnp.asarray(x)), expected, atol=1e-4)
    np.testing.assert_array_equal(translator(jnp.asarray(x)), before)  # which goes on being trained
    other = build_translator(TranslatorSpec.from_json({**SPEC.to_json(), "kind": "mlp"}), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="kind mlp has no linear layer"):
        blend(other, 0.3, kernel, bias)


@pytest.mark.parametrize(("trained", "use_memory"), [(0.0, False), (0.25, True), (0.5, False), (1.0, True)])
def test_built_translator_has_the_selected_scores(tmp_path, trained, use_memory):
    """A candidate that is built as a single translator scores the same on the perturbed captions."""
    store, _ = rotated_store(tmp_path / "store", 400, 0.3)
    rows = np.arange(60), np.arange(60, 400)
    means = closed_form.caption_means(store, rows[0], "centred")
    memory = draw_memory(MemoryConfig(size=200, weight=0.5), store, rows[1], 0, means)
    judge = perturb_captions(store, rows, means, means, "centred", memory)
    maps = closed_form_maps(closed_form.moments(store, rows[0], SPEC, means), judge.inputs[False])
    selector = CandidateSelector(judge, maps, maps, memory_is_optional=True)
    translator = build_translator(SPEC, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(5)
    set_linear(translator, 3 * rng.normal(size=(S, E)), rng.normal(size=E))
    translator.layers[-1].kernel = nnx.Param(jnp.asarray(rng.normal(size=(32, E)), jnp.float32))
    choice, _, length = selector.select(lambda x: np.asarray(translator(jnp.asarray(x))))
    (linear,) = {name.split(" + ")[1].removesuffix(", memory") for name in choice.noisy_mrr if name.startswith("0.5")}
    name = {0.0: linear, 1.0: "trained"}.get(trained, f"{trained:g} trained + {linear}") + ", memory" * use_memory
    choice_to_build = dataclasses.replace(
        choice, trained=trained, linear=linear if trained < 1 else "", memory=use_memory
    )
    build = selector.build(choice_to_build, translator, length)
    scores = judge.scores(np.asarray(build(jnp.asarray(judge.inputs[use_memory]))))
    assert scores == pytest.approx(
        {"noisy_mrr": choice.noisy_mrr[name], "noisy_cosine": choice.noisy_cosine[name]}, abs=1e-5
    )


def test_patience_waits_for_the_trained_translator(tmp_path):
    """The rotation always wins, but the run goes on while the trained translator improves."""
    store, _ = rotated_store(tmp_path / "store", 600, 0.02)
    choice_to_build = config(
        patience=2, epochs=100, translator=TranslatorConfig(kind="residual", settings={"width": 32}),
        optimizer=OptimizerConfig(learning_rate=2e-2),
    )  # fmt: skip
    train(choice_to_build, store, tmp_path / "run")
    entries = [line for line in lines(tmp_path / "run") if line["phase"] == "validation"]
    trained = [entry["noisy_mrr_trained"] for entry in entries]
    best, (*_, last) = load_bundle(tmp_path / "run" / "bundle").metrics["step"], entries
    assert last["step"] < 800 and trained.index(max(trained)) == len(trained) - 3
    assert best < last["step"] - 10


def config(**fields) -> Config:
    return Config(
        **{
            "batch_size": 64, "epochs": 2, "eval_every": 5, "adapt": True,
            "translator": TranslatorConfig(kind="residual", settings={"width": 32}),
            "memory": MemoryConfig(size=200, weight=0.9),
            "data": DataConfig(validation_size=100), **fields,
        }
    )  # fmt: skip


def test_rotation_is_selected_where_the_spaces_are_rotated(tmp_path):
    """A translator that is hardly trained, a memory that takes all details away: neither is kept, and the bundle is the
    rotation, with captions for reference alone. What was weighed is in bundle, metrics and table."""
    store, rotation = rotated_store(tmp_path / "store", 600, 0.02)
    train(config(optimizer=OptimizerConfig(learning_rate=1e-9)), store, tmp_path / "run")
    bundle = load_bundle(tmp_path / "run" / "bundle")
    assert bundle.choice is not None and not bundle.choice.trained and not bundle.choice.memory
    assert bundle.choice.linear and bundle.spec.kind in ("procrustes", "ridge")
    assert bundle.memory is not None and bundle.memory.weight == 0 and len(bundle.memory.source) == 540
    assert bundle.metrics["noisy_mrr"] == max(bundle.choice.noisy_mrr.values()) > bundle.metrics["noisy_mrr_trained"]
    # The bundle's map is fitted to all 600 captions; 60 were held out when it was selected.
    every = dataclasses.replace(bundle.spec, kind="procrustes")
    source, target = (store.read_rows(side, np.arange(600)) for side in ("source", "target"))
    (expected,) = (
        linear
        for linear in closed_form_maps(
            closed_form.moments_of(source, target, every, bundle.means), np.eye(S, dtype=np.float32)
        )
        if linear.name == bundle.choice.linear
    )
    kernel, expected = np.asarray(bundle.translator.linear.kernel[...]), expected.kernel_SE
    np.testing.assert_allclose(kernel / np.linalg.norm(kernel), expected / np.linalg.norm(expected), atol=1e-5)
    x = unit(np.random.default_rng(3).normal(size=(50, S)))
    translated = unit(np.asarray(bundle.translator(jnp.asarray(x, jnp.float32))))
    assert np.mean(np.sum(translated * unit(x @ rotation), axis=1)) > 0.95
    (entry, *_) = (json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1:])
    assert entry["phase"] == "validation" and entry["noisy_mrr"] == bundle.metrics["noisy_mrr"]


def bent_store(path: Path):
    """A store whose targets are products of coordinates, which no linear map fits."""
    rng = np.random.default_rng(4)
    source = rng.normal(size=(1500, S)).astype(np.float32)
    hidden = unit(source) * np.sqrt(S)
    target = (hidden[:, :E] * hidden[:, [1]] ** 2).astype(np.float32)
    spaces = SpaceId(name="s", dim=S, fingerprint="s" * 64), SpaceId(name="t", dim=E, fingerprint="t" * 64)
    return store_of_arrays(path, source, target + 0.1, spaces)


def test_trained_translator_is_selected_where_no_linear_map_fits(tmp_path):
    train(config(epochs=60, eval_every=500), bent_store(tmp_path / "store"), tmp_path / "run")
    choice = load_bundle(tmp_path / "run" / "bundle").choice
    assert choice is not None and choice.trained > 0


def clustered_store(path: Path):
    """A store of captions in 40 tight groups. Source vectors separate groups; their rotation separates captions."""
    rng = np.random.default_rng(6)
    source = 4 * rng.normal(size=(40, S))[rng.integers(40, size=1200)] + rng.normal(size=(1200, S))
    rotation = np.linalg.qr(rng.normal(size=(S, S)))[0]
    target = (source @ rotation + 0.5 * rng.normal(size=(1200, S))).astype(np.float32)
    spaces = SpaceId(name="s", dim=S, fingerprint="s" * 64), SpaceId(name="t", dim=S, fingerprint="t" * 64)
    return store_of_arrays(path, source.astype(np.float32), target, spaces)


def test_select_by_changes_the_selection(tmp_path):
    """Single captions are retrieved best without the memory; perturbed captions come nearest to their own targets with
    it, since it leads to their group's middle. Both scores of the selected candidate are in the metrics."""
    store, outputs = clustered_store(tmp_path / "store"), {}
    for score in ("noisy_mrr", "noisy_cosine"):
        choice_to_build = config(select_by=score, optimizer=OptimizerConfig(learning_rate=1e-9))
        train(choice_to_build, store, tmp_path / score)
        bundle = load_bundle(tmp_path / score / "bundle")
        choice, metrics = bundle.choice, bundle.metrics
        assert choice.selected_by == score and choice.noisy_mrr.keys() == choice.noisy_cosine.keys()
        assert metrics[score] == max(choice.scores.values()) >= metrics[f"{score}_trained"]
        (name,) = (name for name, value in choice.scores.items() if value == metrics[score])
        outputs[score] = {other: getattr(choice, other)[name] for other in ("noisy_mrr", "noisy_cosine")}
        assert {other: metrics[other] for other in outputs[score]} == outputs[score]
        assert choice.memory == (score == "noisy_cosine")
    assert outputs["noisy_mrr"]["noisy_mrr"] > outputs["noisy_cosine"]["noisy_mrr"]
    assert outputs["noisy_mrr"]["noisy_cosine"] < outputs["noisy_cosine"]["noisy_cosine"]


@pytest.mark.parametrize("rows", [60, pytest.param(300, marks=pytest.mark.slow)])
def test_the_recommended_recipe_fits_few_captions(tmp_path, rows):
    """With only the store as input; a repeated run gives the same result."""
    store, _ = rotated_store(tmp_path / "store", rows, 0.02)
    choice_to_build = read_config(
        "configs/recommended.py", ["--config.steps=20", "--config.translator.settings.width=32"]
    )
    choice_to_build = dataclasses.replace(choice_to_build, epochs=1, source="", target="")
    train(choice_to_build, store, tmp_path / "run")
    before = lines(tmp_path / "run"), read_choice(tmp_path / "run" / "bundle")
    train(choice_to_build, store, tmp_path / "run")
    assert (lines(tmp_path / "run"), read_choice(tmp_path / "run" / "bundle")) == before
    metrics = load_bundle(tmp_path / "run" / "bundle").metrics
    assert metrics["held_out"] == rows // 10 and metrics["recall@1"] > 0.8 and metrics["noisy_mrr"] > 0.2


@pytest.mark.parametrize(
    "fields",
    [
        {},
        pytest.param({"data": DataConfig(validation_size=100, loader="streamed")}, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_selects_the_same(tmp_path, fields):
    """A run resumed half-way has the same choice, scores of all candidates and weights, bit for bit."""
    store, choice_to_build = bent_store(tmp_path / "store"), config(eval_every=22, **fields)
    train(choice_to_build, store, tmp_path / "whole")
    train(dataclasses.replace(choice_to_build, epochs=1), store, tmp_path / "stopped")
    train(choice_to_build, store, tmp_path / "stopped")
    full_scores, stopped = (read_choice(tmp_path / name / "bundle") for name in ("whole", "stopped"))
    assert full_scores == stopped and len(full_scores.noisy_mrr) == 12
    (*_, last), (*_, again) = lines(tmp_path / "whole"), lines(tmp_path / "stopped")
    assert last["phase"] == "validation" and last["step"] == 44 and again == last
    assert_equal(weights(tmp_path / "stopped"), weights(tmp_path / "whole"))


def test_sizes_adapt_to_the_number_of_captions():
    choice_to_build = config(batch_size=512, steps=100, data=DataConfig(validation_size=1000))
    few, many = fit_to_rows(choice_to_build, 300), fit_to_rows(choice_to_build, 3_000_000)
    assert (few.data.validation_size, few.batch_size) == (30, 256) and run_length(few, 270) == (100, 95)
    assert many == choice_to_build and run_length(many, 2_999_000) == (100, 1)
    by_epochs = dataclasses.replace(many, steps=0)
    assert run_length(by_epochs, 2_999_000) == (-(-2 * 2_999_000 // 512), 3)
    assert fit_to_rows(dataclasses.replace(choice_to_build, adapt=False), 300).batch_size == 512
    assert fit_to_rows(dataclasses.replace(choice_to_build, batch_size=510), 3_000_000).batch_size == 508  # 4 devices
    check(dataclasses.replace(choice_to_build, batch_size=510))


def test_configs_that_cannot_adapt():
    for translator in (TranslatorConfig(kind="mlp"), TranslatorConfig(kind="residual", input_norm="unit")):
        with pytest.raises(
            ConfigError, match="config.adapt needs a translator of kind residual with input_norm centred"
        ):
            check(config(translator=translator))

"""Closed-form maps against the solvers of scipy and numpy on the same rows, and as translator kinds in training."""

import dataclasses
import json

import numpy as np
import pytest
import scipy.linalg

from c2c_jax.config import Config, DataConfig, TranslatorConfig
from c2c_jax.data.arrays import store_of_arrays
from c2c_jax.spaces.space_id import SpaceId
from c2c_jax.training.check import build_spec
from c2c_jax.training.closed_form import caption_means, moments, procrustes, ridge
from c2c_jax.training.loader import split_rows
from c2c_jax.training.train import train
from c2c_jax.translator.bundle import load_bundle
from tests.fixtures.random_store import random_store


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return random_store(tmp_path_factory.mktemp("stores") / "store")


def config(kind: str, **fields) -> Config:
    return Config(data=DataConfig(validation_size=100), translator=TranslatorConfig(kind=kind, **fields))


@pytest.fixture(scope="module")
def rows(store):
    """Inputs and targets of the training rows as a translator of centred vectors takes them, float64, both less what
    is left of their means, and that."""
    _, training = split_rows(500, 100, Config().seed)
    x, y = (unit(store.read(side)[training].astype(np.float64)) for side in ("source", "target"))
    x, y = unit(x - x.mean(0)) * np.sqrt(24), unit(y - y.mean(0))
    return x - x.mean(0), y - y.mean(0), x.mean(0), y.mean(0)


def test_ridge_equals_augmented_least_squares(store, rows):
    """numpy's lstsq on the centred rows with √penalty times the identity below them."""
    x, y, x_mean, y_mean = rows
    held_out, _ = split_rows(500, 100, Config().seed)
    means = caption_means(store, held_out, "centred")
    kernel, bias = ridge(moments(store, held_out, build_spec(config("ridge"), 24, 16), means), 0.01)
    penalty = 0.01 * (x**2).sum() / 24
    stacked = np.concatenate([x, np.sqrt(penalty) * np.eye(24)]), np.concatenate([y, np.zeros((24, 16))])
    expected = np.linalg.lstsq(*stacked, rcond=None)[0]
    np.testing.assert_allclose(kernel, expected, atol=1e-7)  # the means are float32
    np.testing.assert_allclose(bias, y_mean - x_mean @ expected, atol=1e-7)


def test_procrustes_equals_scipy(tmp_path, store, rows):
    """With equal widths, which scipy's orthogonal_procrustes requires: 16 coordinates on both sides."""
    source, target = store.read("source")[:, :16], store.read("target")
    spaces = [dataclasses.replace(store.plan.source, dim=16), store.plan.target]
    square = store_of_arrays(tmp_path / "store", source, target, tuple(spaces), chunk_rows=128)
    held_out, training = split_rows(500, 100, Config().seed)
    kernel, bias = procrustes(moments(square, held_out, build_spec(config("procrustes", input_norm="none"), 16, 16)))
    x, y = source[training].astype(np.float64), unit(target[training].astype(np.float64))
    x_mean, y_mean = x.mean(0), y.mean(0)
    rotation, total = scipy.linalg.orthogonal_procrustes(x - x_mean, y - y_mean)
    expected = rotation * total / ((x - x_mean) ** 2).sum()
    np.testing.assert_allclose(kernel, expected, atol=1e-9)
    np.testing.assert_allclose(bias, y_mean - x_mean @ expected, atol=1e-9)


@pytest.mark.parametrize(("source_dim", "target_dim"), [(10, 6), (6, 10)])
def test_procrustes_finds_a_rotation_between_widths(tmp_path, source_dim, target_dim):
    rng = np.random.default_rng(0)
    wide, narrow = max(source_dim, target_dim), min(source_dim, target_dim)
    rotation = np.linalg.qr(rng.normal(size=(wide, wide)))[0][:, :narrow]
    inner = unit(rng.normal(size=(300, narrow)))
    source, target = (inner @ rotation.T, inner) if source_dim == wide else (inner, inner @ rotation.T)
    spaces = [SpaceId(name=n, dim=x.shape[1], fingerprint=n * 64) for n, x in (("s", source), ("t", target))]
    store = store_of_arrays(
        tmp_path / "store", source.astype(np.float32), target.astype(np.float32), tuple(spaces), chunk_rows=128
    )
    spec = build_spec(config("procrustes", input_norm="unit"), source_dim, target_dim)
    kernel, bias = procrustes(moments(store, np.arange(10), spec))
    np.testing.assert_allclose(np.sqrt(source_dim) * source @ kernel + bias, target, atol=2e-3)  # float16 rows


@pytest.mark.parametrize("input_norm", ["centred", "unit", "none"])
def test_means_of_captions(store, tmp_path, input_norm):
    """The means are those of the training rows, and a run's bundle stores them."""
    held_out, training = split_rows(500, 100, Config().seed)
    source, target = (store.read(side)[training].astype(np.float64) for side in ("source", "target"))
    x = source if input_norm == "none" else unit(source)
    means = caption_means(store, held_out, input_norm)
    np.testing.assert_allclose(means.source_text, x.mean(0), atol=1e-7)
    np.testing.assert_allclose(means.target_text, unit(target).mean(0), atol=1e-7)
    train(config("ridge", input_norm=input_norm), store, tmp_path)
    bundle_means = load_bundle(tmp_path / "bundle").means
    assert bundle_means.known == ["source_text", "target_text"] and bundle_means.used == []
    for name in bundle_means.known:
        np.testing.assert_array_equal(getattr(bundle_means, name), getattr(means, name))


@pytest.mark.parametrize("kind", ["ridge", "procrustes"])
def test_closed_form_kinds_need_no_step(store, tmp_path, kind):
    train(config(kind), store, tmp_path)
    metrics = load_bundle(tmp_path / "bundle").metrics
    assert metrics["step"] == 0
    assert metrics["recall@10"] > 0.4  # chance is 0.1: 100 held out
    entries = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in entries] == ["validation"]


def test_residual_translator_starts_as_the_procrustes_map(store, tmp_path):
    train(config("procrustes"), store, tmp_path / "procrustes")
    started = config("residual", settings={"init": "procrustes"})
    started.batch_size, started.epochs, started.optimizer.learning_rate = 400, 1, 1e-12
    train(started, store, tmp_path / "residual")
    rotated, residual = (load_bundle(tmp_path / kind / "bundle").metrics for kind in ("procrustes", "residual"))
    assert residual["mean_cosine"] == pytest.approx(rotated["mean_cosine"], abs=1e-6)

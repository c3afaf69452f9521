"""Methods against the functions that they are built from."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from c2c_jax.errors import BundleError
from c2c_jax.evaluation.methods import as_method, caption_methods, with_caption_means
from c2c_jax.evaluation.training_store import TrainingStore
from c2c_jax.spaces.models.layers import unit
from c2c_jax.translator.centring import ModalityMeans
from c2c_jax.translator.inference import translate
from tests.fixtures.random_store import random_store
from tests.torch.test_translator import random_bundle, spec

S, E = 24, 16


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return random_store(tmp_path_factory.mktemp("stores") / "store", 300)


@pytest.fixture(scope="module")
def bundle():
    rng = np.random.default_rng(7)
    widths = {"source_text": S, "source_image": S, "target_text": E, "target_audio": E}
    gap = ModalityMeans(**{name: 0.1 * rng.normal(size=width).astype(np.float32) for name, width in widths.items()})
    return random_bundle(spec("residual", S, E, input_norm="unit"), means=gap)


def training(store, held_out):
    return TrainingStore(store=store, held_out=held_out, untrained=held_out)


SOURCE = np.random.default_rng(1).normal(size=(11, S)).astype(np.float32)


def numpy_unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_translator_agrees_with_inference_for_any_block_size(bundle, monkeypatch):
    for at_once in (4096, 4):
        monkeypatch.setattr("c2c_jax.evaluation.methods.ROWS_AT_ONCE", at_once)
        method = as_method("translator", bundle.translator, bundle.means)
        np.testing.assert_allclose(method.of_images(SOURCE), translate(bundle, SOURCE), atol=1e-6)
        expected = np.asarray(unit(bundle.translator(jnp.asarray(SOURCE))))
        np.testing.assert_allclose(method.of_texts(SOURCE), expected, atol=1e-6)


def numpy_centred(x, mean):
    return numpy_unit(numpy_unit(x) - mean)


def numpy_uncentred(u, mean):
    along = u @ mean
    return mean + (np.sqrt(along**2 + 1 - mean @ mean) - along)[:, None] * u


def test_closed_forms_are_fitted_to_the_training_captions(bundle, store):
    """They map centred vectors, whatever input the bundle's own translator takes, and their outputs are un-centred."""
    held_out = np.arange(0, 300, 3)
    gap, found = caption_methods(training(store, held_out), bundle)
    methods = {method.name: method for method in found}
    kept = np.setdiff1d(np.arange(300), held_out)
    source, target = (store.read_rows(side, kept).astype(np.float64) for side in ("source", "target"))
    x = numpy_centred(source, gap.source_text) * np.sqrt(S)
    y = numpy_centred(target, gap.target_text)
    x0, y0 = x - x.mean(axis=0), y - y.mean(axis=0)
    left, _, right = np.linalg.svd(x0.T @ y0, full_matrices=False)
    rotation = left @ right
    rotation *= np.sum((x0 @ rotation) * y0) / np.sum((x0 @ rotation) ** 2)
    least_squares = np.linalg.solve(x0.T @ x0 + 1e-3 * np.trace(x0.T @ x0) / S * np.eye(S), x0.T @ y0)
    for name, kernel in {"procrustes": rotation, "ridge": least_squares}.items():

        def mapped(u, kernel=kernel):
            mapped = (u * np.sqrt(S) - x.mean(axis=0)) @ kernel + y.mean(axis=0)
            return numpy_uncentred(numpy_unit(mapped), gap.target_text)

        expected = mapped(numpy_centred(SOURCE, gap.source_text))
        np.testing.assert_allclose(methods[name].of_texts(SOURCE), expected, atol=1e-5)
        expected = mapped(numpy_centred(SOURCE, gap.source_image))
        np.testing.assert_allclose(methods[name].of_images(SOURCE), expected, atol=1e-5)


def test_nearest_captions_are_centred(bundle, store):
    """Captions, queries and results are each centred by the mean of their modality."""
    held_out = np.arange(100)
    gap, (method, *_) = caption_methods(training(store, held_out), bundle)
    source, target = (store.read_rows(side, np.arange(100, 300)).astype(np.float32) for side in ("source", "target"))
    source, target = numpy_centred(source, gap.source_text), numpy_centred(target, gap.target_text)
    for of, mean in ((method.of_texts, gap.source_text), (method.of_images, gap.source_image)):
        weights = scipy.special.softmax(numpy_centred(SOURCE, mean) @ source.T / 0.01, axis=1)
        expected = numpy_uncentred(numpy_unit(weights @ target), gap.target_text)
        np.testing.assert_allclose(of(SOURCE), expected, atol=1e-5)


def test_missing_means_are_computed_from_the_captions(bundle, store):
    held_out = np.arange(100)
    rows = {side: store.read_rows(side, np.arange(100, 300)) for side in ("source", "target")}
    vectors = {side: numpy_unit(x.astype(np.float32)) for side, x in rows.items()}
    own = dataclasses.replace(bundle.means, target_text=None, target_audio=None)
    gap = with_caption_means(own, training(store, held_out), "unit")
    np.testing.assert_allclose(gap.target_text, vectors["target"].mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(gap.source_image, bundle.means.source_image)
    raw = random_bundle(
        spec("residual", S, E, input_norm="none"), means=bundle.means
    )  # its means are not of unit vectors
    gap, _ = caption_methods(training(store, held_out), raw)
    np.testing.assert_allclose(gap.source_text, vectors["source"].mean(axis=0), atol=1e-6)
    assert gap.source_image is None


def test_mean_of_translated_pictures(bundle):
    """Translators of unit vectors shift them to the mean of sounds; those of centred vectors keep them at the mean
    of captions."""
    method = as_method("translator", bundle.translator, bundle.means)
    np.testing.assert_array_equal(method.image_mean_E, bundle.means.target_audio)
    centred = random_bundle(spec("residual", S, E, input_norm="centred"), means=bundle.means)
    assert as_method("translator", centred.translator, bundle.means).image_mean_E is None


def test_vectors_that_are_not_finite_are_refused(bundle):
    method = as_method("translator", bundle.translator, bundle.means)
    with pytest.raises(BundleError, match="translator returns vectors that are not finite"):
        method.of_texts(np.full_like(SOURCE, np.nan))

"""Methods against the functions that they are made of."""

import jax.numpy as jnp
import numpy as np
import pytest

from c2c_jax.errors import BundleError
from c2c_jax.evaluation import translation
from c2c_jax.evaluation.baselines import TrainingCaptions, nearest_caption
from c2c_jax.evaluation.translation import closed_form_methods, method_of, nearest_caption_method
from c2c_jax.inference import translate
from c2c_jax.models.gap import Gap
from c2c_jax.models.layers import unit
from c2c_jax.training.closed_form import moments, procrustes, ridge
from tests.torch.test_translator import random_bundle, spec
from tests.training.random_store import random_store

S, E = 24, 16


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return random_store(tmp_path_factory.mktemp("stores") / "store", 300)


@pytest.fixture(scope="module")
def bundle():
    rng = np.random.default_rng(7)
    widths = {"source_text": S, "source_image": S, "target_text": E, "target_audio": E}
    gap = Gap(**{name: 0.2 * rng.normal(size=width).astype(np.float32) for name, width in widths.items()})
    return random_bundle(spec("residual", S, E, input_norm="unit"), gap=gap)


SOURCE = np.random.default_rng(1).normal(size=(11, S)).astype(np.float32)


def numpy_unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_translator_is_inferences_and_blocks_do_not_matter(bundle, monkeypatch):
    for at_once in (4096, 4):
        monkeypatch.setattr(translation, "ROWS_AT_ONCE", at_once)
        method = method_of("translator", bundle.translator, bundle.gap)
        np.testing.assert_allclose(method.of_images(SOURCE), translate(bundle, SOURCE), atol=1e-6)
        expected = np.asarray(unit(bundle.translator(jnp.asarray(SOURCE))))
        np.testing.assert_allclose(method.of_texts(SOURCE), expected, atol=1e-6)


def test_closed_forms_are_those_of_the_training_captions(bundle, store):
    held_out = np.arange(0, 300, 3)
    methods = {method.name: method for method in closed_form_methods(store, held_out, bundle)}
    found = moments(store, held_out, bundle.spec)
    for name, (kernel, bias) in {"procrustes": procrustes(found), "ridge": ridge(found, 1e-3)}.items():
        expected = numpy_unit(numpy_unit(SOURCE) * np.sqrt(S) @ kernel + bias)
        np.testing.assert_allclose(methods[name].of_texts(SOURCE), expected, atol=1e-5)
        shifted = numpy_unit(SOURCE) - bundle.gap.source_image + bundle.gap.source_text
        shifted = numpy_unit(numpy_unit(shifted) * np.sqrt(S) @ kernel + bias)
        expected = numpy_unit(shifted - bundle.gap.target_text + bundle.gap.target_audio)
        np.testing.assert_allclose(methods[name].of_images(SOURCE), expected, atol=1e-5)


def test_nearest_caption_crosses_the_gap_as_the_translator_does(bundle, store):
    held_out = np.arange(100)
    method, memory = nearest_caption_method(store, held_out, bundle), TrainingCaptions(store, held_out)
    np.testing.assert_allclose(method.of_texts(SOURCE), nearest_caption(SOURCE, memory), atol=1e-6)
    shifted = numpy_unit(SOURCE) - bundle.gap.source_image + bundle.gap.source_text
    expected = nearest_caption(shifted.astype(np.float32), memory) - bundle.gap.target_text + bundle.gap.target_audio
    np.testing.assert_allclose(method.of_images(SOURCE), numpy_unit(expected), atol=1e-5)


def test_vectors_that_are_no_numbers_are_refused(bundle):
    method = method_of("translator", bundle.translator, bundle.gap)
    with pytest.raises(BundleError, match="translator makes vectors that are not finite"):
        method.of_texts(np.full_like(SOURCE, np.nan))

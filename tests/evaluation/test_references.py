"""Means and reference queries of centred scores: their sources, and the reasons given when they are missing."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from c2c_jax.evaluation.methods import Method, as_method
from c2c_jax.evaluation.scoring import ScoringMeans, scoring_means, stored_captions
from c2c_jax.evaluation.vectors import Captions
from c2c_jax.translator.centring import ModalityMeans
from c2c_jax.translator.memory import Memory
from tests.fixtures.evaluations import changed, pairs_of
from tests.torch.test_translator import random_bundle, spec

S, E = 24, 16


def vectors(seed, rows, dim):
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def centred(x, mean):
    return unit(unit(x) - mean)


GAP = ModalityMeans(source_text=0.1 * vectors(0, 1, S)[0], target_text=0.1 * vectors(1, 1, E)[0])


def bundle(input_norm="centred", stored=1500, means=GAP):
    memory = Memory(source=unit(vectors(2, stored, S)).astype(np.float16), weight=0.0, temperature=0.01)
    return random_bundle(spec("residual", S, E, input_norm=input_norm), means=means, memory=memory if stored else None)


def captions(count):
    return Captions(source_NS=vectors(3, count, S), target_NE=vectors(4, count, E) + 1)


def pairs(count, classes=0):
    prompts = vectors(7, classes, E) + 1 if classes else None
    return pairs_of(vectors(5, count, S), vectors(6, count, E), audio_prompts=prompts)


def said(missing):
    return {without_means.what: without_means.why for without_means in missing}


def test_stored_captions_reach_the_translator_unchanged():
    """1,024 of 1,500 centred inputs, evenly spaced, as unit vectors that centring restores."""
    without_means = bundle()
    found = stored_captions(without_means)
    rows = np.linspace(0, 1499, 1024).round().astype(int)
    stored = np.asarray(without_means.memory.source, np.float32)[rows]
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(centred(found, GAP.source_text), unit(stored), atol=1e-5)
    np.testing.assert_array_equal(stored_captions(bundle("unit")), stored)
    assert stored_captions(bundle("none")) is None  # their lengths are not stored
    assert stored_captions(bundle(stored=31)) is None and stored_captions(bundle(stored=0)) is None


def test_references_are_captions_translated_by_the_method():
    without_means = bundle()
    means, missing = scoring_means(without_means, captions(40), None, hubness=True)
    assert missing == []
    np.testing.assert_array_equal(means.text_E, GAP.target_text)
    method = as_method("translator", without_means.translator, without_means.means)
    stored = jnp.asarray(
        np.asarray(without_means.memory.source, np.float32)[np.linspace(0, 1499, 1024).round().astype(int)]
    )
    expected = unit(np.asarray(without_means.translator(stored)))  # un-centring and centring cancel
    centring = means.of_method(method)
    np.testing.assert_allclose(centred(centring.reference_RE, GAP.target_text), expected, atol=1e-4)
    np.testing.assert_array_equal(centring.image_E, GAP.target_text)
    assert means.is_stored


def test_without_stored_captions_the_evaluated_ones_are_references_for_images():
    given = captions(40)
    means, missing = scoring_means(bundle(stored=0), given, None, hubness=True)
    assert list(said(missing)) == ["captions: scores minus hubness"]
    method = Method(name="mine", of_texts=lambda x: 2 * x[:, :E], of_images=lambda x: x[:, :E])
    assert not means.is_stored
    np.testing.assert_array_equal(means.of_method(method).reference_RE, 2 * given.source_NS[:, :E])
    np.testing.assert_array_equal(means.reference_HE, given.target_NE)
    means, missing = scoring_means(bundle(stored=0), None, pairs(40), hubness=True)
    assert list(said(missing)) == ["scores minus hubness"] and means.reference_HE is None
    means, missing = scoring_means(bundle(), given, None, hubness=False)
    assert missing == [] and means.of_method(method).reference_RE is means.reference_HE is None


def test_the_mean_of_captions_if_the_bundle_has_none():
    """It is that of the evaluated captions, else of the prompts. Fewer than 32 give none."""
    without_means = bundle("unit", means=ModalityMeans())
    given, classes = captions(40), pairs(40, classes=33)
    means, _ = scoring_means(without_means, given, classes, hubness=True)
    np.testing.assert_allclose(means.text_E, unit(given.target_NE).mean(axis=0), atol=1e-6)
    means, _ = scoring_means(without_means, captions(31), classes, hubness=True)
    np.testing.assert_allclose(means.text_E, unit(classes.audio.prompts_CE).mean(axis=0), atol=1e-6)
    assert scoring_means(without_means, captions(31), pairs(40), hubness=True)[0] is None
    _, missing = scoring_means(without_means, None, pairs(40), hubness=True)
    assert said(missing) == {
        "centred scores": "the translator stores no mean of captions; pass 32 or more as --captions"
    }


def test_methods_have_their_own_image_mean():
    means = ScoringMeans(text_E=GAP.target_text)
    method = Method(name="mine", of_texts=lambda x: x, of_images=lambda x: x, image_mean_E=GAP.target_text + 1)
    np.testing.assert_array_equal(means.of_method(method).image_E, GAP.target_text + 1)
    around_texts = dataclasses.replace(method, image_mean_E=None)
    np.testing.assert_array_equal(means.of_method(around_texts).image_E, GAP.target_text)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (31, {"captions: centred scores": "31 captions", "images and sounds: centred scores": "31 sounds"}),
        (32, {}),
    ],
)
def test_few_candidates_are_not_centred(count, expected):
    _, missing = scoring_means(bundle(), captions(count), pairs(count), hubness=True)
    assert said(missing) == {what: f"{why}; centring needs 32 or more" for what, why in expected.items()}


def test_few_pictures_among_many_sounds():
    given = pairs(40)
    few = changed(
        given, images={name: getattr(given.images, name)[:5] for name in ("vectors_NE", "groups_N", "labels_N")}
    )
    _, missing = scoring_means(bundle(), None, few, hubness=True)
    assert said(missing) == {"sounds → images: centred scores": "5 images; centring needs 32 or more"}

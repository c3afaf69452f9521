"""Perturbed captions in the place of images: their cosines, the estimate of a pair's cosine, and the score by hand."""

import numpy as np
import pytest

from c2c_jax.data.arrays import store_of_arrays
from c2c_jax.data.store import Store
from c2c_jax.spaces.space import SpaceId
from c2c_jax.training.closed_form import caption_means
from c2c_jax.training.loader import split
from c2c_jax.training.selection import PAIR_COSINE, pair_cosine, surrogates
from c2c_jax.translator.centring import ModalityMeans
from c2c_jax.translator.memory import Memory

S, E, N, H = 48, 32, 900, 100


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def captions(rng: np.random.Generator, count: int) -> np.ndarray:
    """Of few directions, about a mean, as real ones are."""
    few = rng.normal(size=(count, S)) * np.arange(1, S + 1) ** -0.7
    return unit(few) + 0.8 * np.eye(S)[0]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    rng = np.random.default_rng(0)
    source = captions(rng, N).astype(np.float32)
    target = (source @ rng.normal(size=(S, E))).astype(np.float32)
    spaces = SpaceId(name="s", dim=S, fingerprint="s" * 64), SpaceId(name="t", dim=E, fingerprint="t" * 64)
    return store_of_arrays(tmp_path_factory.mktemp("s") / "store", source, target, spaces, dtype="float32")


@pytest.fixture(scope="module")
def rows(store):
    return split(N, H, 0)


def centred(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    return unit(unit(np.asarray(x, np.float64)) - mean)


def held_out(store: Store, rows, gap: ModalityMeans) -> tuple[np.ndarray, np.ndarray]:
    return (
        centred(store.read("source")[rows[0]], gap.source_text),
        centred(store.read("target")[rows[0]], gap.target_text),
    )


def test_cosines_to_their_captions(store, rows):
    """Without images the published cosine of CLIP and its root, by random noise."""
    gap = caption_means(store, rows[0], "centred")
    found = surrogates(store, rows, gap, gap, "centred")
    own = held_out(store, rows, gap)[0][found.own_Q]
    cosines = np.sum(own * found.inputs[False], axis=1)
    assert found.pair_cosine == PAIR_COSINE and len(cosines) == 2 * 10 * H
    np.testing.assert_allclose(cosines[: 10 * H], PAIR_COSINE, atol=1e-5)
    np.testing.assert_allclose(cosines[10 * H :], PAIR_COSINE**0.5, atol=1e-5)
    assert list(found.inputs) == [False]


def test_images_give_noise_and_cosine(store, rows):
    """Images in a plane: the third kind of noise lies in it, but for what is orthogonal to each caption."""
    gap = caption_means(store, rows[0], "centred")
    rng = np.random.default_rng(1)
    plane = np.linalg.qr(rng.normal(size=(S, 2)))[0]
    pictures = rng.normal(size=(200, 2)) @ plane.T
    found = surrogates(store, rows, gap, gap, "centred", image_PS=pictures.astype(np.float32))
    own = held_out(store, rows, gap)[0][found.own_Q][-10 * H :]
    of_images = found.inputs[False][-10 * H :]
    np.testing.assert_allclose(np.sum(own * of_images, axis=1), found.pair_cosine**0.5, atol=1e-5)
    noise = of_images - np.sum(own * of_images, axis=1, keepdims=True) * own
    basis = np.stack([np.linalg.qr(np.stack([x, *plane.T], axis=1))[0] for x in own])
    np.testing.assert_allclose(np.einsum("nsk,ns,ntk->nt", basis, noise, basis), noise, atol=1e-5)


@pytest.mark.parametrize("truth", [0.3, 0.5, 0.8])
def test_a_pairs_cosine_is_estimated_without_pairs(truth):
    """Of images that are captions nobody has, perturbed to a known cosine."""
    rng = np.random.default_rng(2)
    x = captions(rng, 2500)
    x = unit(x - x.mean(0)).astype(np.float32)
    training, held, unseen = x[:1500], x[1500:2000], x[2000:]
    noise, other = rng.normal(size=(2, 500, S)).astype(np.float32)
    away = unit(other - np.sum(other * unseen, axis=1, keepdims=True) * unseen)
    pictures = truth * unseen + np.sqrt(1 - truth**2) * away
    assert pair_cosine(pictures, held, training, noise) == pytest.approx(truth, abs=0.05)


def test_the_score_by_hand(store, rows):
    """1/rank among held-out and training targets, the mean over surrogates; equal scores count as before the own."""
    gap = caption_means(store, rows[0], "centred")
    found = surrogates(store, rows, gap, gap, "centred")
    weights = np.random.default_rng(3).normal(size=(S, E))
    output = (found.inputs[False] @ weights).astype(np.float32)
    gallery = np.concatenate([held_out(store, rows, gap)[1], centred(store.read("target")[rows[1]], gap.target_text)])
    scores = unit(output.astype(np.float64)) @ gallery.T
    own = np.tile(np.arange(H), 20)
    ranks = 1 + (scores > scores[np.arange(len(own)), own][:, None] + 1e-9).sum(axis=1)
    assert found.scores(output)["noisy_mrr"] == pytest.approx(np.mean(1 / ranks), abs=1e-6)
    cosines = scores[np.arange(len(own)), own]
    assert found.scores(output)["noisy_cosine"] == pytest.approx(np.mean(cosines), abs=1e-6)
    assert found.scores(np.full_like(output, np.nan)) == {"noisy_mrr": pytest.approx(1 / N), "noisy_cosine": -1}


def test_raw_translators_are_given_raw_vectors(store, rows):
    """Among images where their mean is known, and of a caption's length; their outputs are centred by captions'."""
    units, raw = (caption_means(store, rows[0], norm) for norm in ("unit", "none"))
    image = np.float32(0.5) * np.eye(S, dtype=np.float32)[5]
    with_images = ModalityMeans(source_text=units.source_text, source_image=image, target_text=units.target_text)
    found = surrogates(store, rows, raw, with_images, "none")
    lengths = np.linalg.norm(store.read("source")[rows[0]], axis=1)
    np.testing.assert_allclose(np.linalg.norm(found.inputs[False], axis=1), lengths.mean(), rtol=1e-4)
    own = held_out(store, rows, units)[0][found.own_Q]
    np.testing.assert_allclose(
        np.sum(own * centred(found.inputs[False], image), axis=1)[: 10 * H], PAIR_COSINE, atol=1e-4
    )
    targets = store.read("target")[rows[0]][found.own_Q]
    assert found.scores(3 * targets) == pytest.approx({"noisy_mrr": 1.0, "noisy_cosine": 1.0})


def test_behind_a_memory(store, rows):
    """With weight 1 and a sharp softmax every surrogate becomes its nearest remembered caption."""
    gap = caption_means(store, rows[0], "centred")
    kept = centred(store.read("source")[rows[1]], gap.source_text)[:50].astype(np.float16)
    found = surrogates(store, rows, gap, gap, "centred", Memory(source=kept, weight=1.0, temperature=1e-4))
    nearest = np.argmax(found.inputs[False] @ kept.astype(np.float64).T, axis=1)
    expected = unit(kept.astype(np.float64))[nearest]
    assert np.median(np.sum(found.inputs[True] * expected, axis=1)) > 0.9999  # but where two are as near
    idle = surrogates(store, rows, gap, gap, "centred", Memory(source=kept, weight=0.0, temperature=1e-4))
    assert list(idle.inputs) == [False]

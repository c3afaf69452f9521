"""Perturbed captions: their cosines, the estimated cosine of a pair, and their scores by hand."""

import numpy as np
import pytest

from c2c_jax.data.arrays import store_of_arrays
from c2c_jax.data.store import Store
from c2c_jax.spaces.space_id import SpaceId
from c2c_jax.training.closed_form import caption_means
from c2c_jax.training.loader import split_rows
from c2c_jax.training.selection import PAIR_COSINE, pair_cosine, perturb_captions
from c2c_jax.translator.centring import ModalityMeans
from c2c_jax.translator.memory import Memory

S, E, N, H = 48, 32, 900, 100


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def captions(rng: np.random.Generator, count: int) -> np.ndarray:
    """A store with vectors of few directions around a mean, like real ones."""
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
    return split_rows(N, H, 0)


def centred(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    return unit(unit(np.asarray(x, np.float64)) - mean)


def held_out(store: Store, rows, means: ModalityMeans) -> tuple[np.ndarray, np.ndarray]:
    return (
        centred(store.read("source")[rows[0]], means.source_text),
        centred(store.read("target")[rows[0]], means.target_text),
    )


def test_cosines_of_perturbed_captions_to_their_captions(store, rows):
    """Without images: random noise to PAIR_COSINE and to its square root."""
    means = caption_means(store, rows[0], "centred")
    result = perturb_captions(store, rows, means, means, "centred")
    own = held_out(store, rows, means)[0][result.own_Q]
    cosines = np.sum(own * result.inputs[False], axis=1)
    assert result.pair_cosine == PAIR_COSINE and len(cosines) == 2 * 10 * H
    np.testing.assert_allclose(cosines[: 10 * H], PAIR_COSINE, atol=1e-5)
    np.testing.assert_allclose(cosines[10 * H :], PAIR_COSINE**0.5, atol=1e-5)
    assert list(result.inputs) == [False]


def test_perturbing_with_images(store, rows):
    """Images in a plane: the third kind of noise lies in it, except for the part along each caption."""
    means = caption_means(store, rows[0], "centred")
    rng = np.random.default_rng(1)
    plane = np.linalg.qr(rng.normal(size=(S, 2)))[0]
    images = rng.normal(size=(200, 2)) @ plane.T
    result = perturb_captions(store, rows, means, means, "centred", image_PS=images.astype(np.float32))
    own = held_out(store, rows, means)[0][result.own_Q][-10 * H :]
    of_images = result.inputs[False][-10 * H :]
    np.testing.assert_allclose(np.sum(own * of_images, axis=1), result.pair_cosine**0.5, atol=1e-5)
    noise = of_images - np.sum(own * of_images, axis=1, keepdims=True) * own
    basis = np.stack([np.linalg.qr(np.stack([x, *plane.T], axis=1))[0] for x in own])
    np.testing.assert_allclose(np.einsum("nsk,ns,ntk->nt", basis, noise, basis), noise, atol=1e-5)


@pytest.mark.parametrize("truth", [0.3, 0.5, 0.8])
def test_pair_cosine_is_estimated_without_pairs(truth):
    """The images are unseen captions perturbed to a known cosine."""
    rng = np.random.default_rng(2)
    x = captions(rng, 2500)
    x = unit(x - x.mean(0)).astype(np.float32)
    training, held, unseen = x[:1500], x[1500:2000], x[2000:]
    noise, other = rng.normal(size=(2, 500, S)).astype(np.float32)
    away = unit(other - np.sum(other * unseen, axis=1, keepdims=True) * unseen)
    images = truth * unseen + np.sqrt(1 - truth**2) * away
    assert pair_cosine(images, held, training, noise) == pytest.approx(truth, abs=0.05)


def test_scores_by_hand(store, rows):
    """The mean of 1/rank among held-out and training targets. Ties count against the own target."""
    means = caption_means(store, rows[0], "centred")
    result = perturb_captions(store, rows, means, means, "centred")
    weights = np.random.default_rng(3).normal(size=(S, E))
    output = (result.inputs[False] @ weights).astype(np.float32)
    gallery = np.concatenate(
        [held_out(store, rows, means)[1], centred(store.read("target")[rows[1]], means.target_text)]
    )
    scores = unit(output.astype(np.float64)) @ gallery.T
    own = np.tile(np.arange(H), 20)
    ranks = 1 + (scores > scores[np.arange(len(own)), own][:, None] + 1e-9).sum(axis=1)
    assert result.scores(output)["noisy_mrr"] == pytest.approx(np.mean(1 / ranks), abs=1e-6)
    cosines = scores[np.arange(len(own)), own]
    assert result.scores(output)["noisy_cosine"] == pytest.approx(np.mean(cosines), abs=1e-6)
    assert result.scores(np.full_like(output, np.nan)) == {"noisy_mrr": pytest.approx(1 / N), "noisy_cosine": -1}


def test_translators_of_raw_vectors_get_raw_inputs(store, rows):
    """They lie around the mean of images, if known, and are as long as captions; outputs are centred by captions'
    mean."""
    units, raw = (caption_means(store, rows[0], norm) for norm in ("unit", "none"))
    image = np.float32(0.5) * np.eye(S, dtype=np.float32)[5]
    with_images = ModalityMeans(source_text=units.source_text, source_image=image, target_text=units.target_text)
    result = perturb_captions(store, rows, raw, with_images, "none")
    lengths = np.linalg.norm(store.read("source")[rows[0]], axis=1)
    np.testing.assert_allclose(np.linalg.norm(result.inputs[False], axis=1), lengths.mean(), rtol=1e-4)
    own = held_out(store, rows, units)[0][result.own_Q]
    np.testing.assert_allclose(
        np.sum(own * centred(result.inputs[False], image), axis=1)[: 10 * H], PAIR_COSINE, atol=1e-4
    )
    targets = store.read("target")[rows[0]][result.own_Q]
    assert result.scores(3 * targets) == pytest.approx({"noisy_mrr": 1.0, "noisy_cosine": 1.0})


def test_perturbed_captions_with_a_memory(store, rows):
    """With weight 1 and a sharp softmax every perturbed caption becomes its nearest caption of the memory."""
    means = caption_means(store, rows[0], "centred")
    kept = centred(store.read("source")[rows[1]], means.source_text)[:50].astype(np.float16)
    result = perturb_captions(store, rows, means, means, "centred", Memory(source=kept, weight=1.0, temperature=1e-4))
    nearest = np.argmax(result.inputs[False] @ kept.astype(np.float64).T, axis=1)
    expected = unit(kept.astype(np.float64))[nearest]
    assert np.median(np.sum(result.inputs[True] * expected, axis=1)) > 0.9999  # but where two are as near
    idle = perturb_captions(store, rows, means, means, "centred", Memory(source=kept, weight=0.0, temperature=1e-4))
    assert list(idle.inputs) == [False]

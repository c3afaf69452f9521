"""The nearest-caption baseline against plain numpy."""

import numpy as np
import pytest
import scipy.special

from c2c_jax.data.arrays import store_of_arrays
from c2c_jax.retrieval import nearest_captions
from c2c_jax.retrieval.nearest_captions import TrainingCaptions, nearest_caption
from c2c_jax.spaces.space_id import SpaceId


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def vectors(seed, rows, dim):
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


def test_nearest_caption_is_the_softmax_over_all_captions():
    query, source, target = 3 * vectors(0, 7, 12), 2 * vectors(1, 50, 12), 4 * vectors(2, 50, 5)
    weights = scipy.special.softmax(unit(query) @ unit(source).T / 0.01, axis=1)
    expected = unit(weights @ unit(target))
    for blocks in ([50], [20, 30], [1, 17, 32]):
        ends = np.cumsum(blocks)[:-1]
        captions = list(zip(np.split(source, ends), np.split(target, ends), strict=True))
        np.testing.assert_allclose(nearest_caption(query, captions), expected, atol=1e-5)


def test_temperature_by_hand():
    """Cosines 1 and 0 at temperature 0.5: weights e² and 1."""
    source, target = np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32)
    (actual,) = nearest_caption(np.array([[5.0, 0]], np.float32), [(source, target)], temperature=0.5)
    np.testing.assert_allclose(actual, unit(np.array([[np.e**2, 1]]))[0], atol=1e-6)


def test_result_does_not_depend_on_the_order_of_blocks():
    """A logit far above those of earlier blocks replaces them; one far below adds nothing."""
    near, far = np.array([[1.0, 0]], np.float32), np.array([[-1.0, 0]], np.float32)
    targets = np.eye(2, dtype=np.float32)
    for order in ((0, 1), (1, 0)):
        captions = [((near, far)[place], targets[place : place + 1]) for place in order]
        np.testing.assert_allclose(nearest_caption(near, captions), [[1, 0]], atol=1e-7)


def test_blocks_of_queries(monkeypatch):
    monkeypatch.setattr(nearest_captions, "QUERY_BLOCK", 3)
    query, captions = vectors(0, 8, 6), [(vectors(1, 20, 6), vectors(2, 20, 4))]
    parts = [nearest_caption(query[i : i + 1], captions) for i in range(8)]
    np.testing.assert_allclose(nearest_caption(query, captions), np.concatenate(parts), atol=1e-6)


def test_training_captions_leave_out_held_out_rows(tmp_path):
    source, target = vectors(0, 30, 6), vectors(1, 30, 4)
    spaces = tuple(SpaceId(name=n, dim=x.shape[1], fingerprint=n * 64) for n, x in (("s", source), ("t", target)))
    store = store_of_arrays(tmp_path / "store", source, target, spaces, chunk_rows=8, dtype="float32")
    held_out = np.array([0, 5, 17, *range(8, 16)])
    blocks = list(TrainingCaptions(store, held_out))
    training = np.setdiff1d(np.arange(30), held_out)
    np.testing.assert_array_equal(np.concatenate([s for s, _ in blocks]), source[training])
    np.testing.assert_array_equal(np.concatenate([t for _, t in blocks]), target[training])


def test_no_caption_is_an_error():
    with pytest.raises(ValueError, match="no caption"):
        nearest_caption(vectors(0, 2, 3), [])

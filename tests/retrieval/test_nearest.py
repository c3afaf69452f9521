"""Retrieval in blocks against plain loops over all cosines."""

import numpy as np
import pytest

from c2c_jax.retrieval import nearest
from c2c_jax.retrieval.nearest import label_ranks, paired_ranks, top_k, top_k_of_blocks


@pytest.fixture
def small_blocks(monkeypatch):
    """Sets small sizes, for several blocks of several tiles with partial last ones."""
    monkeypatch.setattr(nearest, "BLOCK", 50)
    monkeypatch.setattr(nearest, "TILE", 8)
    monkeypatch.setattr(nearest, "MAX_SORTED", 1500)


def pair(count: int, noise: float = 1.5, dim: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Returns queries similar to their paired candidates, which have various lengths."""
    rng = np.random.default_rng(0)
    candidates = rng.normal(size=(count, dim)) * rng.uniform(0.1, 10, (count, 1))
    unit = candidates / np.linalg.norm(candidates, axis=1, keepdims=True)
    return (unit + noise * rng.normal(size=unit.shape) / dim**0.5).astype(np.float32), candidates.astype(np.float32)


def cosines(query: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Computes cosines in double precision, in plain loops."""
    actual = np.empty((len(query), len(candidates)))
    for q, query_row in enumerate(query.astype(np.float64)):
        for c, candidate in enumerate(candidates.astype(np.float64)):
            actual[q, c] = query_row @ candidate / np.sqrt((query_row @ query_row) * (candidate @ candidate))
    return actual


def penalties(count: int) -> np.ndarray:
    """Returns penalties of both signs, as large as differences between cosines."""
    return np.random.default_rng(2).uniform(-0.5, 0.5, count).astype(np.float32)


def ranks_of(score: np.ndarray) -> list[int]:
    return [1 + sum(other > score[i, i] for other in score[i]) for i in range(len(score))]


def test_ranks_with_and_without_csls(small_blocks):
    query, candidates = pair(100)
    cosine = cosines(query, candidates)
    np.testing.assert_array_equal(paired_ranks(query, candidates, tile=7), ranks_of(cosine))
    np.testing.assert_array_equal(paired_ranks(candidates, query, tile=7), ranks_of(cosine.T))
    corrected = np.empty_like(cosine)
    for q in range(100):
        for c in range(100):
            r_T, r_S = sorted(cosine[q])[-10:], sorted(cosine[:, c])[-10:]
            corrected[q, c] = 2 * cosine[q, c] - sum(r_T) / 10 - sum(r_S) / 10
    actual = paired_ranks(query, candidates, csls=10, tile=7)
    np.testing.assert_array_equal(actual, ranks_of(corrected))
    assert np.mean(actual != ranks_of(cosine)) > 0.1


def test_csls_removes_hubs():
    """Candidate 0 is the nearest of all queries. By hand, its r is 0.75 and that of candidate 1 a third of 0.66: query
    1 scores 2 · 0.75 − 0.75 for candidate 0 and 2 · 0.66 − 0.22 for candidate 1."""
    query = np.array([[0.9, 0.8, 0], [0.9, 0, 0.8], [0.9, -0.8, 0]], np.float32)
    candidates = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], np.float32)
    assert paired_ranks(query, candidates).tolist() == [1, 2, 2]
    assert paired_ranks(query, candidates, csls=3).tolist() == [1, 1, 1]


def test_csls_uses_at_most_all_candidates():
    query, candidates = pair(6)
    np.testing.assert_array_equal(paired_ranks(query, candidates, csls=10), paired_ranks(query, candidates, csls=6))


def test_ties_count_against_the_paired_candidate(small_blocks):
    query, candidates = pair(100, noise=0)
    candidates[::3] = candidates[0]
    assert (paired_ranks(candidates, candidates, tile=7)[::3] == 34).all()
    assert (paired_ranks(candidates, candidates, csls=10, tile=7)[::3] == 34).all()
    assert (paired_ranks(np.full_like(query, np.nan), candidates, tile=7) == 100).all()


@pytest.mark.parametrize("k", [1, 20])
def test_top_k(small_blocks, k):
    query, candidates = pair(100)
    cosine = cosines(query[:37], candidates)
    order = np.argsort(-cosine, axis=1)[:, :k]
    actual, index = top_k(query[:37], candidates, k)
    np.testing.assert_array_equal(index, order)
    np.testing.assert_allclose(actual, np.take_along_axis(cosine, order, axis=1), atol=1e-6)


def test_equal_candidates_keep_their_order(small_blocks):
    query, candidates = pair(90)
    candidates[20:] = candidates[np.arange(70) % 20]
    _, index = top_k(query[:5], candidates, 12)
    for row, places in zip(index, np.argsort(-cosines(query[:5], candidates[:20]), axis=1), strict=True):
        copies = [[place, *range(20 + place, 90, 20)] for place in places]
        assert row.tolist() == [place for group in copies for place in group][:12]


def test_penalties_much_larger_than_cosines(small_blocks):
    """Cosines are lost in rounding; equal scores keep the order of candidates."""
    query, candidates = pair(100)
    penalty = np.repeat(np.arange(10, dtype=np.float32), 10) * 2**30
    score, index = top_k(query[:37], candidates, 12, penalty)
    np.testing.assert_array_equal(score[:, 10:], np.full((37, 2), -(2.0**30)))
    assert (np.sort(index[:, :10], axis=1) == np.arange(10)).all() and (index[:, 10:] == [10, 11]).all()


def test_top_k_of_blocks_of_various_sizes(small_blocks):
    query, candidates = pair(100)
    penalty, ends = penalties(100), [1, 30, 97]
    blocks = zip(np.split(candidates, ends), np.split(penalty, ends), strict=True)
    for actual, expected in zip(top_k_of_blocks(query, blocks, 20), top_k(query, candidates, 20, penalty), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-6)


@pytest.mark.parametrize("tile", [7, 1024])
def test_ranks_less_a_penalty(small_blocks, tile):
    query, candidates = pair(100)
    cosine, penalty = cosines(query, candidates), penalties(100)
    actual = paired_ranks(query, candidates, penalty_N=penalty, tile=tile)
    np.testing.assert_array_equal(actual, ranks_of(cosine - penalty))
    assert np.mean(actual != ranks_of(cosine)) > 0.5
    r_T = np.sort(cosine, axis=0)[-10:].mean(axis=0)
    corrected = paired_ranks(query, candidates, csls=10, penalty_N=penalty, tile=tile)
    np.testing.assert_array_equal(corrected, ranks_of(2 * (cosine - penalty) - r_T))


@pytest.mark.parametrize("k", [1, 20, 100])
def test_top_k_less_a_penalty(small_blocks, k):
    query, candidates = pair(100)
    score = cosines(query[:37], candidates) - penalties(100)
    order = np.argsort(-score, axis=1)[:, :k]
    actual, index = top_k(query[:37], candidates, k, penalties(100))
    np.testing.assert_array_equal(index, order)
    np.testing.assert_allclose(actual, np.take_along_axis(score, order, axis=1), atol=1e-6)


def test_equal_candidates_with_equal_penalties(small_blocks):
    query, candidates = pair(90)
    candidates[20:] = candidates[np.arange(70) % 20]
    penalty = penalties(20)[np.arange(90) % 20]
    _, index = top_k(query[:5], candidates, 3, penalty)
    best = np.argmax(cosines(query[:5], candidates[:20]) - penalty[:20], axis=1)
    assert index.tolist() == [[n, 20 + n, 40 + n] for n in best]
    candidates[::3], penalty[::3] = candidates[0], penalties(20).min()
    ranks = paired_ranks(candidates, candidates, penalty_N=penalty, tile=7)
    assert (ranks[::3] == 30).all()


def test_half_precision_from_a_file(tmp_path, small_blocks):
    query, candidates = pair(100)
    for name, vectors in (("query", query), ("candidates", candidates)):
        np.save(tmp_path / f"{name}.npy", vectors.astype(np.float16))
    mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("query", "candidates")]
    rounded = [vectors.astype(np.float16).astype(np.float32) for vectors in (query, candidates)]
    np.testing.assert_array_equal(paired_ranks(*mapped), paired_ranks(*rounded))
    np.testing.assert_array_equal(top_k(*mapped, 5)[1], top_k(*rounded, 5)[1])


@pytest.mark.parametrize("exclude_self", [False, True])
def test_label_ranks(small_blocks, exclude_self):
    rng = np.random.default_rng(1)
    query, candidates = pair(60)
    labels = rng.integers(0, 7, 60)
    labels[5] = 99  # a class of one
    query_labels = np.where(np.arange(60) == 8, -1, labels)  # a query without positives
    candidates[30:40] = candidates[40:50]  # equal to others of other classes
    cosine = cosines(query, candidates)
    for i in range(30, 40):
        cosine[:, i] = cosine[:, i + 10]
    rank, precision = label_ranks(query, candidates, query_labels, labels, exclude_self=exclude_self)
    for q in range(60):
        included = [c for c in range(60) if c != q or not exclude_self]
        order = sorted(included, key=lambda c, q=q: (-cosine[q, c], labels[c] == query_labels[q]))
        hits = [place for place, c in enumerate(order, start=1) if labels[c] == query_labels[q]]
        if hits:
            assert rank[q] == hits[0]
            assert precision[q] == pytest.approx(np.mean([(n + 1) / place for n, place in enumerate(hits)]))
        else:
            assert rank[q] == 61 and np.isnan(precision[q])
    assert np.isnan(precision).sum() == (2 if exclude_self else 1)


def test_label_ranks_less_a_penalty(small_blocks):
    query, candidates = pair(60)
    labels, penalty = np.random.default_rng(1).integers(0, 7, 60), penalties(60)
    score = cosines(query, candidates) - penalty
    rank, precision = label_ranks(query, candidates, labels, labels, penalty_N=penalty)
    for q in range(60):
        hits = [place for place, c in enumerate(np.argsort(-score[q]), start=1) if labels[c] == labels[q]]
        assert rank[q] == hits[0]
        assert precision[q] == pytest.approx(np.mean([(n + 1) / place for n, place in enumerate(hits)]))


def test_average_precision_by_hand():
    """Positives at ranks 1 and 3 of 4: (1/1 + 2/3) / 2. If all candidates are equal, both positives are last."""
    candidates = np.array([[1, 0], [0.9, 0.1], [0.5, 0.5], [0, 1]], np.float32)
    rank, precision = label_ranks(candidates[:1], candidates, np.array([4]), np.array([4, 0, 4, 0]))
    assert rank.tolist() == [1] and precision[0] == pytest.approx(5 / 6)
    rank, precision = label_ranks(candidates[:1], candidates[[0] * 4], np.array([4]), np.array([4, 0, 4, 0]))
    assert rank.tolist() == [3] and precision[0] == pytest.approx((1 / 3 + 2 / 4) / 2)
    rank, precision = label_ranks(candidates[:1] * np.nan, candidates, np.array([4]), np.array([4, 0, 4, 0]))
    assert rank.tolist() == [3] and precision[0] == pytest.approx((1 / 3 + 2 / 4) / 2)

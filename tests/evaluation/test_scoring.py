"""Plain and centred scores against numpy, and which of them exist."""

import numpy as np
import pytest

from c2c_jax.evaluation.scoring import Centring, Comparison, centred_rows, modality_mean

E = 6


def vectors(seed, rows, dim=E):
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def centred(x, mean):
    return unit(unit(x) - mean)


QUERIES, CANDIDATES, REFERENCES = vectors(0, 5) + 1, 3 * vectors(1, 40) - 1, unit(vectors(2, 50))
MEAN = unit(vectors(3, 200) + 1).mean(axis=0)


def test_three_scorings_by_hand():
    centring = Centring(text_E=-MEAN, reference_RE=REFERENCES)
    plain, by_centred, less_hubness = centring.compare(QUERIES, CANDIDATES, MEAN, hubness=True)
    assert [comparison.prefix for comparison in (plain, by_centred, less_hubness)] == ["", "centred_", "nnn_"]
    np.testing.assert_array_equal(plain.query_QE, QUERIES)
    np.testing.assert_array_equal(plain.candidate_NE, CANDIDATES)
    assert plain.penalty_N is None and by_centred.penalty_N is None
    expected = centred(CANDIDATES, unit(CANDIDATES).mean(axis=0))
    for comparison in (by_centred, less_hubness):
        np.testing.assert_allclose(comparison.query_QE, centred(QUERIES, MEAN), atol=1e-6)
        np.testing.assert_allclose(comparison.candidate_NE, expected, atol=1e-6)
    penalty = 0.5 * np.sort(expected @ centred(REFERENCES, -MEAN).T, axis=1)[:, -2:].mean(axis=1)
    np.testing.assert_allclose(less_hubness.penalty_N, penalty, atol=1e-6)


def test_fewer_scorings_without_means_or_references():
    centring = Centring(text_E=MEAN, reference_RE=REFERENCES)

    def prefixes(*arguments, **options):
        return [comparison.prefix for comparison in centring.compare(*arguments, **options)]

    assert prefixes(QUERIES, CANDIDATES, None, hubness=True) == [""]
    assert prefixes(QUERIES, CANDIDATES, MEAN) == ["", "centred_"]
    few = CANDIDATES[:31]
    assert prefixes(QUERIES, few, MEAN, hubness=True) == [""]
    _, by_centred = centring.compare(QUERIES, few, MEAN, MEAN)
    np.testing.assert_allclose(by_centred.candidate_NE, centred(few, MEAN), atol=1e-6)
    _, by_centred = centring.compare(QUERIES, CANDIDATES, MEAN, MEAN)  # enough for a mean of their own
    np.testing.assert_allclose(by_centred.candidate_NE, centred(CANDIDATES, modality_mean(CANDIDATES)), atol=1e-6)
    assert Centring().modality_mean(CANDIDATES) is None and centring.modality_mean(CANDIDATES) is not None
    assert len(Centring(text_E=MEAN).compare(QUERIES, CANDIDATES, MEAN, hubness=True)) == 2


def test_means_of_unit_vectors_are_computed_in_blocks(monkeypatch):
    monkeypatch.setattr("c2c_jax.evaluation.scoring.ROWS_AT_ONCE", 7)
    np.testing.assert_allclose(modality_mean(CANDIDATES), unit(CANDIDATES).mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(centred_rows(CANDIDATES, MEAN), centred(CANDIDATES, MEAN), atol=1e-6)
    assert modality_mean(CANDIDATES[:31]) is None and modality_mean(None) is None


@pytest.mark.parametrize("penalty", [None, np.arange(40, dtype=np.float32)])
def test_selection_of_queries_and_candidates(penalty):
    whole = Comparison(prefix="nnn_", query_QE=QUERIES, candidate_NE=CANDIDATES, penalty_N=penalty)
    is_query, is_candidate = np.arange(5) > 2, np.arange(40) % 2 == 0
    part = whole.select(is_query, is_candidate)
    np.testing.assert_array_equal(part.query_QE, QUERIES[3:])
    np.testing.assert_array_equal(part.candidate_NE, CANDIDATES[::2])
    if penalty is None:
        assert part.penalty_N is None
    else:
        np.testing.assert_array_equal(part.penalty_N, penalty[::2])
    assert part.prefix == "nnn_"

"""Scores of generated sounds by hand."""

import numpy as np
import pytest

from c2c_jax.evaluation.bootstrap import Bootstrap
from c2c_jax.evaluation.generated import clap_scores, diversities, inception_score, label_shares


def test_clap_score_is_the_cosine():
    sounds, wanted = np.array([[3.0, 4], [1, 0]]), np.array([[5.0, 0], [-2, 0]])
    np.testing.assert_allclose(clap_scores(sounds, wanted), [0.6, -1])


def test_label_shares_by_hand():
    """Cosines 0.6 and 0.8 at temperature 0.1: logits 6 and 8."""
    shares = label_shares(np.array([[3.0, 4]]), np.array([[2.0, 0], [0, 7]]), temperature=0.1)
    np.testing.assert_allclose(shares, [[1 / (1 + np.e**2), np.e**2 / (1 + np.e**2)]])


def test_inception_score_by_hand():
    none = Bootstrap(resamples=0)
    assert inception_score(np.eye(4), none)[0] == pytest.approx(4)  # clear, and evenly over four labels
    assert inception_score(np.full((5, 4), 0.25), none)[0] == pytest.approx(1)  # none is clear
    assert inception_score(np.tile(np.eye(4)[:1], (5, 1)), none)[0] == pytest.approx(1)  # all alike
    shares = np.array([[0.9, 0.1], [0.2, 0.8]])
    mean = shares.mean(0)
    expected = np.exp(np.mean([np.sum(row * np.log(row / mean)) for row in shares]))
    score, (low, high) = inception_score(shares, Bootstrap())
    assert score == pytest.approx(expected)
    assert low == pytest.approx(1) and high == pytest.approx(expected)  # one sound twice, or both


def test_diversity_by_hand():
    """Cosines 0, 0 and −1 of three candidates; of two that are alike."""
    three = np.array([[1.0, 0], [0, 2], [0, -1]])
    np.testing.assert_allclose(diversities([three, np.ones((2, 2))]), [(1 + 1 + 2) / 3, 0], atol=1e-12)

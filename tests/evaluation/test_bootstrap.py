"""Bootstrap intervals against the theory of means and proportions."""

import numpy as np
import pytest
from scipy.stats import binom

from c2c_jax.evaluation.bootstrap import DRAWN_AT_ONCE, Bootstrap, counts


def test_mean_interval_is_that_of_the_normal_approximation():
    values = np.random.default_rng(0).normal(3, 2, 2000)
    low, high = Bootstrap(resamples=2000).of_mean(values)
    error = values.std() / np.sqrt(2000)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_interval_of_a_fraction_is_binomial():
    """Against scipy's exact quantiles of 300 draws with probability 0.2."""
    low, high = Bootstrap(resamples=4000, seed=1).of_mean((np.arange(300) % 5 == 0).astype(float))
    expected = binom(300, 0.2).ppf([0.025, 0.975]) / 300
    np.testing.assert_allclose([low, high], expected, atol=1.01 / 300)


def test_median_interval_by_hand():
    """The median of a resample of two queries is either of them or, half of the time, their mean."""
    assert Bootstrap(resamples=200).of_median(np.array([1.0, 3.0])) == (1, 3)
    assert Bootstrap(resamples=200).of_median(np.array([2.0, 2.0, 2.0])) == (2, 2)


def test_draws_depend_only_on_seed_and_number():
    values = np.random.default_rng(0).normal(size=50)
    assert Bootstrap().of_mean(values) == Bootstrap().of_mean(values)
    assert Bootstrap(seed=1).of_mean(values) != Bootstrap().of_mean(values)
    low, high = Bootstrap().of_mean(values + 1)
    np.testing.assert_allclose([low - 1, high - 1], Bootstrap().of_mean(values), atol=1e-12)


def test_block_size_does_not_change_intervals(monkeypatch):
    values = np.random.default_rng(0).normal(size=40)
    whole = Bootstrap(resamples=101).of_mean(values)
    monkeypatch.setattr("c2c_jax.evaluation.bootstrap.DRAWN_AT_ONCE", 40 * 7)
    assert Bootstrap(resamples=101).of_mean(values) == whole
    assert DRAWN_AT_ONCE > 40 * 101


def test_counts_and_indices_agree():
    values = np.random.default_rng(0).normal(size=30)
    by_counts = Bootstrap().of_counts(lambda counts_RN: counts_RN @ values / 30, 30)
    np.testing.assert_allclose(by_counts, Bootstrap().of_mean(values), atol=1e-12)
    np.testing.assert_array_equal(counts(np.array([[0, 2, 2], [1, 1, 1]])), [[1, 0, 2], [0, 3, 0]])


def test_two_sets_are_drawn_independently():
    """The variance of a difference of means is the sum of both."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=400), rng.normal(size=100)
    low, high = Bootstrap(resamples=4000).of_counts(lambda a, b: a @ x / 400 - b @ y / 100, 400, 100)
    error = np.sqrt(x.var() / 400 + y.var() / 100)
    assert (high - low) == pytest.approx(2 * 1.96 * error, rel=0.06)
    assert (high + low) / 2 == pytest.approx(x.mean() - y.mean(), abs=0.1 * error)


def test_no_interval_without_resamples_or_for_one_query():
    assert Bootstrap(resamples=0).of_mean(np.ones(5)) == (None, None)
    assert Bootstrap().of_mean(np.ones(1)) == (None, None)

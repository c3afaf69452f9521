"""The Fréchet distance against scipy's matrix root and closed forms of Gaussians."""

import numpy as np
import pytest
import scipy.linalg

from c2c_jax.evaluation.geometry import Gaussian, frechet, frechet_distance, frechet_infinite


def skewed(rng, rows, dim, scale=1.0, shift=0.0):
    return scale * rng.normal(size=(rows, dim)) @ np.diag(np.linspace(0.2, 1.5, dim)) + shift


def test_agrees_with_scipy():
    """The textbook formula with scipy's root of the product, for covariances of full rank."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 8)) @ rng.normal(size=(8, 8)), rng.normal(size=(50, 8)) + 0.3
    (m1, s1), (m2, s2) = ((v.mean(0), np.cov(v, rowvar=False, ddof=1)) for v in (x, y))
    expected = np.sum((m1 - m2) ** 2) + np.trace(s1 + s2 - 2 * scipy.linalg.sqrtm(s1 @ s2).real)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(x.astype(np.float32), y.astype(np.float32)) == pytest.approx(expected, rel=1e-4)


def test_commuting_gaussians_in_closed_form():
    """‖μ₁ − μ₂‖² + Σ (σ₁ − σ₂)² for diagonal covariances."""
    first = Gaussian(np.array([1.0, 0, 2]), np.diag([4.0, 9, 1]))
    second = Gaussian(np.array([0.0, 0, 4]), np.diag([1.0, 1, 25]))
    assert frechet(first, second) == pytest.approx(1 + 4 + (2 - 1) ** 2 + (3 - 1) ** 2 + (1 - 5) ** 2)
    assert frechet(second, first) == pytest.approx(26)


def test_fewer_rows_than_dimensions_are_finite_and_a_set_has_no_distance_to_itself():
    rng = np.random.default_rng(0)
    few = rng.normal(size=(5, 32))
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(few, few + 2) == pytest.approx(4 * 32, rel=1e-6)  # the same shape, moved
    assert np.isfinite(frechet_distance(few, rng.normal(size=(200, 32))))


def test_extrapolation_removes_the_bias():
    """Samples of two Gaussians with a known distance: the plain value is too high, the extrapolated one is close."""
    rng = np.random.default_rng(0)
    reference = skewed(rng, 20_000, 12)
    variances = np.linspace(0.2, 1.5, 12) ** 2
    truth = 12 * 0.1**2 + np.sum((1.2 * np.sqrt(variances) - np.sqrt(variances)) ** 2)
    plain, extrapolated = [], []
    for seed in range(6):
        x = skewed(rng, 60, 12, scale=1.2, shift=0.1)
        plain.append(frechet_distance(x, reference))
        extrapolated.append(frechet_infinite(x, reference, seed))
    assert np.mean(plain) > 1.8 * truth
    assert np.mean(extrapolated) == pytest.approx(truth, abs=0.3 * truth)


def test_small_samples_are_far_from_their_own_distribution():
    """The example of docs/evaluation.md: two sets of unit vectors of one distribution, 64 wide, the reference of 5,000.
    Their distance is 0."""
    rng = np.random.default_rng(0)

    def drawn(rows):
        x = rng.normal(size=(rows, 64)) + 0.2
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    reference = drawn(5000)
    plain = {rows: frechet_distance(drawn(rows), reference) for rows in (32, 128, 1280)}
    assert plain == {
        32: pytest.approx(0.7, abs=0.03),
        128: pytest.approx(0.15, abs=0.01),
        1280: pytest.approx(0.016, abs=0.002),
    }
    assert abs(frechet_infinite(drawn(128), reference)) < 0.04
    assert abs(frechet_infinite(drawn(256), reference)) < 0.01


def test_extrapolation_of_a_constant_is_that_constant():
    """If all rows are equal, every subset has the same distance, and so has the limit."""
    reference = np.random.default_rng(0).normal(size=(50, 4))
    alike = np.tile(np.array([[1.0, 2, 3, 4]]), (20, 1))
    assert frechet_infinite(alike, reference) == pytest.approx(frechet_distance(alike, reference), rel=1e-9)


def test_extrapolation_depends_only_on_the_seed():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 4)), rng.normal(size=(60, 4))
    assert frechet_infinite(x, y, 3) == frechet_infinite(x, y, 3) != frechet_infinite(x, y, 4)

"""The plane of two spaces, against numpy's eigenvectors of the covariance and by hand."""

import numpy as np

from c2c_jax.evaluation.report.projection import principal_plane


def test_axes_are_those_of_the_covariance():
    rng = np.random.default_rng(0)
    groups = [rng.normal(size=(40, 6)) @ np.diag([5, 3, 1, 1, 0.5, 0.1]) + shift for shift in (0, 2)]
    (one, other), shares = principal_plane(groups)
    points = np.concatenate([one, other])
    values = np.linalg.eigvalsh(np.cov(np.concatenate(groups).T))[::-1]
    np.testing.assert_allclose(np.cov(points.T), np.diag(values[:2]), atol=1e-9)
    np.testing.assert_allclose(shares, values[:2] / values.sum())
    assert len(one) == len(other) == 40


def test_a_narrower_space_keeps_its_distances():
    """Points of a plane are drawn as they lie, and a space of one coordinate goes along the first axis of the other."""
    square = np.array([[0.0, 0, 0], [4, 0, 0], [4, 1, 0], [0, 1, 0]])
    (drawn, line), shares = principal_plane([square, np.array([[0.0], [4]])])
    np.testing.assert_allclose(np.ptp(drawn, axis=0), [4, 1], atol=1e-12)
    np.testing.assert_allclose(line[1] - line[0], [4, 0], atol=1e-12)
    np.testing.assert_allclose(sum(shares), 1)
    assert drawn[1, 0] > drawn[0, 0] and drawn[2, 1] > drawn[1, 1]  # signs: coordinates grow to the right and upwards

"""The oracle's ridge regressions against numpy's solver, and its cross-validation."""

import numpy as np

from c2c_jax.evaluation import methods as module
from c2c_jax.evaluation.methods import RIDGE_PENALTIES, fit_kernel_ridge, fit_pairs, fit_ridge, oracle
from tests.retrieval.test_nearest_captions import unit


def test_ridge_uses_the_penalty_with_the_smallest_leave_one_out_error():
    """Fits every penalty with numpy's solver, leaving out one row at a time; then the best penalty on all rows."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 5))
    y = x @ rng.normal(size=(5, 3)) + 0.8 * rng.normal(size=(12, 3))

    def fit(rows, penalty):
        xm, ym = x[rows].mean(0), y[rows].mean(0)
        gram = (x[rows] - xm).T @ (x[rows] - xm)
        kernel = np.linalg.solve(gram + penalty * mean_square * np.eye(5), (x[rows] - xm).T @ (y[rows] - ym))
        return lambda queries: (queries - xm) @ kernel + ym

    mean_square = np.sum((x - x.mean(0)) ** 2) / 5  # of all rows, for the left-out fits as well
    errors = {
        penalty: np.mean([
            np.sum((fit(np.delete(np.arange(12), i), penalty)(x[i : i + 1]) - y[i : i + 1]) ** 2) for i in range(12)
        ])
        for penalty in RIDGE_PENALTIES
    }  # fmt: skip
    best = min(errors, key=errors.get)
    assert best not in (RIDGE_PENALTIES[0], RIDGE_PENALTIES[-1])
    queries = rng.normal(size=(4, 5))
    np.testing.assert_allclose(fit_ridge(x, y).apply(queries), fit(np.arange(12), best)(queries), atol=1e-9)


def test_oracle_recovers_a_linear_map_and_no_pair_scores_itself():
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    image = unit(rng.normal(size=(80, 6)))
    assert np.mean(np.sum(oracle(image, image @ rotation) * (image @ rotation), axis=1)) > 0.999
    noise = unit(rng.normal(size=(80, 6)))  # no map to find: what pairs say of others is nothing
    cosines = np.sum(oracle(image, noise) * noise, axis=1)
    assert abs(cosines.mean()) < 0.15


def test_pairs_that_share_a_file_share_a_fold():
    """Every image occurs twice, with random sounds: a training pair would reveal its twin."""
    rng = np.random.default_rng(0)
    image, audio = (
        np.repeat(unit(rng.normal(size=(20, 40))), 2, axis=0),
        np.repeat(unit(rng.normal(size=(20, 40))), 2, axis=0),
    )
    separate = np.sum(oracle(image, audio) * audio, axis=1).mean()
    together = np.sum(oracle(image, audio, np.repeat(np.arange(20), 2)) * audio, axis=1).mean()
    assert separate > 0.5 and together < 0.2
    np.testing.assert_array_equal(oracle(image, audio, seed=1), oracle(image, audio, seed=1))


def test_kernel_ridge_uses_the_setting_with_the_smallest_leave_one_out_error(monkeypatch):
    """Predicts every row with every setting by numpy's solver, that row left out of the kernel."""
    rng = np.random.default_rng(1)
    x, queries = unit(rng.normal(size=(14, 3))), unit(rng.normal(size=(5, 3)))
    y = np.sin(3 * x) + 0.05 * rng.normal(size=(14, 3))
    y_mean = y.mean(0)

    def kernel(a, b, scale):
        return np.exp(-scale * ((a[:, None] - b[None]) ** 2).sum(2))

    median = np.median([np.sum((x[i] - x[j]) ** 2) for i in range(14) for j in range(i)])

    def fit(rows, scale, penalty):
        coefficients = np.linalg.solve(kernel(x[rows], x[rows], scale) + penalty * np.eye(len(rows)), y[rows] - y_mean)
        return lambda points: kernel(points, x[rows], scale) @ coefficients + y_mean

    errors = {}
    for scale in module.KERNEL_SCALES:
        for penalty in module.KERNEL_PENALTIES:
            left_out = [
                fit(np.delete(np.arange(14), i), scale / median, penalty)(x[i : i + 1])[0] - y[i] for i in range(14)
            ]
            errors[scale / median, penalty] = np.mean(np.square(left_out))
    found = fit_kernel_ridge(x, y)
    best = min(errors, key=errors.get)
    np.testing.assert_allclose(found.error, errors[best], rtol=1e-6)
    np.testing.assert_allclose(found.apply(queries), fit(np.arange(14), *best)(queries), atol=1e-6)
    monkeypatch.setattr(module, "MAX_KERNEL_PAIRS", 6)
    drawn = np.random.default_rng(0).choice(14, 6, replace=False)
    expected = fit_kernel_ridge(x[drawn], y[drawn]).apply(queries)
    np.testing.assert_array_equal(fit_kernel_ridge(x, y).apply(queries), expected)


def test_nonlinear_maps_use_kernels_and_linear_maps_do_not():
    rng = np.random.default_rng(2)
    x, matrix = unit(rng.normal(size=(120, 4))), rng.normal(size=(4, 4))
    queries = unit(rng.normal(size=(50, 4)))
    for target, fit in ((lambda a: a @ matrix, fit_ridge), (lambda a: np.abs(a @ matrix), fit_kernel_ridge)):
        found = fit_pairs(x, target(x))
        np.testing.assert_array_equal(found.apply(queries), fit(x, target(x)).apply(queries))
        assert np.mean((found.apply(queries) - target(queries)) ** 2) < 0.01

"""What pairs of pictures and sounds would bring: ridges, linear and over kernels, that are fitted to them."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from c2c_jax.io.vectors import unit_rows

FOLDS, PAIRS_AT_LEAST = 5, 8
WEIGHTS = tuple(10.0**power for power in range(-4, 3))  # of the linear ridge's squared coefficients
KERNEL_PAIRS = 2048  # most that the kernel ridge takes
NARROWNESSES, KERNEL_WEIGHTS = (1.0, 2.0, 4.0, 8.0), (0.01, 0.1, 1.0)


def oracle(
    image_NS: Float[np.ndarray, "N S"],
    audio_NE: Float[np.ndarray, "N E"],
    groups_N: Int[np.ndarray, "N"] | None = None,
    seed: int = 0,
    folds: int = FOLDS,
) -> Float[np.ndarray, "N E"]:
    """Unit target vectors [N, E] of pictures by a ridge from unit image to unit audio vectors that saw other pairs:
    every fold's by the pairs of the other folds, so that no pair scores itself. Linear or over kernels, and how strong,
    is chosen by the leave-one-out error among those others: see `fitted_to_pairs`.

    groups_N: pairs of one number share a picture or sound, and so a fold; None: none do. Folds are drawn by the seed.
    Takes PAIRS_AT_LEAST different groups.
    """
    x_NS, y_NE = unit_rows(image_NS), unit_rows(audio_NE)
    _, group_N = np.unique(np.arange(len(x_NS)) if groups_N is None else groups_N, return_inverse=True)
    count = int(group_N.max()) + 1
    fold_N = (np.random.default_rng((seed, count)).permutation(count) % min(folds, count))[group_N]
    mapped_NE = np.empty_like(y_NE)
    for fold in range(min(folds, count)):
        mine_N = fold_N == fold
        mapped_NE[mine_N] = fitted_to_pairs(x_NS[~mine_N], y_NE[~mine_N], seed).carry(x_NS[mine_N])
    return unit_rows(mapped_NE).astype(np.float32)


class Fitted(NamedTuple):
    """A map that was fitted to pairs. error: mean square of what it leaves of a pair that it is not fitted to."""

    error: float
    carry: Callable[[np.ndarray], np.ndarray]


def fitted_to_pairs(x_NS: Float[np.ndarray, "N S"], y_NE: Float[np.ndarray, "N E"], seed: int = 0) -> Fitted:
    """The better of a linear and a kernel ridge, by their leave-one-out errors."""
    return min(ridge_by_svd(x_NS, y_NE), kernel_ridge(x_NS, y_NE, seed), key=lambda fitted: fitted.error)


def kernel_ridge(x_NS: Float[np.ndarray, "N S"], y_NE: Float[np.ndarray, "N E"], seed: int = 0) -> Fitted:
    """x → y by a ridge over Gaussian kernels (Saunders et al. 1998), of one of NARROWNESSES over the median squared
    distance and with one of KERNEL_WEIGHTS, chosen by the leave-one-out error (G y)ᵢ / Gᵢᵢ, G = (K + λ)⁻¹, the mean of
    y aside. Of more than KERNEL_PAIRS pairs so many are drawn: their cube is what it costs."""
    if len(x_NS) > KERNEL_PAIRS:
        drawn = np.random.default_rng(seed).choice(len(x_NS), KERNEL_PAIRS, replace=False)
        x_NS, y_NE = x_NS[drawn], y_NE[drawn]
    x_NS, y_NE = x_NS.astype(np.float64), y_NE.astype(np.float64)
    y_E, distances_NN = y_NE.mean(0), _squared_distances(x_NS, x_NS)
    median = float(np.median(distances_NN[np.triu_indices(len(x_NS), 1)])) or 1.0
    fits = []
    for narrowness in NARROWNESSES:
        kernel_NN = np.exp(-narrowness / median * distances_NN)
        for weight in KERNEL_WEIGHTS:
            inverse_NN = np.linalg.inv(kernel_NN + weight * np.eye(len(x_NS)))
            shares_NE = inverse_NN @ (y_NE - y_E)
            error = float(np.mean((shares_NE / np.diag(inverse_NN)[:, None]) ** 2))
            fits.append(Fitted(error, functools.partial(_by_kernel, x_NS, narrowness / median, shares_NE, y_E)))
    return min(fits, key=lambda fitted: fitted.error)


def _by_kernel(
    known_NS: np.ndarray, narrowness: float, shares_NE: np.ndarray, y_E: np.ndarray, x_NS: np.ndarray
) -> np.ndarray:
    return np.exp(-narrowness * _squared_distances(x_NS, known_NS)) @ shares_NE + y_E


def _squared_distances(x_NS: np.ndarray, y_MS: np.ndarray) -> np.ndarray:
    return np.maximum(np.sum(x_NS**2, axis=1)[:, None] + np.sum(y_MS**2, axis=1)[None] - 2 * x_NS @ y_MS.T, 0)


def ridge_by_svd(x_NS: Float[np.ndarray, "N S"], y_NE: Float[np.ndarray, "N E"]) -> Fitted:
    """x → y of a ridge with a free bias (Hoerl & Kennard 1970), its penalty one of WEIGHTS times the inputs' mean
    square summed over rows, chosen by the exact leave-one-out error: residuals over 1 − hᵢᵢ (Allen's PRESS, in
    Golub, Heath & Wahba 1979).
    """
    x_S, y_E = x_NS.mean(0), y_NE.mean(0)
    left_NR, singular_R, right_RS = np.linalg.svd(x_NS - x_S, full_matrices=False)
    scores_RE = left_NR.T @ (y_NE - y_E)
    mean_square = np.sum(singular_R**2) / x_NS.shape[1]
    best = math.inf, singular_R
    for weight in WEIGHTS:
        kept_R = singular_R**2 / (singular_R**2 + weight * mean_square)
        residual_NE = (y_NE - y_E) - (left_NR * kept_R) @ scores_RE
        free_N = 1 - 1 / len(x_NS) - (left_NR**2) @ kept_R
        error = float(np.mean((residual_NE / np.maximum(free_N, 1e-9)[:, None]) ** 2))
        best = min(best, (error, kept_R / np.maximum(singular_R, 1e-12)), key=lambda found: found[0])
    kernel_SE = right_RS.T @ (best[1][:, None] * scores_RE)
    return Fitted(best[0], functools.partial(_mapped, x_S, kernel_SE, y_E))


def _mapped(x_S: np.ndarray, kernel_SE: np.ndarray, y_E: np.ndarray, x_NS: np.ndarray) -> np.ndarray:
    return (x_NS - x_S) @ kernel_SE + y_E

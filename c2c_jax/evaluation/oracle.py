"""The oracle: ridge regressions from images to sounds that are fitted to pairs, which no translator sees."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from c2c_jax.io.vectors import unit_rows

FOLDS, MIN_PAIRS = 5, 8
WEIGHTS = tuple(10.0**power for power in range(-4, 3))  # of the linear ridge's squared coefficients
MAX_KERNEL_PAIRS = 2048  # that the kernel ridge is fitted to: it costs their cube
NARROWNESSES, KERNEL_WEIGHTS = (1.0, 2.0, 4.0, 8.0), (0.01, 0.1, 1.0)


class Fitted(NamedTuple):
    """A map that was fitted to pairs. error: its mean squared leave-one-out error."""

    error: float
    apply: Callable[[np.ndarray], np.ndarray]


def oracle(
    image_NS: Float[np.ndarray, "N S"],
    audio_NE: Float[np.ndarray, "N E"],
    groups_N: Int[np.ndarray, "N"] | None = None,
    seed: int = 0,
) -> Float[np.ndarray, "N E"]:
    """Unit target vectors [N, E] of images by cross-validation: those of a fold come from `fit_pairs` on the unit image
    and audio vectors of the other folds, so that no pair scores itself.

    groups_N: pairs with the same number share an image or a sound and are put into one fold; None: no pairs do. The
    seed draws the folds. There must be MIN_PAIRS groups or more.
    """
    x_NS, y_NE = unit_rows(image_NS), unit_rows(audio_NE)
    _, group_N = np.unique(np.arange(len(x_NS)) if groups_N is None else groups_N, return_inverse=True)
    count = int(group_N.max()) + 1
    fold_N = (np.random.default_rng((seed, count)).permutation(count) % FOLDS)[group_N]
    mapped_NE = np.empty_like(y_NE)
    for fold in range(FOLDS):
        is_own_N = fold_N == fold
        mapped_NE[is_own_N] = fit_pairs(x_NS[~is_own_N], y_NE[~is_own_N], seed).apply(x_NS[is_own_N])
    return unit_rows(mapped_NE).astype(np.float32)


def fit_pairs(x_NS: Float[np.ndarray, "N S"], y_NE: Float[np.ndarray, "N E"], seed: int = 0) -> Fitted:
    """The linear or the kernel ridge regression x → y, whichever has the smaller leave-one-out error."""
    return min(fit_ridge(x_NS, y_NE), fit_kernel_ridge(x_NS, y_NE, seed), key=lambda fitted: fitted.error)


def fit_ridge(x_NS: Float[np.ndarray, "N S"], y_NE: Float[np.ndarray, "N E"]) -> Fitted:
    """A ridge regression with a free bias (Hoerl & Kennard 1970), its penalty one of WEIGHTS times the inputs' mean
    square summed over rows, chosen by the exact leave-one-out error: residuals over 1 − hᵢᵢ (Allen's PRESS, in
    Golub, Heath & Wahba 1979)."""
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
    return Fitted(best[0], lambda x_BS: (x_BS - x_S) @ kernel_SE + y_E)


def fit_kernel_ridge(x_NS: Float[np.ndarray, "N S"], y_NE: Float[np.ndarray, "N E"], seed: int = 0) -> Fitted:
    """A ridge regression over Gaussian kernels (Saunders et al. 1998), of one of NARROWNESSES over the median squared
    distance and with one of KERNEL_WEIGHTS, chosen by the leave-one-out error (G y)ᵢ / Gᵢᵢ, G = (K + λ)⁻¹, without the
    mean of y. Of more than MAX_KERNEL_PAIRS pairs, that many are drawn."""
    if len(x_NS) > MAX_KERNEL_PAIRS:
        drawn = np.random.default_rng(seed).choice(len(x_NS), MAX_KERNEL_PAIRS, replace=False)
        x_NS, y_NE = x_NS[drawn], y_NE[drawn]
    x_NS, y_NE = x_NS.astype(np.float64), y_NE.astype(np.float64)
    y_E, distance_NN = y_NE.mean(0), _squared_distances(x_NS, x_NS)
    median = float(np.median(distance_NN[np.triu_indices(len(x_NS), 1)])) or 1.0
    best = math.inf, 0.0, y_NE
    for narrowness in NARROWNESSES:
        kernel_NN = np.exp(-narrowness / median * distance_NN)
        for weight in KERNEL_WEIGHTS:
            inverse_NN = np.linalg.inv(kernel_NN + weight * np.eye(len(x_NS)))
            coefficient_NE = inverse_NN @ (y_NE - y_E)
            error = float(np.mean((coefficient_NE / np.diag(inverse_NN)[:, None]) ** 2))
            best = min(best, (error, narrowness / median, coefficient_NE), key=lambda found: found[0])
    error, scale, coefficient_NE = best
    return Fitted(error, lambda x_BS: np.exp(-scale * _squared_distances(x_BS, x_NS)) @ coefficient_NE + y_E)


def _squared_distances(x_NS: np.ndarray, y_MS: np.ndarray) -> np.ndarray:
    return np.maximum(np.sum(x_NS**2, axis=1)[:, None] + np.sum(y_MS**2, axis=1)[None] - 2 * x_NS @ y_MS.T, 0)

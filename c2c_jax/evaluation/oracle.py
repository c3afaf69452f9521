"""The oracle: a ridge regression from images to sounds that is fitted to pairs, which no translator sees."""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from c2c_jax.io.vectors import unit_rows

FOLDS, MIN_PAIRS = 5, 8
WEIGHTS = tuple(10.0**power for power in range(-4, 3))  # of the squared coefficients


def oracle(
    image_NS: Float[np.ndarray, "N S"],
    audio_NE: Float[np.ndarray, "N E"],
    groups_N: Int[np.ndarray, "N"] | None = None,
    seed: int = 0,
) -> Float[np.ndarray, "N E"]:
    """Unit target vectors [N, E] of images by cross-validation: those of a fold come from `fit_ridge` on the unit image
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
        is_held_out_N = fold_N == fold
        mapped_NE[is_held_out_N] = fit_ridge(x_NS[~is_held_out_N], y_NE[~is_held_out_N])(x_NS[is_held_out_N])
    return unit_rows(mapped_NE).astype(np.float32)


def fit_ridge(x_NS: Float[np.ndarray, "N S"], y_NE: Float[np.ndarray, "N E"]) -> Callable[[np.ndarray], np.ndarray]:
    """Fits a ridge regression x → y with a free bias (Hoerl & Kennard 1970) and returns it as a function.

    The penalty is one of WEIGHTS times the inputs' mean square summed over rows, chosen by the exact leave-one-out
    error: residuals over 1 − hᵢᵢ (Allen's PRESS, in Golub, Heath & Wahba 1979).
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
    return lambda x_BS: (x_BS - x_S) @ kernel_SE + y_E

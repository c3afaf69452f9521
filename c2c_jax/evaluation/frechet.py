"""The Fréchet distance between two sets of vectors, and what it comes to with endlessly many."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

STEPS, REPEATS = 15, 3  # subset sizes that the line is laid through, and subsets of each
# Rows for each dimension that an extrapolation takes: with fewer the covariances of halves lack rank.
MIN_ROWS_A_DIMENSION = 2


class Gaussian(NamedTuple):
    """Mean and covariance (ddof 1) of vectors, float64."""

    mean_E: Float[np.ndarray, "E"]
    cov_EE: Float[np.ndarray, "E E"]

    @classmethod
    def of(cls, x_NE: Float[np.ndarray, "N E"]) -> "Gaussian":
        """Of two vectors or more."""
        x_NE = np.asarray(x_NE, np.float64)
        return cls(x_NE.mean(0), np.atleast_2d(np.cov(x_NE, rowvar=False, ddof=1)))


def frechet(one: Gaussian, other: Gaussian) -> float:
    """‖μ₁ − μ₂‖² + Tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½) (Dowson & Landau 1982; as FID, Heusel et al. 2017, eq. 6; as FAD, Kilgour et
    al. 2019).

    The trace of the root is the sum of the roots of the eigenvalues of Σ₁^½ Σ₂ Σ₁^½: that matrix is symmetric and has
    no negative ones, which a root of the product itself, of covariances of few sounds, does not promise.
    """
    root_EE = _root(one.cov_EE)
    eigenvalues_E = np.linalg.eigvalsh(root_EE @ other.cov_EE @ root_EE)
    shared = np.sqrt(np.maximum(eigenvalues_E, 0)).sum()
    apart = float(np.sum((one.mean_E - other.mean_E) ** 2))
    spread = float(np.trace(one.cov_EE) + np.trace(other.cov_EE) - 2 * shared)
    return apart + max(spread, 0.0)  # rounding may leave it a little below


def frechet_distance(x_NE: Float[np.ndarray, "N E"], y_ME: Float[np.ndarray, "M E"]) -> float:
    """Between the Gaussians of two sets of vectors."""
    return frechet(Gaussian.of(x_NE), Gaussian.of(y_ME))


def frechet_infinite(x_NE: Float[np.ndarray, "N E"], y_ME: Float[np.ndarray, "M E"], seed: int = 0) -> float:
    """What the distance of x to the reference y comes to as x grows without end: the distances of subsets of N/2 to N
    rows lie on a line over 1/size, whose value at 0 it is (Chong & Forsyth 2020, section 4; as FAD∞, Gui et al. 2024).

    Subsets are drawn without replacement: drawn with it, as by fadtk, they tend to the distance of the N rows
    themselves. Take N ≥ 2E, see `MIN_ROWS_A_DIMENSION`. That y is finite stays in the value.
    """
    rng, reference = np.random.default_rng(seed), Gaussian.of(y_ME)
    least = 1 / max(len(x_NE) // 2, 2)
    sizes = np.unique(np.round(1 / np.linspace(1 / len(x_NE), least, STEPS)).astype(int))
    drawn = [size for size in sizes for _ in range(1 if size == len(x_NE) else REPEATS)]
    subsets = (x_NE[rng.permutation(len(x_NE))[:size]] for size in drawn)
    distances = [frechet(reference, Gaussian.of(subset)) for subset in subsets]
    slope, at_zero = np.polyfit(1 / np.array(drawn), distances, deg=1)
    return float(at_zero)


def _root(cov_EE: Float[np.ndarray, "E E"]) -> Float[np.ndarray, "E E"]:
    values_E, vectors_EE = np.linalg.eigh(cov_EE)
    return (vectors_EE * np.sqrt(np.maximum(values_E, 0))) @ vectors_EE.T

"""The Fréchet distance between two sets of vectors, and its extrapolation to infinitely many."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

STEPS, REPEATS = 15, 3  # subset sizes that the line is fitted to, and subsets of each
MIN_ROWS_A_DIMENSION = 2  # for an extrapolation: with fewer rows the covariances of halves lack rank


class Gaussian(NamedTuple):
    """Mean and covariance (ddof 1) of vectors, float64."""

    mean_E: Float[np.ndarray, "E"]
    cov_EE: Float[np.ndarray, "E E"]

    @classmethod
    def of(cls, x_NE: Float[np.ndarray, "N E"]) -> "Gaussian":
        """The Gaussian of two vectors or more."""
        x_NE = np.asarray(x_NE, np.float64)
        return cls(x_NE.mean(0), np.atleast_2d(np.cov(x_NE, rowvar=False, ddof=1)))


def frechet(one: Gaussian, other: Gaussian) -> float:
    """‖μ₁ − μ₂‖² + Tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½) (Dowson & Landau 1982; as FID, Heusel et al. 2017, eq. 6; as FAD, Kilgour et
    al. 2019).

    The trace of the root is the sum of the roots of the eigenvalues of Σ₁^½ Σ₂ Σ₁^½: that matrix is symmetric and has
    no negative eigenvalues, while the root of the product itself is unreliable for covariances of few vectors.
    """
    values_E, vectors_EE = np.linalg.eigh(one.cov_EE)
    root_EE = (vectors_EE * np.sqrt(np.maximum(values_E, 0))) @ vectors_EE.T
    eigenvalues_E = np.linalg.eigvalsh(root_EE @ other.cov_EE @ root_EE)
    shared = np.sqrt(np.maximum(eigenvalues_E, 0)).sum()
    spread = float(np.trace(one.cov_EE) + np.trace(other.cov_EE) - 2 * shared)
    return float(np.sum((one.mean_E - other.mean_E) ** 2)) + max(spread, 0.0)  # rounding may leave it below 0


def frechet_distance(x_NE: Float[np.ndarray, "N E"], y_ME: Float[np.ndarray, "M E"]) -> float:
    """The distance between the Gaussians of two sets of vectors."""
    return frechet(Gaussian.of(x_NE), Gaussian.of(y_ME))


def frechet_infinite(x_NE: Float[np.ndarray, "N E"], y_ME: Float[np.ndarray, "M E"], seed: int = 0) -> float:
    """The limit of the distance of x to the reference y as x grows: the distances of subsets of N/2 to N rows lie on a
    line over 1/size, whose value at 0 it is (Chong & Forsyth 2020, section 4; as FAD∞, Gui et al. 2024).

    Subsets are drawn without replacement: drawn with it, as by fadtk, they tend to the distance of the N rows
    themselves. Take N ≥ MIN_ROWS_A_DIMENSION · E. The bias of a finite y remains.
    """
    rng, reference = np.random.default_rng(seed), Gaussian.of(y_ME)
    sizes = np.unique(np.round(1 / np.linspace(1 / len(x_NE), 1 / max(len(x_NE) // 2, 2), STEPS)).astype(int))
    drawn = [size for size in sizes for _ in range(1 if size == len(x_NE) else REPEATS)]
    subsets = (x_NE[rng.permutation(len(x_NE))[:size]] for size in drawn)
    distances = [frechet(reference, Gaussian.of(subset)) for subset in subsets]
    return float(np.polyfit(1 / np.array(drawn), distances, deg=1)[1])

"""Measures of the modality gap and of a space: length, distribution, direction consistency, alignment, uniformity.

All take vectors of any length and look at unit ones.

The norm of a mean of few is too great, and that of a resample greater again: percentiles of lengths and direction
consistencies lie beside their value. Their intervals are basic ones instead, see `basic`.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from c2c_jax.evaluation.bootstrap import Bootstrap, Interval
from c2c_jax.evaluation.frechet import frechet_distance
from c2c_jax.evaluation.rows import Row
from c2c_jax.io.vectors import unit_rows

ROWS = 10_000  # maximum number of pairs, captions, pictures or sounds that gaps are measured on
UNIFORMITY_ROWS = 2000  # most that all pairs are formed of
COLLAPSED = 0.95  # mean cosine of different captions above which a text tower is called collapsed
UNIFORMITY_DRAWN = 10  # least that an interval is of: of fewer a draw may be one row again and again, without a pair


def cosines(x_NE: Float[np.ndarray, "N E"], y_NE: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "N"]:
    """Of row i of both."""
    return np.sum(unit_rows(x_NE) * unit_rows(y_NE), axis=1)


def gap_length(x_NE: Float[np.ndarray, "N E"], y_ME: Float[np.ndarray, "M E"]) -> float:
    """‖mean x − mean y‖ (Liang et al. 2022, "Mind the Gap", section 4.2). Rows need no pairing."""
    return float(np.linalg.norm(unit_rows(x_NE).mean(0) - unit_rows(y_ME).mean(0)))


def centred_by_own(x_NE: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "N E"]:
    """Centres vectors by their own mean: unit length, minus the mean, unit length again; float64."""
    x_NE = unit_rows(x_NE)
    return unit_rows(x_NE - x_NE.mean(0))


def centred_frechet(x_NE: Float[np.ndarray, "N E"], y_ME: Float[np.ndarray, "M E"]) -> float:
    """The Fréchet distance between two sets, each centred by its own mean: the part of the gap that subtracting means
    does not close. 0: equal means and covariances; the maximum is about 2. Takes two rows or more of each.

    With fewer rows than dimensions the covariances lack rank, and the distance is too large. Two samples of the same
    isotropic distribution, 512 wide, have a distance of 1.18 at 128 rows each, 0.52 at 500 and 0.05 at 5,000; two
    samples of 248 captions in CLAP, 0.12. Only compare distances between sets of the same sizes.
    """
    return frechet_distance(centred_by_own(x_NE), centred_by_own(y_ME))


def strangers(x_NE: Float[np.ndarray, "N E"]) -> float:
    """Mean cosine of all pairs of different vectors; duplicates count once. Takes two different vectors or more."""
    x_NE = unit_rows(np.unique(np.asarray(x_NE), axis=0))
    return float((np.sum(x_NE.sum(0) ** 2) - len(x_NE)) / (len(x_NE) * (len(x_NE) - 1)))


def direction_consistency(x_NE: Float[np.ndarray, "N E"], y_NE: Float[np.ndarray, "N E"]) -> float:
    """Mean cosine of each pair's difference xᵢ − yᵢ to the mean difference: 1 where the gap is one constant vector
    (Zhang et al. 2024, "Connect, Collapse, Corrupt")."""
    apart_NE = unit_rows(x_NE) - unit_rows(y_NE)
    return float(np.mean(unit_rows(apart_NE) @ unit_rows(apart_NE.mean(0)[None])[0]))


def alignment(x_NE: Float[np.ndarray, "N E"], y_NE: Float[np.ndarray, "N E"]) -> float:
    """Mean ‖xᵢ − yᵢ‖² over pairs (Wang & Isola 2020, section 4.1, with α = 2); 0: every pair is one point, 4:
    opposites."""
    return float(np.mean(np.sum((unit_rows(x_NE) - unit_rows(y_NE)) ** 2, axis=1)))


def uniformity(x_NE: Float[np.ndarray, "N E"]) -> float:
    """log of the mean of exp(−2‖xᵢ − xⱼ‖²) over pairs of different rows (Wang & Isola 2020, section 4.1, with t = 2);
    0: all fell together; the lower, the more evenly they lie on the sphere."""
    return float(_uniformity(_kernel(unit_rows(x_NE)), np.ones((1, len(x_NE))))[0])


def _kernel(x_NE: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "N N"]:
    """exp(−2‖xᵢ − xⱼ‖²) of unit vectors, 0 on the diagonal."""
    kernel_NN = np.exp(4 * np.minimum(x_NE @ x_NE.T, 1) - 4)
    np.fill_diagonal(kernel_NN, 0)
    return kernel_NN


def _uniformity(kernel_NN: Float[np.ndarray, "N N"], counts_RN: Float[np.ndarray, "R N"]) -> Float[np.ndarray, "R"]:
    """Over pairs of different rows, each as often as it is drawn."""
    pairs_R = counts_RN.sum(1) ** 2 - (counts_RN**2).sum(1)
    return np.log(np.sum((counts_RN @ kernel_NN) * counts_RN, axis=1) / pairs_R)


def basic(value: float, percentiles: Interval, least: float, most: float) -> Interval:
    """The basic interval 2·value − percentiles (Davison & Hinkley 1997, eq. 5.6) within the figure's range.

    Resampling moves a biased figure about as far from its value as that lies from the truth; reflected, the interval
    lies nearer the truth. Where it does not even hold the value, the bias outweighs the spread, and none is given: as
    of 200 pairs, 512 wide, without a gap, whose length comes to 0.08 by noise alone, and whose reflected interval ends
    below that and begins above 0.
    """
    if percentiles[0] is None or percentiles[1] is None:
        return None, None
    low, high = max(2 * value - percentiles[1], least), min(2 * value - percentiles[0], most)
    return (low, high) if low <= value <= high else (None, None)


def paired_rows(
    method: str, x: str, x_NE: Float[np.ndarray, "N E"], y: str, y_NE: Float[np.ndarray, "N E"], bootstrap: Bootstrap
) -> list[Row]:
    """Length, direction consistency and alignment between paired vectors, with intervals over pairs, `basic` ones of
    the first two. x, y: names."""
    unit_x_NE, unit_y_NE = unit_rows(x_NE), unit_rows(y_NE)
    apart_NE = unit_x_NE - unit_y_NE
    directions_NE, n = unit_rows(apart_NE), len(x_NE)

    def lengths(counts_RN: np.ndarray) -> np.ndarray:
        return np.linalg.norm(counts_RN @ apart_NE / n, axis=1)

    def consistencies(counts_RN: np.ndarray) -> np.ndarray:
        return np.sum((counts_RN @ directions_NE / n) * unit_rows(counts_RN @ apart_NE), axis=1)

    length, consistency = gap_length(x_NE, y_NE), direction_consistency(x_NE, y_NE)
    figures: dict[str, tuple[float, Interval]] = {
        "length": (length, basic(length, bootstrap.of_counts(n, lengths), 0.0, 2.0)),
        "direction_consistency": (consistency, basic(consistency, bootstrap.of_counts(n, consistencies), -1.0, 1.0)),
        "alignment": (alignment(x_NE, y_NE), bootstrap.of_mean(np.sum(apart_NE**2, axis=1))),
    }
    return [
        Row(task="gaps", method=method, metric=f"{name}({x}, {y})", value=value, low=low, high=high, n=n)
        for name, (value, (low, high)) in figures.items()
    ]


def unpaired_rows(
    method: str, x: str, x_NE: Float[np.ndarray, "N E"], y: str, y_ME: Float[np.ndarray, "M E"], bootstrap: Bootstrap
) -> list[Row]:
    """The length between vectors that are not paired, its interval a `basic` one; each side is drawn by itself."""
    x_NE, y_ME = unit_rows(x_NE), unit_rows(y_ME)
    N, M = len(x_NE), len(y_ME)

    def lengths(counts_RN: np.ndarray, counts_RM: np.ndarray) -> np.ndarray:
        return np.linalg.norm(counts_RN @ x_NE / N - counts_RM @ y_ME / M, axis=1)

    value = gap_length(x_NE, y_ME)
    low, high = basic(value, bootstrap.of_two(N, M, lengths), 0.0, 2.0)
    row = Row(
        task="gaps", method=method, metric=f"length({x}, {y})", value=value, low=low, high=high, n=min(N, M)
    )  # fmt: skip
    return [row]


def frechet_rows(
    method: str, x: str, x_NE: Float[np.ndarray, "N E"], y: str, y_ME: Float[np.ndarray, "M E"]
) -> list[Row]:
    """A row with `centred_frechet`, without an interval; no row if a set has fewer than two vectors. x, y: names."""
    n = min(len(x_NE), len(y_ME))
    if n < 2:
        return []
    return [Row(task="gaps", method=method, metric=f"frechet({x}, {y})", value=centred_frechet(x_NE, y_ME), n=n)]


def stranger_rows(method: str, x: str, x_NE: Float[np.ndarray, "N E"]) -> list[Row]:
    """A row with the mean cosine of different captions, without an interval; no row for fewer than two."""
    n = len(np.unique(np.asarray(x_NE), axis=0))
    return [Row(task="gaps", method=method, metric=f"strangers({x})", value=strangers(x_NE), n=n)] if n > 1 else []


def collapsed(rows: Sequence[Row]) -> list[str]:
    """Warnings about text towers that give all captions nearly the same vector, from the rows of `stranger_rows`."""
    return [
        f"{row.metric[len('strangers(') : -1].replace('_', ' ')}: different captions have a mean cosine of "
        f"{row.value:.3f}, above {COLLAPSED}: this text tower is collapsed and hardly tells captions apart; check its "
        "checkpoint and tokenizer"
        for row in rows
        if row.metric.startswith("strangers(") and row.value > COLLAPSED
    ]


def uniformity_rows(method: str, x: str, x_NE: Float[np.ndarray, "N E"], bootstrap: Bootstrap) -> list[Row]:
    """Uniformity, of the first 2,000 rows at most; none of fewer than two."""
    x_NE = unit_rows(x_NE[:UNIFORMITY_ROWS])
    if len(x_NE) < 2:
        return []
    kernel_NN = _kernel(x_NE)
    low = high = None
    if len(x_NE) >= UNIFORMITY_DRAWN:
        low, high = bootstrap.of_counts(len(x_NE), lambda counts_RN: _uniformity(kernel_NN, counts_RN))
    value = float(_uniformity(kernel_NN, np.ones((1, len(x_NE))))[0])
    return [Row(task="gaps", method=method, metric=f"uniformity({x})", value=value, low=low, high=high, n=len(x_NE))]

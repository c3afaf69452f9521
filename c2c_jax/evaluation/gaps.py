"""Measures of the modality gap and of a space: length, distribution, direction consistency, alignment, uniformity.

All take vectors of any length and measure them scaled to unit length.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from c2c_jax.evaluation.bootstrap import Bootstrap, Interval
from c2c_jax.evaluation.frechet import frechet_distance
from c2c_jax.evaluation.rows import Row
from c2c_jax.io.vectors import unit_rows

MAX_ROWS = 10_000  # pairs, captions, images or sounds that gaps are measured on
MAX_PAIRED_ROWS = 2000  # of which all pairs are formed
COLLAPSED = 0.95  # mean cosine of different captions above which a text tower is called collapsed
MIN_UNIFORMITY = 10  # rows for an interval: a draw of fewer may be one row again and again, without a pair


def gap_length(x_NE: Float[np.ndarray, "N E"], y_ME: Float[np.ndarray, "M E"]) -> float:
    """‖mean x − mean y‖ (Liang et al. 2022, "Mind the Gap", section 4.2). Rows need no pairing."""
    return float(np.linalg.norm(unit_rows(x_NE).mean(0) - unit_rows(y_ME).mean(0)))


def centred_by_own(x_NE: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "N E"]:
    """Centres vectors by their own mean: unit length, minus the mean, unit length again; float64."""
    x_NE = unit_rows(x_NE)
    return unit_rows(x_NE - x_NE.mean(0))


def unpaired_cosine(x_NE: Float[np.ndarray, "N E"]) -> float:
    """Mean cosine of all pairs of different vectors; duplicates count once. Takes two different vectors or more."""
    x_NE = unit_rows(np.unique(np.asarray(x_NE), axis=0))
    return float((np.sum(x_NE.sum(0) ** 2) - len(x_NE)) / (len(x_NE) * (len(x_NE) - 1)))


def basic(value: float, percentiles: Interval, low: float, high: float) -> Interval:
    """The basic interval 2·value − percentiles (Davison & Hinkley 1997, eq. 5.6), clipped to low and high.

    The norm of a mean of few vectors is too large, and that of a resample larger again: lengths and direction
    consistencies are biased, and their percentile intervals may not contain the value. Resampling moves a biased figure
    about as far from its value as that is from the truth; the reflected interval is nearer to the truth. If it does not
    contain the value, the bias is larger than the spread, and no interval is given: 200 pairs, 512 wide, without a gap
    have a length of 0.08 by noise alone.
    """
    if percentiles[0] is None or percentiles[1] is None:
        return None, None
    low, high = max(2 * value - percentiles[1], low), min(2 * value - percentiles[0], high)
    return (low, high) if low <= value <= high else (None, None)


def gap_rows(
    method: str,
    x: str,
    x_NE: Float[np.ndarray, "N E"],
    y: str,
    y_ME: Float[np.ndarray, "M E"],
    bootstrap: Bootstrap,
    *,
    is_paired: bool = True,
) -> list[Row]:
    """Rows of the gap between two sets of vectors, paired or not. x, y: their names. At most MAX_ROWS are used of each.

    length: see `gap_length`. frechet: the Fréchet distance between the sets, each centred by its own mean: the part of
    the gap that subtracting means does not close. 0: equal means and covariances; the maximum is about 2. With fewer
    rows than dimensions the covariances lack rank, and it is too large: two samples of the same isotropic distribution,
    512 wide, have 1.18 at 128 rows each, 0.52 at 500 and 0.05 at 5,000; two samples of 248 captions in CLAP, 0.12. Only
    compare distances between sets of the same sizes. It has no interval.
    Of pairs also direction_consistency: mean cosine of each pair's difference xᵢ − yᵢ to the mean difference, 1 where
    the gap is one constant vector (Zhang et al. 2024, "Connect, Collapse, Corrupt"); and alignment: mean ‖xᵢ − yᵢ‖²
    (Wang & Isola 2020, section 4.1, with α = 2), 0 where all pairs are of equal vectors, 4 where of opposite ones.
    No rows for fewer than two pairs; for fewer than two unpaired vectors of a set the length alone.
    """
    x_NE, y_ME = x_NE[:MAX_ROWS], y_ME[:MAX_ROWS]
    unit_x_NE, unit_y_ME, N, M = unit_rows(x_NE), unit_rows(y_ME), len(x_NE), len(y_ME)
    if is_paired and N < 2:
        return []
    length = gap_length(x_NE, y_ME)
    figures: dict[str, tuple[float, Interval]] = {}
    if is_paired:
        difference_NE = unit_x_NE - unit_y_ME
        direction_NE, squared_N = unit_rows(difference_NE), np.sum(difference_NE**2, axis=1)
        consistency = float(np.mean(direction_NE @ unit_rows(difference_NE.mean(0)[None])[0]))

        def paired_lengths(counts_RN: np.ndarray) -> np.ndarray:
            return np.linalg.norm(counts_RN @ difference_NE / N, axis=1)

        def consistencies(counts_RN: np.ndarray) -> np.ndarray:
            return np.sum((counts_RN @ direction_NE / N) * unit_rows(counts_RN @ difference_NE), axis=1)

        figures["length"] = length, basic(length, bootstrap.of_counts(paired_lengths, N), 0.0, 2.0)
        interval = basic(consistency, bootstrap.of_counts(consistencies, N), -1.0, 1.0)
        figures["direction_consistency"] = consistency, interval
        figures["alignment"] = float(np.mean(squared_N)), bootstrap.of_mean(squared_N)
    else:

        def lengths(counts_RN: np.ndarray, counts_RM: np.ndarray) -> np.ndarray:
            return np.linalg.norm(counts_RN @ unit_x_NE / N - counts_RM @ unit_y_ME / M, axis=1)

        figures["length"] = length, basic(length, bootstrap.of_counts(lengths, N, M), 0.0, 2.0)
    if min(N, M) > 1:
        figures["frechet"] = frechet_distance(centred_by_own(x_NE), centred_by_own(y_ME)), (None, None)
    return [
        Row("gaps", method, f"{name}({x}, {y})", value, min(N, M), low, high)
        for name, (value, (low, high)) in figures.items()
    ]


def uniformity_rows(method: str, x: str, x_NE: Float[np.ndarray, "N E"], bootstrap: Bootstrap) -> list[Row]:
    """A row with the log of the mean of exp(−2‖xᵢ − xⱼ‖²) over pairs of different rows (Wang & Isola 2020, section 4.1,
    with t = 2); 0: all vectors are equal; the lower, the more evenly they lie on the sphere. Uses the first 2,000 rows;
    no row for fewer than two."""
    x_NE = unit_rows(x_NE[:MAX_PAIRED_ROWS])
    n = len(x_NE)
    if n < 2:
        return []
    kernel_NN = np.exp(4 * np.minimum(x_NE @ x_NE.T, 1) - 4)
    np.fill_diagonal(kernel_NN, 0)

    def uniformity(counts_RN: np.ndarray) -> np.ndarray:
        """Over pairs of different rows, each counted as often as it is drawn."""
        pairs_R = counts_RN.sum(1) ** 2 - (counts_RN**2).sum(1)
        return np.log(np.sum((counts_RN @ kernel_NN) * counts_RN, axis=1) / pairs_R)

    interval = bootstrap.of_counts(uniformity, n) if n >= MIN_UNIFORMITY else (None, None)
    return [Row("gaps", method, f"uniformity({x})", float(uniformity(np.ones((1, n)))[0]), n, *interval)]


def unpaired_rows(method: str, x: str, x_NE: Float[np.ndarray, "N E"]) -> list[Row]:
    """A row "strangers" with the mean cosine of different captions, without an interval; none for fewer than two."""
    x_NE = x_NE[:MAX_ROWS]
    n = len(np.unique(np.asarray(x_NE), axis=0))
    return [Row("gaps", method, f"strangers({x})", unpaired_cosine(x_NE), n)] if n > 1 else []


def collapsed(rows: Sequence[Row]) -> list[str]:
    """Warnings about text towers that give all captions nearly the same vector, from the rows of `unpaired_rows`."""
    return [
        f"{row.metric[len('strangers(') : -1].replace('_', ' ')}: different captions have a mean cosine of "
        f"{row.value:.3f}, above {COLLAPSED}: this text tower is collapsed and hardly tells captions apart; check its "
        "checkpoint and tokenizer"
        for row in rows
        if row.metric.startswith("strangers(") and row.value > COLLAPSED
    ]

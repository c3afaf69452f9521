"""The geometry of sets of vectors: Fréchet distance, modality gap, uniformity, and how close a map is to a rotation.

Unless stated otherwise, functions take vectors of any length and scale them to unit length.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from c2c_jax.evaluation.bootstrap import Bootstrap, Interval
from c2c_jax.evaluation.methods import Method
from c2c_jax.evaluation.results import Missing, Row
from c2c_jax.evaluation.retrieval import Scorer
from c2c_jax.evaluation.scoring import centred_rows, cosines
from c2c_jax.evaluation.vectors import Captions, Side
from c2c_jax.io.vectors import unit_rows
from c2c_jax.retrieval.nearest import paired_ranks
from c2c_jax.retrieval.scoring import MIN_TO_CENTRE
from c2c_jax.translator.centring import ModalityMeans

FRECHET_SIZES, FRECHET_REPEATS = 15, 3  # of `frechet_infinite`: number of subset sizes, and subsets of each size
MIN_ROWS_PER_DIMENSION = 2  # of `frechet_infinite`: with fewer rows the covariances of halves lack rank
MAX_ROWS = 10_000  # of each set of vectors
MAX_PAIRED_ROWS = 2000  # where all pairs of rows are compared
COLLAPSED = 0.95  # mean cosine of different captions above which a text tower is called collapsed
MIN_UNIFORMITY = 10  # rows for an interval: a resample of fewer may repeat a single row, which leaves no pairs
MEDIA = {"source": "images", "target": "sounds"}
LINEAR = ("procrustes", "ridge")


class Gaussian(NamedTuple):
    """Mean and covariance (ddof 1) of vectors, float64."""

    mean_E: Float[np.ndarray, "E"]
    cov_EE: Float[np.ndarray, "E E"]

    @classmethod
    def of(cls, x_NE: Float[np.ndarray, "N E"]) -> "Gaussian":
        """The Gaussian of two vectors or more."""
        x_NE = np.asarray(x_NE, np.float64)
        return cls(x_NE.mean(0), np.atleast_2d(np.cov(x_NE, rowvar=False, ddof=1)))


def frechet(first: Gaussian, second: Gaussian) -> float:
    """The Fréchet distance of two Gaussians, ‖μ₁ − μ₂‖² + Tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½) (Dowson & Landau 1982; as FID, Heusel
    et al. 2017, eq. 6; as FAD, Kilgour et al. 2019).

    The trace of the root is computed as the sum of the roots of the eigenvalues of Σ₁^½ Σ₂ Σ₁^½. That matrix is
    symmetric and positive semidefinite, while the root of the product itself is unreliable for covariances of few
    vectors.
    """
    values_E, vectors_EE = np.linalg.eigh(first.cov_EE)
    root_EE = (vectors_EE * np.sqrt(np.maximum(values_E, 0))) @ vectors_EE.T
    eigenvalues_E = np.linalg.eigvalsh(root_EE @ second.cov_EE @ root_EE)
    shared = np.sqrt(np.maximum(eigenvalues_E, 0)).sum()
    spread = float(np.trace(first.cov_EE) + np.trace(second.cov_EE) - 2 * shared)
    return float(np.sum((first.mean_E - second.mean_E) ** 2)) + max(spread, 0.0)  # rounding may leave it below 0


def frechet_distance(x_NE: Float[np.ndarray, "N E"], y_ME: Float[np.ndarray, "M E"]) -> float:
    """The Fréchet distance of the Gaussians of two sets of vectors, which are not scaled."""
    return frechet(Gaussian.of(x_NE), Gaussian.of(y_ME))


def frechet_infinite(x_NE: Float[np.ndarray, "N E"], y_ME: Float[np.ndarray, "M E"], seed: int = 0) -> float:
    """The Fréchet distance of x to the reference y, extrapolated to infinitely many rows of x. Vectors are not scaled.

    The distances of subsets of N/2 to N rows lie on a line over 1/size; the result is its value at 0 (Chong & Forsyth
    2020, section 4; as FAD∞, Gui et al. 2024). Subsets are drawn without replacement. With replacement, as in fadtk,
    the limit is the distance of the N rows themselves. Needs N ≥ MIN_ROWS_PER_DIMENSION · E. The bias of a finite y
    remains.
    """
    rng, reference = np.random.default_rng(seed), Gaussian.of(y_ME)
    sizes = np.unique(np.round(1 / np.linspace(1 / len(x_NE), 1 / max(len(x_NE) // 2, 2), FRECHET_SIZES)).astype(int))
    drawn = [size for size in sizes for _ in range(1 if size == len(x_NE) else FRECHET_REPEATS)]
    subsets = (x_NE[rng.permutation(len(x_NE))[:size]] for size in drawn)
    distances = [frechet(reference, Gaussian.of(subset)) for subset in subsets]
    return float(np.polyfit(1 / np.array(drawn), distances, deg=1)[1])


def gap_length(x_NE: Float[np.ndarray, "N E"], y_ME: Float[np.ndarray, "M E"]) -> float:
    """‖mean x − mean y‖ (Liang et al. 2022, "Mind the Gap", section 4.2). Rows need not be paired."""
    return float(np.linalg.norm(unit_rows(x_NE).mean(0) - unit_rows(y_ME).mean(0)))


def centred_by_own(x_NE: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "N E"]:
    """Centres vectors by their own mean: unit length, minus the mean, unit length again; float64."""
    x_NE = unit_rows(x_NE)
    return unit_rows(x_NE - x_NE.mean(0))


def unpaired_cosine(x_NE: Float[np.ndarray, "N E"]) -> float:
    """The mean cosine of all pairs of different vectors. Duplicates count once. Needs two different vectors."""
    x_NE = unit_rows(np.unique(np.asarray(x_NE), axis=0))
    return float((np.sum(x_NE.sum(0) ** 2) - len(x_NE)) / (len(x_NE) * (len(x_NE) - 1)))


def basic_interval(value: float, percentiles: Interval, low: float, high: float) -> Interval:
    """The basic bootstrap interval 2·value − percentiles (Davison & Hinkley 1997, eq. 5.6), clipped to low and high.

    Lengths and direction consistencies are biased: the norm of a mean of few vectors is too large, and that of a
    resample is larger still, so a percentile interval may not contain the value. Resampling shifts a biased figure
    about as far as its own distance from the truth, so the reflected interval is closer to the truth. If even that does
    not contain the value, the bias exceeds the spread and there is no interval: 200 pairs, 512 wide, without a gap have
    a length of 0.08 from noise alone.
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
    """Measures the modality gap between two sets of vectors, paired or not. x, y: their names. Uses the first MAX_ROWS
    of each.

    length: see `gap_length`. frechet: Fréchet distance of the sets, each centred by its own mean; this part of the gap
    remains after subtracting means. It is 0 for equal means and covariances and about 2 at most, and has no interval.
    With fewer rows than dimensions it is too large, since the covariances lack rank: two samples of the same isotropic
    distribution, 512 wide, have 1.18 at 128 rows each, 0.52 at 500 and 0.05 at 5,000; two samples of 248 captions in
    CLAP, 0.12. Only compare distances between sets of the same sizes.

    Of pairs only: direction_consistency: mean cosine of each pair's difference xᵢ − yᵢ to the mean difference; 1 if the
    gap is one constant vector (Zhang et al. 2024, "Connect, Collapse, Corrupt"). alignment: mean ‖xᵢ − yᵢ‖² (Wang &
    Isola 2020, section 4.1, with α = 2); 0 if the vectors of each pair are equal, 4 if opposite.

    Fewer than two pairs give no rows; fewer than two unpaired vectors in a set, the length only.
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

        figures["length"] = length, basic_interval(length, bootstrap.of_counts(paired_lengths, N), 0.0, 2.0)
        interval = basic_interval(consistency, bootstrap.of_counts(consistencies, N), -1.0, 1.0)
        figures["direction_consistency"] = consistency, interval
        figures["alignment"] = float(np.mean(squared_N)), bootstrap.of_mean(squared_N)
    else:

        def lengths(counts_RN: np.ndarray, counts_RM: np.ndarray) -> np.ndarray:
            return np.linalg.norm(counts_RN @ unit_x_NE / N - counts_RM @ unit_y_ME / M, axis=1)

        figures["length"] = length, basic_interval(length, bootstrap.of_counts(lengths, N, M), 0.0, 2.0)
    if min(N, M) > 1:
        figures["frechet"] = frechet_distance(centred_by_own(x_NE), centred_by_own(y_ME)), (None, None)
    return [
        Row("gaps", method, f"{name}({x}, {y})", value, min(N, M), low, high)
        for name, (value, (low, high)) in figures.items()
    ]


def uniformity_rows(method: str, x: str, x_NE: Float[np.ndarray, "N E"], bootstrap: Bootstrap) -> list[Row]:
    """Measures how evenly vectors cover the sphere: log of the mean of exp(−2‖xᵢ − xⱼ‖²) over pairs of different rows
    (Wang & Isola 2020, section 4.1, with t = 2). 0 if all vectors are equal; lower is more even.

    Uses the first MAX_PAIRED_ROWS rows. Fewer than two give no row.
    """
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
    """Returns a row "strangers": the mean cosine of different captions, without an interval. Fewer than two different
    captions give no row."""
    x_NE = x_NE[:MAX_ROWS]
    n = len(np.unique(np.asarray(x_NE), axis=0))
    return [Row("gaps", method, f"strangers({x})", unpaired_cosine(x_NE), n)] if n > 1 else []


def collapse_warnings(rows: Sequence[Row]) -> list[str]:
    """Warnings for text towers that map all captions to nearly the same vector, from the rows of `unpaired_rows`."""
    return [
        f"{row.metric[len('strangers(') : -1].replace('_', ' ')}: different captions have a mean cosine of "
        f"{row.value:.3f}, above {COLLAPSED}: this text tower is collapsed and hardly distinguishes captions; check "
        "its checkpoint and tokenizer"
        for row in rows
        if row.metric.startswith("strangers(") and row.value > COLLAPSED
    ]


def geometry_rows(sides: Sequence[Side], bootstrap: Bootstrap) -> tuple[list[Row], list[Missing]]:
    """Describes where texts lie relative to images or sounds in each space. The method of a row is "source" or
    "target". Uses the first MAX_ROWS of each.

    The texts are the captions of the images or sounds or, if fewer than two have one, the evaluated captions.
    text_mean, image_or_sound_mean: length of the mean. gap: distance of the two means. cosine_of_means: their cosine.
    pair_cosine: mean cosine of an image or sound and its caption. text_strangers: mean cosine of two different texts.
    The suffix "_centred" means: after each modality is centred by its own mean, which needs MIN_TO_CENTRE rows.
    text_strangers_centred is the mean absolute cosine of two different texts, and strangers_centred that of a text and
    an image or sound that it does not describe; signed cosines of centred vectors would average to 0.
    """
    rows: list[Row] = []
    missing: list[Missing] = []
    for side in sides:
        is_paired = len(side.media.caption_AE) > 1
        if is_paired:
            vectors = side.media.caption_AE, side.captioned_media_AE
        else:
            vectors = side.any_text_NE, side.media.vectors_NE
        text_NE, media_ME = (np.asarray(x_NE[:MAX_ROWS], np.float32) for x_NE in vectors)
        for metric, (value, n) in _figures(text_NE, media_ME, is_paired).items():
            interval = (None, None) if isinstance(value, float) else bootstrap.of_mean(value)
            rows.append(Row("geometry", side.space, metric, float(np.mean(value)), n, *interval))
        too_few = [
            f"{count} {kind}"
            for count, kind in ((len(text_NE), "texts"), (len(media_ME), MEDIA[side.space]))
            if 0 < count < MIN_TO_CENTRE
        ]
        if too_few:
            why = f"{' and '.join(too_few)}; centring needs {MIN_TO_CENTRE} or more"
            missing.append(Missing(what=f"geometry of the {side.space} space: centred figures", why=why))
    return rows, missing


def _figures(
    text_NE: Float[np.ndarray, "N E"], media_ME: Float[np.ndarray, "M E"], is_paired: bool
) -> dict[str, tuple[float | Float[np.ndarray, "n"], int]]:
    """(value, or values to average; n) by metric; see `geometry_rows`."""
    n, distinct = min(len(text_NE), len(media_ME)), len(np.unique(text_NE, axis=0))
    figures: dict[str, tuple[float | np.ndarray, int]] = {}
    for metric, x_NE in (("text_mean", text_NE), ("image_or_sound_mean", media_ME)):
        if len(x_NE):
            figures[metric] = float(np.linalg.norm(unit_rows(x_NE).mean(0))), len(x_NE)
    if n:
        figures["gap"] = gap_length(text_NE, media_ME), n
        means = unit_rows(text_NE).mean(0)[None], unit_rows(media_ME).mean(0)[None]
        figures["cosine_of_means"] = float(cosines(*means)[0]), n
    if is_paired:
        figures["pair_cosine"] = cosines(text_NE, media_ME), n
        if n >= MIN_TO_CENTRE:
            figures["pair_cosine_centred"] = cosines(centred_by_own(text_NE), centred_by_own(media_ME)), n
    if distinct > 1:
        figures["text_strangers"] = unpaired_cosine(text_NE), distinct
        if len(text_NE) >= MIN_TO_CENTRE:
            figures["text_strangers_centred"] = unpaired_absolute(text_NE, text_NE, is_paired=True), distinct
    if n >= MIN_TO_CENTRE:
        figures["strangers_centred"] = unpaired_absolute(text_NE, media_ME, is_paired=is_paired), n
    return figures


def unpaired_absolute(
    text_NE: Float[np.ndarray, "N E"], media_ME: Float[np.ndarray, "M E"], *, is_paired: bool
) -> float:
    """The mean absolute cosine of texts and the vectors that they do not describe, each set centred by its own mean.

    is_paired: text i describes row i of the other set, and every row whose text is the same. Uses the first
    MAX_PAIRED_ROWS of each.
    """
    text_NE, media_ME = text_NE[:MAX_PAIRED_ROWS], media_ME[:MAX_PAIRED_ROWS]
    cosine_NM = np.abs(centred_by_own(text_NE) @ centred_by_own(media_ME).T)
    if not is_paired:
        return float(cosine_NM.mean())
    _, number_N = np.unique(text_NE, axis=0, return_inverse=True)
    return float(cosine_NM[number_N[:, None] != number_N[None]].mean())


def rotation_rows(
    methods: Sequence[Method], captions: Captions | None, means: ModalityMeans | None, bootstrap: Bootstrap
) -> tuple[list[Row], list[Missing]]:
    """Scores how well a rotation ("procrustes") and any linear map ("ridge"), fitted to the centred vectors of the
    training captions, translate the evaluated captions.

    mean_cosine: mean cosine of a translated caption and its own target vector, both centred by the captions' mean; 1 if
    the map is exact. recall@k, median_rank, mrr: rank of the own target vector among those of all evaluated captions,
    by the same cosines. means: those of the training captions; None without their store.
    """
    linear = [method for method in methods if method.name in LINEAR]
    if captions is None or means is None or not linear:
        why = "they need evaluated captions and the store of the training captions: pass --store"
        return [], [Missing(what="linear maps between the two text spaces", why=why)]
    target_E = means.mean("target_text")
    target_NE = centred_rows(captions.target_NE, target_E)
    rows: list[Row] = []
    for method in linear:
        scorer, mapped_NE = Scorer(method.name, bootstrap), centred_rows(method.of_texts(captions.source_NS), target_E)
        rows.append(scorer.mean_row("rotation", "mean_cosine", cosines(mapped_NE, target_NE)))
        if len(target_NE) > 1:
            rows += scorer.rank_rows("rotation", paired_ranks(mapped_NE, target_NE))
    return rows, []

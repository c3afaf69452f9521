"""Estimates the mean vector of images, sounds or texts with its expected error, and warns of narrow sets."""

import dataclasses
import math

import numpy as np
from jaxtyping import Float

from c2c_jax.errors import AudioError, CaptionError, ImageError
from c2c_jax.io.vectors import unit_rows
from c2c_jax.translator.centring import ModalityMeans

MIN_FOR_MEAN = 8  # minimum number of vectors for a mean
TARGET_ERROR = 0.02  # expected error of a mean that is good enough
NARROW_FRACTION = 0.85  # of the captions' spread; images with less are too similar for a general mean
MIN_SPREAD = 1e-6  # spread below which vectors count as identical
BLOCK_ROWS = 2**14  # rows of an array that are read together

Error = type[ImageError] | type[AudioError] | type[CaptionError]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean of vectors of one kind, with its statistics.

    count: number of vectors; None if the mean itself was given. distance: to the captions' mean, or, for texts, to the
    mean that they replace; None if there is none. spread: unbiased variance of the vectors, relative to their mean
    squared length; for unit vectors, 1 − |mean|².
    """

    mean: Float[np.ndarray, "D"]
    count: int | None
    distance: float | None
    spread: float

    @property
    def mean_length(self) -> float:
        """The Euclidean length of the mean."""
        return float(np.linalg.norm(self.mean))

    @property
    def error(self) -> float | None:
        """Expected distance to the mean of all such vectors, relative to their length: √(spread / count)."""
        return math.sqrt(self.spread / self.count) if self.count else None

    @property
    def needed_count(self) -> int:
        """Number of vectors that reduces the expected error to TARGET_ERROR."""
        return math.ceil(self.spread / TARGET_ERROR**2)


class MeanAccumulator:
    """Adds up vectors and their squared lengths block by block, in float64."""

    def __init__(self, dim: int):
        self.count, self.vectors_D, self.squares = 0, np.zeros(dim), 0.0

    def add(self, x_ND: Float[np.ndarray, "N D"]) -> None:
        """Adds vectors [N, D]."""
        x_ND = np.asarray(x_ND, np.float64)
        self.count += len(x_ND)
        self.vectors_D += x_ND.sum(axis=0)
        self.squares += float(np.sum(x_ND**2))

    def estimate(self, other_D: Float[np.ndarray, "D"] | None, kind: str, error: Error) -> Estimate:
        """The estimate of the mean. other_D: the mean to measure its distance to. kind: of the vectors, in words.
        Raises `error` if they are too few or all the same."""
        require_enough(self.count, kind, error)
        mean_D = self.vectors_D / self.count
        spread = (1 - float(mean_D @ mean_D) * self.count / self.squares) * self.count / (self.count - 1)
        if spread < MIN_SPREAD:
            raise error(f"all {self.count:,} {kind} have the same vector, so they cannot be centred: pass others")
        distance = None if other_D is None else mean_distance(mean_D, other_D)
        return Estimate(mean=mean_D.astype(np.float32), count=self.count, distance=distance, spread=spread)


def with_means(
    means: ModalityMeans,
    input_norm: str,
    image_NS: Float[np.ndarray, "N S"] | None = None,
    audio_ME: Float[np.ndarray, "M E"] | None = None,
) -> tuple[ModalityMeans, Estimate | None, Estimate | None]:
    """Adds the means of raw image and sound vectors to `means`, and also returns their estimates. An estimate is None
    without vectors, or without the captions' mean that it would be used with.

    A single vector is used as the mean itself. Raises ImageError or AudioError if it cannot be a mean of unit vectors,
    for fewer than MIN_FOR_MEAN vectors, and for vectors that are all the same.
    """
    image_estimate = audio_estimate = None
    if image_NS is not None and means.source_text is not None:
        image_estimate = _estimate(image_NS, input_norm, means.source_text, "images", ImageError)
        means = dataclasses.replace(means, source_image=image_estimate.mean)
    if audio_ME is not None and means.target_text is not None:
        audio_estimate = _estimate(audio_ME, "unit", means.target_text, "sounds", AudioError)
        means = dataclasses.replace(means, target_audio=audio_estimate.mean)
    return means, image_estimate, audio_estimate


def error_line(estimate: Estimate, kind: str) -> str:
    """A line on the expected error of a mean, and how many vectors are needed. kind: of the vectors, in words."""
    needed = f"{float(f'{estimate.needed_count:.2g}'):,.0f}"
    line = f"the mean of {estimate.count:,} {kind} has an expected error of {estimate.error:.2g}"
    return f"{line}; about {needed} are needed for {TARGET_ERROR}"


def captions_spread(means: ModalityMeans, input_norm: str) -> float | None:
    """Spread 1 − |mean|² of captions' unit source vectors; None if their mean is unknown or of raw vectors."""
    return None if input_norm == "none" or means.source_text is None else _spread(means.source_text)


def narrow_warning(image_spread: float, caption_spread: float) -> str | None:
    """A warning if images are too similar for a mean of images in general, otherwise None. Spreads are 1 − |mean|² of
    unit vectors.

    Spreads in CLIP ViT-B/32: general photographs .48, captions of photographs .50, captions and labels .33, 250
    images of ten classes .24, images of one class .14 to .22. docs/calibration.md has more.
    """
    if image_spread >= NARROW_FRACTION * caption_spread:
        return None
    return (
        f"these images are too similar (spread {image_spread:.2f}, captions {caption_spread:.2f}): their mean also "
        "captures their common subject, so it is a poor mean for other images; use general images"
    )


def require_enough(count: int, kind: str, error: Error) -> None:
    """Raises `error` for fewer than MIN_FOR_MEAN vectors. kind: of the vectors, in words."""
    if count < MIN_FOR_MEAN:
        raise error(f"only {count} readable {kind}: a mean needs {MIN_FOR_MEAN} or more, preferably a few hundred")


def scaled(x_NS: Float[np.ndarray, "N S"], input_norm: str) -> Float[np.ndarray, "N S"]:
    """Scales raw vectors to unit length before they are averaged, except for input_norm "none"."""
    return unit_rows(x_NS) if input_norm != "none" else x_NS


def _estimate(
    x_ND: Float[np.ndarray, "N D"], input_norm: str, text_D: Float[np.ndarray, "D"], kind: str, error: Error
) -> Estimate:
    """The estimate for `with_means`."""
    if len(x_ND) == 1:
        mean_D = np.asarray(x_ND[0], np.float32)
        if input_norm == "none" or not np.linalg.norm(mean_D) < 1:
            raise error(
                f"a single vector of length {np.linalg.norm(mean_D):.4g} is not the mean of {kind}: pass "
                f"{MIN_FOR_MEAN} vectors or more or, for translators of unit vectors, one mean with a norm below 1"
            )
        return Estimate(mean=mean_D, count=None, distance=mean_distance(mean_D, text_D), spread=_spread(mean_D))
    sums = MeanAccumulator(x_ND.shape[1])
    for start in range(0, len(x_ND), BLOCK_ROWS):
        sums.add(scaled(x_ND[start : start + BLOCK_ROWS], input_norm))
    return sums.estimate(text_D, kind, error)


def _spread(mean_D: Float[np.ndarray, "D"]) -> float:
    """1 − |mean|²: the spread of unit vectors."""
    return 1 - float(np.sum(np.asarray(mean_D, np.float64) ** 2))


def mean_distance(mean_D: Float[np.ndarray, "D"], other_D: Float[np.ndarray, "D"]) -> float:
    """The Euclidean distance between two means."""
    return float(np.linalg.norm(np.asarray(mean_D, np.float64) - other_D))

"""A dial that moves pictures' vectors away from captions', so that a large modality gap can be studied."""

import dataclasses
import math

import numpy as np
from jaxtyping import Float

from c2c_jax.errors import ConfigError
from c2c_jax.evaluation.gaps import gap_length, unit_rows

KINDS = ("constant", "random", "gap")
SEED = 2021  # of the directions
LONGEST = 1000.0  # constant vector that a gap is sought with: then pictures are one point


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dial:
    """What is added to every unit image vector: a vector of one `length`, in one direction for all pictures
    ("constant") or in one of its own for each ("random").

    Of the kind "gap", `length` is that of the gap which a constant vector is to bring about: `set_to` makes the dial
    that does, and this one moves nothing.
    """

    kind: str = "constant"
    length: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Dial":
        """KIND:LENGTH. Raises ConfigError for anything else."""
        kind, _, length = text.partition(":")
        try:
            dial = cls(kind=kind, length=float(length))
        except ValueError:
            dial = cls(kind="", length=math.nan)
        if dial.kind not in KINDS or not 0 <= dial.length < math.inf:
            raise ConfigError(
                f"--offset {text!r} cannot be read; write constant:LENGTH or random:LENGTH, such as 0.5, or gap:LENGTH"
            )
        return dial

    def set_to(self, image_NS: Float[np.ndarray, "N S"], seen_MS: Float[np.ndarray, "M S"]) -> "Dial":
        """The dial itself; one of the kind "gap" becomes a constant one, by bisection, so that the gap between these
        pictures and these captions is of its length to 1e-6, and the natural one for 0.

        Raises ConfigError for a gap that is smaller than the natural one or larger than can be.
        """
        if self.kind != "gap":
            return self
        if not self.length:
            return Dial()

        def gap(length: float) -> float:
            return gap_length(Dial(length=length)(image_NS), seen_MS)

        low, high = 0.0, LONGEST
        if not gap(low) <= self.length <= gap(high):
            raise ConfigError(
                f"--offset gap:{self.length:g} cannot be reached by a constant vector: the natural gap is "
                f"{gap(low):.3f}, the largest {gap(high):.3f}"
            )
        while abs(gap(high) - self.length) > 1e-6 and high - low > 1e-9:
            middle = (low + high) / 2
            low, high = (middle, high) if gap(middle) < self.length else (low, middle)
        return Dial(length=high)

    def __call__(self, image_NS: Float[np.ndarray, "N S"], *draw: int) -> Float[np.ndarray, "N S"]:
        """Pictures' raw vectors with the dial turned. They keep their lengths, which a translator of raw vectors sees:
        it is the direction that changes. draw: numbers that tell these pictures' random directions from others'."""
        if not self.length or self.kind == "gap":
            return image_NS
        S = image_NS.shape[1]
        shape, seed = ((1, S), (SEED,)) if self.kind == "constant" else (image_NS.shape, (SEED, *draw))
        moved_NS = unit_rows(image_NS) + self.length * unit_rows(np.random.default_rng(seed).normal(size=shape))
        return (unit_rows(moved_NS) * np.linalg.norm(image_NS, axis=1, keepdims=True)).astype(np.float32)

"""A dial that moves pictures' vectors away from captions', so that a large modality gap can be studied."""

import dataclasses
import math

import numpy as np
from jaxtyping import Float

from c2c_jax.errors import ConfigError
from c2c_jax.evaluation.gaps import unit_rows

KINDS = ("constant", "random")
SEED = 2021  # of the directions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dial:
    """What is added to every unit image vector: a vector of one `length`, in one direction for all pictures
    ("constant") or in one of its own for each ("random")."""

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
            raise ConfigError(f"--offset {text!r} cannot be read; write constant:LENGTH or random:LENGTH, such as 0.5")
        return dial

    def __call__(self, image_NS: Float[np.ndarray, "N S"], *draw: int) -> Float[np.ndarray, "N S"]:
        """Pictures' raw vectors with the dial turned. They keep their lengths, which a translator of raw vectors sees:
        it is the direction that changes. draw: numbers that tell these pictures' random directions from others'."""
        if not self.length:
            return image_NS
        S = image_NS.shape[1]
        shape, seed = ((1, S), (SEED,)) if self.kind == "constant" else (image_NS.shape, (SEED, *draw))
        moved_NS = unit_rows(image_NS) + self.length * unit_rows(np.random.default_rng(seed).normal(size=shape))
        return (unit_rows(moved_NS) * np.linalg.norm(image_NS, axis=1, keepdims=True)).astype(np.float32)

"""The caption memory: moves images' vectors towards the nearest training captions."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float16

from c2c_jax.spaces.models.layers import unit

CAPTIONS_AT_ONCE = 8192  # captions whose cosines to a batch of images are computed together


@functools.partial(jax.tree_util.register_dataclass, data_fields=["source"], meta_fields=["weight", "temperature"])
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Memory:
    """Unit source vectors of M training captions, centred for a translator of centred vectors.

    weight: of the nearest captions in an image's new vector, from 0 to 1. With weight 0, images do not change and the
    captions are only reference queries. temperature: of the softmax over cosines, above 0.
    """

    source: Float16[Array, "M S"] | Float16[np.ndarray, "M S"]
    weight: float
    temperature: float

    def __str__(self) -> str:
        return f"caption memory of {len(self.source):,} captions, weight {self.weight:g}"

    @property
    def record(self) -> dict[str, Any]:
        """The memory's entry in the records of sounds and evaluations, whose format names the weight "share"."""
        return {"captions": len(self.source), "share": self.weight, "temperature": self.temperature}

    @property
    def settings(self) -> dict[str, float]:
        """The settings stored in a bundle's config.json."""
        return {"weight": self.weight, "temperature": self.temperature}


@jax.jit
def apply_memory(memory: Memory, source_BS: Float[Array, "B S"]) -> Float[Array, "B S"]:
    """Moves images' vectors towards their nearest captions and keeps their lengths.

    With unit vectors v, the captions' vectors M and their softmax weights w = softmax(M v / temperature), the direction
    of an image becomes weight · unit(w M) + (1 − weight) · v. With weight 1 this is DeCap's projection onto its text
    memory (Li et al. 2023, section 3.3). Computed in float32, in blocks of captions.
    """
    directions_BS = unit(source_BS)
    lengths_B1 = jnp.linalg.norm(source_BS, axis=1, keepdims=True)
    nearest_BS = unit(_nearest(memory, directions_BS))
    return lengths_B1 * unit(memory.weight * nearest_BS + (1 - memory.weight) * directions_BS)


def _nearest(memory: Memory, directions_BS: Float[Array, "B S"]) -> Float[Array, "B S"]:
    """The softmax-weighted mean of the captions, summed over blocks relative to the largest logit so far."""
    M, S = memory.source.shape
    B, count = len(directions_BS), min(CAPTIONS_AT_ONCE, M)
    queries_BS = directions_BS / memory.temperature

    def add_block(block: Array, sums: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        largest_B, total_B, weighted_BS = sums
        start = jnp.minimum(block * count, M - count)  # the last block overlaps the one before it
        captions_CS = jax.lax.dynamic_slice_in_dim(memory.source, start, count).astype(jnp.float32)
        is_new_1C = (start + jnp.arange(count) >= block * count)[None]
        with jax.default_matmul_precision("float32"):
            logits_BC = jnp.where(is_new_1C, queries_BS @ captions_CS.T, -jnp.inf)
            new_largest_B = jnp.maximum(largest_B, logits_BC.max(axis=1))
            scale_B, weights_BC = jnp.exp(largest_B - new_largest_B), jnp.exp(logits_BC - new_largest_B[:, None])
            weighted_BS = weighted_BS * scale_B[:, None] + weights_BC @ captions_CS
        return new_largest_B, total_B * scale_B + weights_BC.sum(axis=1), weighted_BS

    initial = jnp.full(B, -jnp.inf), jnp.zeros(B), jnp.zeros((B, S))
    _, total_B, weighted_BS = jax.lax.fori_loop(0, -(-M // count), add_block, initial)
    return weighted_BS / total_B[:, None]


REFERENCES = 1024  # captions that a bundle stores as reference queries if it uses no memory


def evenly_spaced(count: int) -> np.ndarray:
    """Indices of at most REFERENCES evenly spaced items of `count`."""
    return np.linspace(0, count - 1, min(count, REFERENCES)).round().astype(int)

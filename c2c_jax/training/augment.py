"""What is done to captions' vectors in training, so that a translator of texts takes pictures as well."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from c2c_jax.models.layers import unit


class Turns(NamedTuple):
    """Where vectors are turned: towards a random vector, and to which cosine to where they point now."""

    away_BS: Float[Array, "B S"]
    cosine_B1: Float[Array, "B 1"]


def draw_turns(key: jax.Array, shape: tuple[int, ...], cosines: tuple[float, float]) -> Turns:
    """Of [B, S] vectors. cosines: the range that they are drawn from, evenly."""
    of_direction, of_cosine = jax.random.split(key)
    low, high = cosines
    cosine_B1 = jax.random.uniform(of_cosine, (shape[0], 1), minval=low, maxval=high)
    return Turns(jax.random.normal(of_direction, shape), cosine_B1)


def turned(source_BS: Float[Array, "B S"], turns: Turns) -> Float[Array, "B S"]:
    """Vectors turned away from where they point; their lengths stay.

    CapDec's and CLOSE's Gaussian noise (Nukrai et al. 2022, Gu et al. 2023) with its strength said as the cosine to the
    clean vector, which means the same at every width: σ² a coordinate of unit vectors turns by 1/√(1 + S σ²).
    """
    x_BS, length_B1 = unit(source_BS), jnp.linalg.norm(source_BS, axis=1, keepdims=True)
    away_BS, cosine_B1 = turns
    away_BS = unit(away_BS - jnp.sum(away_BS * x_BS, axis=1, keepdims=True) * x_BS)
    return length_B1 * (cosine_B1 * x_BS + jnp.sqrt(1 - cosine_B1**2) * away_BS)

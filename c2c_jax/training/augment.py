"""What is done to captions' vectors in training, so that a translator of texts takes pictures as well."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32

from c2c_jax.models.layers import unit


class Turns(NamedTuple):
    """Random bits, uint32, of where vectors are turned: of a direction, and of the cosine to where they point now.

    Bits and not numbers, since numbers made of many at once are rounded differently where the many are fewer.
    """

    direction_BS: UInt32[Array, "B S"]
    cosine_B1: UInt32[Array, "B 1"]


def draw_turns(key: jax.Array, shape: tuple[int, ...]) -> Turns:
    """Of [B, S] vectors."""
    of_direction, of_cosine = jax.random.split(key)
    return Turns(
        jax.random.bits(of_direction, shape, jnp.uint32), jax.random.bits(of_cosine, (shape[0], 1), jnp.uint32)
    )


def turned(source_BS: Float[Array, "B S"], turns: Turns, cosines: tuple[float, float]) -> Float[Array, "B S"]:
    """Vectors turned away from where they point, each in a random direction and to a cosine drawn evenly from a range;
    their lengths stay.

    CapDec's and CLOSE's Gaussian noise (Nukrai et al. 2022, Gu et al. 2023) with its strength said as the cosine to the
    clean vector, which means the same at every width: σ² a coordinate of unit vectors turns by 1/√(1 + S σ²).
    """
    x_BS, length_B1 = unit(source_BS), jnp.linalg.norm(source_BS, axis=1, keepdims=True)
    # As jax.random.normal has it; unit() takes away the factor √2.
    away_BS = jax.lax.erf_inv(uniform(turns.direction_BS, (float(np.nextafter(np.float32(-1), np.float32(0))), 1.0)))
    away_BS = unit(away_BS - jnp.sum(away_BS * x_BS, axis=1, keepdims=True) * x_BS)
    cosine_B1 = uniform(turns.cosine_B1, cosines)
    return length_B1 * (cosine_B1 * x_BS + jnp.sqrt(1 - cosine_B1**2) * away_BS)


def uniform(bits: UInt32[Array, "..."], between: tuple[float, float]) -> Float[Array, "..."]:
    """What jax.random.uniform makes of the same bits: 23 of them as the fraction of a float in 1..2, less 1."""
    low, high = between
    in_0_1 = jax.lax.bitcast_convert_type((bits >> 9) | jnp.uint32(0x3F800000), jnp.float32) - 1
    return jnp.maximum(low, in_0_1 * (high - low) + low)

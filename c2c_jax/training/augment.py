"""Noise on captions' vectors in training, so that a translator of texts can translate pictures as well."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from c2c_jax.spaces.models.layers import unit


def draw_noise(key: jax.Array, shape: tuple[int, ...]) -> Float[Array, "B S"]:
    """Random vectors [B, S] whose directions are distributed evenly."""
    of_direction, _ = jax.random.split(key)
    return jax.random.normal(of_direction, shape)


def perturbed(source_BS: Float[Array, "B S"], noise_BS: Float[Array, "B S"], cosine: float) -> Float[Array, "B S"]:
    """Vectors turned towards the noise until their cosine to where they pointed is `cosine`; their lengths stay.

    CapDec's and CLOSE's Gaussian noise (Nukrai et al. 2022, Gu et al. 2023) with its strength given as the cosine to
    the clean vector, which means the same at every width: σ² a coordinate of unit vectors turns by 1/√(1 + S σ²).
    """
    x_BS, length_B1 = unit(source_BS), jnp.linalg.norm(source_BS, axis=1, keepdims=True)
    away_BS = unit(noise_BS - jnp.sum(noise_BS * x_BS, axis=1, keepdims=True) * x_BS)
    return length_B1 * (cosine * x_BS + (1 - cosine**2) ** 0.5 * away_BS)

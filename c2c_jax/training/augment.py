"""What is done to captions' vectors in training, so that a translator of texts takes pictures as well."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from c2c_jax.models.layers import unit


def noisy(source_BS: Float[Array, "B S"], key: jax.Array, cosines: tuple[float, float]) -> Float[Array, "B S"]:
    """Vectors turned away from where they point, each in a random direction and to a cosine drawn evenly from a range;
    their lengths stay.

    CapDec's and CLOSE's Gaussian noise (Nukrai et al. 2022, Gu et al. 2023) with its strength said as the cosine to the
    clean vector, which means the same at every width: σ² a coordinate of unit vectors turns by 1/√(1 + S σ²).
    """
    of_direction, of_cosine = jax.random.split(key)
    x_BS, length_B1 = unit(source_BS), jnp.linalg.norm(source_BS, axis=1, keepdims=True)
    away_BS = jax.random.normal(of_direction, source_BS.shape)
    away_BS = unit(away_BS - jnp.sum(away_BS * x_BS, axis=1, keepdims=True) * x_BS)
    low, high = cosines
    cosine_B1 = jax.random.uniform(of_cosine, (len(source_BS), 1), minval=low, maxval=high)
    return length_B1 * (cosine_B1 * x_BS + jnp.sqrt(1 - cosine_B1**2) * away_BS)

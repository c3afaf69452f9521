"""What the towers share: activations by their Hugging Face names, and attention over heads."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float


def quick_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """OpenAI CLIP's approximation x·σ(1.702 x) (Hendrycks & Gimpel 2016, section 2)."""
    return x * jax.nn.sigmoid(1.702 * x)


def gelu_exact(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """x·Φ(x) by the error function: what transformers calls "gelu", whereas jax.nn.gelu defaults to the tanh form."""
    return jax.nn.gelu(x, approximate=False)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "quick_gelu": quick_gelu,
    "gelu": gelu_exact,
    "relu": jax.nn.relu,
}


def attend(
    query: nnx.Linear,
    key: nnx.Linear,
    value: nnx.Linear,
    hidden_BLD: Float[Array, "B L D"],
    heads: int,
    *,
    mask_B11L: Bool[Array, "B 1 1 L"] | None = None,
    is_causal: bool = False,
) -> Float[Array, "B L D"]:
    """Multi-head self-attention before its output projection, scaled by 1/√K (Vaswani et al. 2017, eq. 1)."""
    B, L, D = hidden_BLD.shape
    q_BLHK, k_BLHK, v_BLHK = (
        projection(hidden_BLD).reshape(B, L, heads, D // heads) for projection in (query, key, value)
    )
    out_BLHK = jax.nn.dot_product_attention(q_BLHK, k_BLHK, v_BLHK, mask=mask_B11L, is_causal=is_causal)
    return out_BLHK.reshape(B, L, D)


def unit(x: Float[Array, "... E"]) -> Float[Array, "... E"]:
    """L2-normalised along the last axis; a zero vector stays zero, with a zero gradient."""
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))

"""Building blocks of all towers: bounds of sizes, activations, attention, and running an encoder's layers."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import msgspec
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

# Bounds of the sizes in a config.json, above all published models. Checked before anything is built.
Width = Annotated[int, msgspec.Meta(ge=1, le=2**16)]
Count = Annotated[int, msgspec.Meta(ge=1, le=2**22)]  # of tokens or positions
TokenId = Annotated[int, msgspec.Meta(ge=0, le=2**22)]
Layers = Annotated[int, msgspec.Meta(ge=1, le=128)]
Pixels = Annotated[int, msgspec.Meta(ge=1, le=2**12)]
Epsilon = Annotated[float, msgspec.Meta(ge=0, le=1)]
Activation = Literal["quick_gelu", "gelu", "relu"]


def require_whole_heads(hidden_size: int, heads: int) -> None:
    """Raises ValueError unless the heads of an attention divide its width."""
    if hidden_size % heads:
        raise ValueError(f"hidden_size {hidden_size} is not a multiple of num_attention_heads {heads}")


def quick_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """OpenAI CLIP's approximation x·σ(1.702 x) (Hendrycks & Gimpel 2016, section 2)."""
    return x * jax.nn.sigmoid(1.702 * x)


def gelu_exact(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """x·Φ(x), transformers' "gelu"; jax.nn.gelu defaults to the tanh approximation.

    Computed with erf, as in torch: jax.nn.gelu's exact form uses erfc, which takes three times as long on a CPU.
    """
    return 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "quick_gelu": quick_gelu,
    "gelu": gelu_exact,
    "relu": jax.nn.relu,
}


class Dense(nnx.Module):
    """A linear layer and an optional activation: Hugging Face's Intermediate, Pooler, SelfOutput and Output."""

    def __init__(
        self, width_in: int, width: int, activation: Callable[[Array], Array] | None = None, *, rngs: nnx.Rngs
    ):
        self.activation = activation
        self.dense = nnx.Linear(width_in, width, rngs=rngs)

    def __call__(self, x: Float[Array, "*rows D"]) -> Float[Array, "*rows F"]:
        """Applied to each state by itself."""
        return self.activation(self.dense(x)) if self.activation else self.dense(x)


def attend(
    query: nnx.Linear,
    key: nnx.Linear,
    value: nnx.Linear,
    query_BQD: Float[Array, "B Q D"],
    hidden_BLD: Float[Array, "B L D"],
    heads: int,
    mask_B1QL: Bool[Array, "B 1 Q L"] | None = None,
) -> Float[Array, "B Q D"]:
    """Multi-head attention before its output projection, scaled by 1/√K (Vaswani et al. 2017, eq. 1).

    query_BQD: the states that attend: `hidden_BLD` or some of its positions. mask_B1QL: which tokens each query attends
    to; None: all.
    """

    def projected(projection: nnx.Linear, x_BLD: Float[Array, "B L D"]) -> Float[Array, "B L H K"]:
        B, L, D = x_BLD.shape
        return projection(x_BLD).reshape(B, L, heads, D // heads)

    q_BQHK, k_BLHK, v_BLHK = projected(query, query_BQD), projected(key, hidden_BLD), projected(value, hidden_BLD)
    return jax.nn.dot_product_attention(q_BQHK, k_BLHK, v_BLHK, mask=mask_B1QL).reshape(query_BQD.shape)


def gather(hidden_BLD: Float[Array, "B L D"], positions_BQ: Int[Array, "B Q"] | None) -> Float[Array, "B Q D"]:
    """The states at the given positions of each row; None: all."""
    return hidden_BLD if positions_BQ is None else jnp.take_along_axis(hidden_BLD, positions_BQ[:, :, None], axis=1)


def run_layers(
    layers: Sequence[Any],
    hidden_BLD: Float[Array, "B L D"],
    positions_BQ: Int[Array, "B Q"],
    mask_B1LL: Bool[Array, "B 1 L L"] | None = None,
) -> Float[Array, "B Q D"]:
    """Final states at the given positions of each row; the last layer computes only these.

    layers: called as `layer(hidden_BLD, mask_B1QL, positions_BQ)`. mask_B1LL: which tokens each token attends to.
    """
    *first, last = layers
    for layer in first:
        hidden_BLD = layer(hidden_BLD, mask_B1LL)
    if mask_B1LL is not None:
        mask_B1LL = jnp.take_along_axis(mask_B1LL, positions_BQ[:, None, :, None], axis=2)
    return last(hidden_BLD, mask_B1LL, positions_BQ)


def unit(x: Float[Array, "... E"]) -> Float[Array, "... E"]:
    """L2-normalises along the last axis. A zero vector stays zero and has a zero gradient."""
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))

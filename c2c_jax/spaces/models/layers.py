"""What the towers share: activations by their Hugging Face names, and attention over heads."""

from collections.abc import Callable
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import msgspec
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

# Bounds of what a config.json may ask for, beyond all that is published: checked before anything is built.
Width = Annotated[int, msgspec.Meta(ge=1, le=2**16)]
Count = Annotated[int, msgspec.Meta(ge=1, le=2**22)]  # of tokens or positions
Layers = Annotated[int, msgspec.Meta(ge=1, le=128)]
Pixels = Annotated[int, msgspec.Meta(ge=1, le=2**12)]
Epsilon = Annotated[float, msgspec.Meta(ge=0, le=1)]
Activation = Literal["quick_gelu", "gelu", "relu"]


def quick_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """OpenAI CLIP's approximation x·σ(1.702 x) (Hendrycks & Gimpel 2016, section 2)."""
    return x * jax.nn.sigmoid(1.702 * x)


def gelu_exact(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """x·Φ(x) by the error function: what transformers calls "gelu", whereas jax.nn.gelu defaults to the tanh form.

    By erf, as torch has it: jax.nn.gelu's exact form goes by erfc, which takes three times as long on a CPU.
    """
    return 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "quick_gelu": quick_gelu,
    "gelu": gelu_exact,
    "relu": jax.nn.relu,
}


def attend(
    query: nnx.Linear,
    key: nnx.Linear,
    value: nnx.Linear,
    asking_BQD: Float[Array, "B Q D"],
    hidden_BLD: Float[Array, "B L D"],
    heads: int,
    seen_B1QL: Bool[Array, "B 1 Q L"] | None = None,
    is_by_heads: bool = False,
) -> Float[Array, "B Q D"]:
    """Multi-head attention before its output projection, scaled by 1/√K (Vaswani et al. 2017, eq. 1).

    asking_BQD: the states that queries are made of: `hidden_BLD` itself, or those few whose outcome is wanted.
    seen_B1QL: what each of them sees; without it, all of its row. is_by_heads: whether it is done by
    `attention_by_heads`, where all is seen.
    """

    def projected(projection: nnx.Linear, x_BLD: Float[Array, "B L D"]) -> Float[Array, "B L H K"]:
        B, L, D = x_BLD.shape
        return projection(x_BLD).reshape(B, L, heads, D // heads)

    q_BQHK, k_BLHK, v_BLHK = projected(query, asking_BQD), projected(key, hidden_BLD), projected(value, hidden_BLD)
    if is_by_heads:
        return attention_by_heads(q_BQHK, k_BLHK, v_BLHK).reshape(asking_BQD.shape)
    out_BQHK = jax.nn.dot_product_attention(q_BQHK, k_BLHK, v_BLHK, mask=seen_B1QL)
    return out_BQHK.reshape(asking_BQD.shape)


def attention_by_heads(
    q_BQHK: Float[Array, "B Q H K"], k_BLHK: Float[Array, "B L H K"], v_BLHK: Float[Array, "B L H K"]
) -> Float[Array, "B Q H K"]:
    """`jax.nn.dot_product_attention` one head of one row after the other, its scores computed again for the gradients.

    XLA's CPU backend multiplies many small matrices three times as slowly as one after the other, when rows are long
    and heads narrow; and the memory is that of one head's scores.
    """
    B, Q, H, K = q_BQHK.shape

    def apart(x_BLHK: Float[Array, "B L H K"]) -> Float[Array, "heads L K"]:
        return x_BLHK.transpose(0, 2, 1, 3).reshape(B * H, -1, K)

    heads = apart(q_BQHK / K**0.5), apart(k_BLHK), apart(v_BLHK)
    attended = jax.lax.map(lambda head: _attend_one(*head), heads)
    return attended.reshape(B, H, Q, K).transpose(0, 2, 1, 3)


@jax.custom_vjp
def _attend_one(q_QK: Float[Array, "Q K"], k_LK: Float[Array, "L K"], v_LK: Float[Array, "L K"]) -> Float[Array, "Q K"]:
    return _attend_one_forward(q_QK, k_LK, v_LK)[0]


def _attend_one_forward(q_QK: Array, k_LK: Array, v_LK: Array) -> tuple[Array, tuple[Array, ...]]:
    scores_QL = q_QK @ k_LK.T
    most_Q1 = scores_QL.max(axis=1, keepdims=True)
    powers_QL = jnp.exp(scores_QL - most_Q1)
    sums_Q1 = powers_QL.sum(axis=1, keepdims=True)
    out_QK = powers_QL @ v_LK / sums_Q1
    return out_QK, (q_QK, k_LK, v_LK, out_QK, most_Q1 + jnp.log(sums_Q1))


def _attend_one_backward(residuals: tuple[Array, ...], of_out_QK: Array) -> tuple[Array, Array, Array]:
    """Softmaxes are taken of the scores and of their transpose: on a CPU XLA multiplies by a transposed matrix of this
    size so slowly that a second exponential costs less (1.7 × faster so)."""
    q_QK, k_LK, v_LK, out_QK, log_sums_Q1 = residuals
    inner_Q1 = (of_out_QK * out_QK).sum(axis=1, keepdims=True)
    softmax_QL = jnp.exp(q_QK @ k_LK.T - log_sums_Q1)
    softmax_LQ = jnp.exp(k_LK @ q_QK.T - log_sums_Q1.T)
    of_scores_QL = softmax_QL * (of_out_QK @ v_LK.T - inner_Q1)
    of_scores_LQ = softmax_LQ * (v_LK @ of_out_QK.T - inner_Q1.T)
    return of_scores_QL @ k_LK, of_scores_LQ @ q_QK, softmax_LQ @ of_out_QK


_attend_one.defvjp(_attend_one_forward, _attend_one_backward)


def taken(hidden_BLD: Float[Array, "B L D"], at_BQ: Int[Array, "B Q"]) -> Float[Array, "B Q D"]:
    """The states at some places of each row."""
    return jnp.take_along_axis(hidden_BLD, at_BQ[:, :, None], axis=1)


def unit(x: Float[Array, "... E"]) -> Float[Array, "... E"]:
    """L2-normalised along the last axis; a zero vector stays zero, with a zero gradient."""
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))

"""Translators: from a source vector (CLIP) to a target vector (CLAP)."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from c2c_jax.models.layers import unit


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranslatorSpec:
    """All that fixes a translator's architecture; kept in the bundle's config.json."""

    kind: str  # "mlp"
    source_dim: int
    target_dim: int
    width: int  # hidden units of every layer but the last
    depth: int  # number of linear layers
    clamp: float  # every output coordinate is cut to ±clamp; 0: no cut
    input_norm: str  # "none": raw vectors; "unit": L2-normalised, then scaled by √source_dim to unit variance


class MLPTranslator(nnx.Module):
    """Linear layers with tanh between: at depth 4, width 512 and clamp 0.2 the model of CLIP2CLAP (Wong).

    Outputs are not normalised: the paper's objective compares them with unit targets by Euclidean distance.
    """

    def __init__(self, config: TranslatorSpec, *, rngs: nnx.Rngs):
        widths = [config.source_dim, *[config.width] * (config.depth - 1), config.target_dim]
        self.clamp = config.clamp
        self.input_norm = config.input_norm
        self.layers = nnx.List(
            [
                # torch.nn.Linear's initialisation, U(±1/√fan_in) for weights and biases alike, as in the paper's code.
                nnx.Linear(
                    fan_in,
                    fan_out,
                    kernel_init=nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
                    bias_init=_symmetric_uniform(1 / math.sqrt(fan_in)),
                    rngs=rngs,
                )
                for fan_in, fan_out in zip(widths[:-1], widths[1:], strict=True)
            ]
        )

    def __call__(self, source_BE: Float[Array, "B S"]) -> Float[Array, "B E"]:
        """Target-space vectors [B, E], float32, not normalised, of source vectors [B, S]."""
        hidden = source_BE
        if self.input_norm == "unit":
            hidden = unit(source_BE) * math.sqrt(source_BE.shape[1])
        *inner, last = self.layers
        for layer in inner:
            hidden = jnp.tanh(layer(hidden))
        out_BE = last(hidden)
        return jnp.clip(out_BE, -self.clamp, self.clamp) if self.clamp else out_BE


def _symmetric_uniform(bound: float) -> nnx.Initializer:
    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


KINDS = {"mlp": MLPTranslator}
INPUT_NORMS = ("none", "unit")


def build_translator(config: TranslatorSpec, *, rngs: nnx.Rngs) -> MLPTranslator:
    """A freshly initialised translator of the configured kind; a kind not in KINDS is a KeyError."""
    return KINDS[config.kind](config, rngs=rngs)

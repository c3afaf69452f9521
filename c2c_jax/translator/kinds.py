"""Translators: from a source vector (CLIP) to a target vector (CLAP)."""

import dataclasses
import math
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import msgspec
from flax import nnx
from jaxtyping import Array, Float

from c2c_jax.spaces.models.layers import Layers, Width, attend, gelu_exact, unit


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranslatorSpec:
    """All that fixes a translator's architecture; kept in the bundle's config.json."""

    kind: str  # a key of KINDS
    source_dim: Width
    target_dim: Width
    width: Width  # units of every hidden layer; of every token's state in a transformer
    depth: Layers  # linear layers; layers of the transformer
    heads: Width  # of the transformer's attention
    mlp_width: Width  # hidden units of the transformer's feed-forward layers
    dropout: Annotated[float, msgspec.Meta(ge=0, lt=1)]  # share of the transformer's states that a step leaves out
    clamp: Annotated[float, msgspec.Meta(ge=0, le=1e9)]  # every output coordinate is cut to ±clamp; 0: no cut
    input_norm: str  # "none": raw vectors; "unit": L2-normalised, times √source_dim; "centred": the same, once centred
    linear_first: bool = False  # whether a linear layer S → E goes before a transformer even where S = E


def _linear(fan_in: int, fan_out: int, rngs: nnx.Rngs) -> nnx.Linear:
    """Initialised as torch.nn.Linear is: U(±1/√fan_in), weights and biases alike."""
    return nnx.Linear(
        fan_in,
        fan_out,
        kernel_init=nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
        bias_init=_symmetric_uniform(1 / math.sqrt(fan_in)),
        rngs=rngs,
    )


def _symmetric_uniform(bound: float) -> nnx.Initializer:
    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Translator(nnx.Module):
    """What all kinds share. Outputs are not normalised: some objectives compare them with unit targets by distance."""

    def __init__(self, spec: TranslatorSpec):
        self.spec = spec

    def __call__(self, source_BS: Float[Array, "B S"], *, rngs: nnx.Rngs | None = None) -> Float[Array, "B E"]:
        """Target-space vectors [B, E], float32, of source vectors [B, S]; with input_norm "centred" both are centred,
        see `models.gap`. rngs: for dropout, in training only."""
        if self.spec.input_norm != "none":
            source_BS = unit(source_BS) * math.sqrt(self.spec.source_dim)
        out_BE = self.translated(source_BS, rngs)
        return jnp.clip(out_BE, -self.spec.clamp, self.spec.clamp) if self.spec.clamp else out_BE

    def translated(self, source_BS: Float[Array, "B S"], rngs: nnx.Rngs | None) -> Float[Array, "B E"]:
        raise NotImplementedError


class MLP(Translator):
    """Linear layers with tanh between.

    With depth 1, 2 and 4 the paper's linear, two-layer and (clamp 0.2) GCC model (Wong, CLIP2CLAP). In the author's
    code deeper ones end in tanh as well (`mlp5`), or have a LayerNorm behind each tanh (`mlp_layernorm`).
    """

    def __init__(self, spec: TranslatorSpec, *, rngs: nnx.Rngs):
        super().__init__(spec)
        widths = [spec.source_dim, *[spec.width] * (spec.depth - 1), spec.target_dim]
        self.layers = nnx.List([_linear(a, b, rngs) for a, b in zip(widths[:-1], widths[1:], strict=True)])
        normed = widths[1:] if spec.kind == "mlp_layernorm" else []
        self.norms = nnx.List([nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs) for width in normed])  # torch's epsilon

    def translated(self, source_BS: Float[Array, "B S"], rngs: nnx.Rngs | None) -> Float[Array, "B E"]:
        hidden = source_BS
        for number, layer in enumerate(self.layers):
            hidden = layer(hidden)
            if number < len(self.layers) - 1 or self.spec.kind in ("mlp5", "mlp_layernorm"):
                hidden = jnp.tanh(hidden)
            if self.spec.kind == "mlp_layernorm":
                hidden = self.norms[number](hidden)
        return hidden


class Linear(Translator):
    """One linear layer, its weights in closed form from the whole store (training/closed_form.py): no training."""

    def __init__(self, spec: TranslatorSpec, *, rngs: nnx.Rngs):
        super().__init__(spec)
        self.linear = _linear(spec.source_dim, spec.target_dim, rngs)

    def translated(self, source_BS: Float[Array, "B S"], rngs: nnx.Rngs | None) -> Float[Array, "B E"]:
        return self.linear(source_BS)


class Residual(Translator):
    """A linear layer, identity at first, and beside it an MLP with GELU, nothing at first (Ex-MCR's way).

    `training/closed_form.py` may put the Procrustes rotation in the identity's place.
    """

    def __init__(self, spec: TranslatorSpec, *, rngs: nnx.Rngs):
        super().__init__(spec)
        scale = 1 / math.sqrt(spec.source_dim) if spec.input_norm != "none" else 1.0  # a unit vector stays one
        self.linear = nnx.Linear(
            spec.source_dim,
            spec.target_dim,
            kernel_init=lambda key, shape, dtype: scale * jnp.eye(shape[0], shape[1], dtype=dtype),
            rngs=rngs,
        )
        widths = [spec.source_dim, *[spec.width] * (spec.depth - 1)]
        inner = [_linear(a, b, rngs) for a, b in zip(widths[:-1], widths[1:], strict=True)]
        last = nnx.Linear(widths[-1], spec.target_dim, kernel_init=nnx.initializers.zeros, rngs=rngs)
        self.layers = nnx.List([*inner, last])

    def translated(self, source_BS: Float[Array, "B S"], rngs: nnx.Rngs | None) -> Float[Array, "B E"]:
        *inner, last = self.layers
        hidden = source_BS
        for layer in inner:
            hidden = gelu_exact(layer(hidden))
        return self.linear(source_BS) + last(hidden)


class EncoderLayer(nnx.Module):
    """Post-norm, with ReLU: torch.nn.TransformerEncoderLayer's defaults."""

    def __init__(self, spec: TranslatorSpec, *, rngs: nnx.Rngs):
        self.heads = spec.heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (_linear(spec.width, spec.width, rngs) for _ in "qkvo")
        self.linear1 = _linear(spec.width, spec.mlp_width, rngs)
        self.linear2 = _linear(spec.mlp_width, spec.width, rngs)
        self.norm1 = nnx.LayerNorm(spec.width, epsilon=1e-5, rngs=rngs)
        self.norm2 = nnx.LayerNorm(spec.width, epsilon=1e-5, rngs=rngs)
        self.dropout = nnx.Dropout(spec.dropout)

    def __call__(self, hidden_BSD: Float[Array, "B S D"], rngs: nnx.Rngs | None) -> Float[Array, "B S D"]:
        def dropped(x: Float[Array, "..."]) -> Float[Array, "..."]:
            return self.dropout(x, deterministic=rngs is None, rngs=rngs)

        projections = self.q_proj, self.k_proj, self.v_proj
        attended_BSD = self.out_proj(attend(*projections, hidden_BSD, hidden_BSD, self.heads))
        hidden_BSD = self.norm1(hidden_BSD + dropped(attended_BSD))
        inner_BSF = dropped(jax.nn.relu(self.linear1(hidden_BSD)))
        return self.norm2(hidden_BSD + dropped(self.linear2(inner_BSF)))


class Transformer(Translator):
    """Every coordinate of the source vector is a token: Linear 1 → D, learned positions, post-norm layers, Linear D → 1
    (Wong, CLIP2CLAP). Where the spaces' widths differ, or the spec asks for it as the author's smallest one does, a
    linear layer takes the source vector to E coordinates first.

    Attention runs over a vector's coordinates, as the paper says; the author's code leaves out `batch_first` and so
    attends over the vectors of a batch.
    """

    def __init__(self, spec: TranslatorSpec, *, rngs: nnx.Rngs):
        super().__init__(spec)
        has_linear = spec.linear_first or spec.source_dim != spec.target_dim
        self.resized = nnx.List([_linear(spec.source_dim, spec.target_dim, rngs)] if has_linear else [])
        self.into = _linear(1, spec.width, rngs)
        self.positions = nnx.Embed(
            spec.target_dim, spec.width, embedding_init=nnx.initializers.normal(1.0), rngs=rngs
        )  # as torch.nn.Embedding
        self.layers = nnx.List([EncoderLayer(spec, rngs=rngs) for _ in range(spec.depth)])
        self.out = _linear(spec.width, 1, rngs)

    def translated(self, source_BS: Float[Array, "B S"], rngs: nnx.Rngs | None) -> Float[Array, "B E"]:
        for resize in self.resized:
            source_BS = resize(source_BS)
        hidden_BED = self.into(source_BS[:, :, None]) + self.positions.embedding[...][None]
        for layer in self.layers:
            hidden_BED = layer(hidden_BED, rngs)
        return self.out(hidden_BED)[:, :, 0]


KINDS: dict[str, type[Translator]] = {
    "linear": MLP,
    "linear2": MLP,
    "mlp": MLP,
    "mlp_layernorm": MLP,
    "mlp5": MLP,
    "transformer": Transformer,
    "residual": Residual,
    "procrustes": Linear,
    "ridge": Linear,
}
DEPTHS = {
    "linear": 1, "linear2": 2, "mlp": 4, "mlp_layernorm": 4, "mlp5": 5, "transformer": 8, "residual": 2,
    "procrustes": 1, "ridge": 1,
}  # fmt: skip
CLOSED_FORM = ("procrustes", "ridge")
INPUT_NORMS = ("none", "unit", "centred")


def build_translator(spec: TranslatorSpec, *, rngs: nnx.Rngs) -> Translator:
    """A freshly initialised translator of the configured kind; a kind not in KINDS is a KeyError."""
    return KINDS[spec.kind](spec, rngs=rngs)  # type: ignore[call-arg]

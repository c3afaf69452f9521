"""Translator kinds: neural and linear maps from a source vector (CLIP) to a target vector (CLAP).

A kind is a subclass of `Translator`, registered under a name; docs/extending.md shows how to add one.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from c2c_jax.config import INPUT_NORMS, register_class, setting, settings_as
from c2c_jax.errors import ConfigError
from c2c_jax.spaces.models.layers import gelu_exact, unit

MAX_PARAMETERS = 2**29  # 2 GiB, or three times that with the optimizer's state


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranslatorSpec:
    """A translator's architecture, as stored in the bundle's config.json."""

    kind: str = setting("mlp", "Registered translator kind.")
    source_dim: int = setting(512, "Width S of the source vectors.", ge=1, le=2**16)
    target_dim: int = setting(512, "Width E of the target vectors.", ge=1, le=2**16)
    clamp: float = setting(0.0, "Output coordinates are clipped to ±clamp; 0 = no clipping.", ge=0, le=1e9)
    input_norm: str = setting(
        "unit",
        '"none": raw; "unit": L2-normalised, then scaled by √S (unit RMS); "centred": the same, after centring.',
        choices=INPUT_NORMS,
    )
    settings: Any = None  # a dataclass, the kind's own `Settings`

    @classmethod
    def of(
        cls, kind: str, settings: Mapping[str, Any], path: str = "translator.settings.", **shared: Any
    ) -> "TranslatorSpec":
        """Builds a spec from settings by name. path: prefix of the names in messages. Raises ConfigError for an unknown
        kind or setting, and for a value of the wrong type or out of bounds."""
        own = settings_as(kind_named(kind).Settings, settings, path)
        spec = settings_as(cls, {"kind": kind, "settings": own, **shared}, "translator.")
        kind_named(kind).check(spec)
        return spec

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "TranslatorSpec":
        """The inverse of `to_json`. Fields of other kinds, which older bundles have, are ignored. Raises
        ConfigError."""
        names = {field.name for field in dataclasses.fields(cls)} - {"kind", "settings"}
        kind = fields.get("kind")
        if not isinstance(kind, str):
            raise ConfigError(f"translator.kind is {str(kind)[:40]!r}; it must be of type str")
        own = {field.name for field in dataclasses.fields(kind_named(kind).Settings)}
        shared = {name: value for name, value in fields.items() if name in names}
        if missing := names - shared.keys():
            raise ConfigError(f"translator.{min(missing)} is missing")
        return cls.of(kind, {name: value for name, value in fields.items() if name in own}, "translator.", **shared)

    def to_json(self) -> dict[str, Any]:
        """All fields as one flat JSON object."""
        fields = dataclasses.asdict(self)
        own = fields.pop("settings")
        return {**fields, **own}


class Translator(nnx.Module):
    """Base class of all kinds. Outputs are not normalised, since some objectives use their distance to unit targets."""

    is_closed_form: ClassVar[bool] = False  # whether its weights come from a closed-form fit, without training
    undecayed: ClassVar[tuple[str, ...]] = ()  # submodules without weight decay

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Settings:
        """A kind's own settings, declared with `c2c_jax.config.setting`."""

    def __init__(self, spec: TranslatorSpec):
        self.spec = spec

    @classmethod
    def check(cls, spec: TranslatorSpec) -> None:
        """Raises ConfigError for settings that do not fit together."""

    def __call__(self, source_BS: Float[Array, "B S"], *, rngs: nnx.Rngs | None = None) -> Float[Array, "B E"]:
        """Translates source vectors [B, S] into target vectors [B, E], float32.

        With input_norm "centred", inputs and outputs are centred vectors; see `translator.centring`. rngs: for dropout,
        in training only.
        """
        if self.spec.input_norm != "none":
            source_BS = unit(source_BS) * math.sqrt(self.spec.source_dim)
        out_BE = self.translate(source_BS, rngs)
        return jnp.clip(out_BE, -self.spec.clamp, self.spec.clamp) if self.spec.clamp else out_BE

    def translate(self, source_BS: Float[Array, "B S"], rngs: nnx.Rngs | None) -> Float[Array, "B E"]:
        """Translates scaled source vectors; each kind implements it."""
        raise NotImplementedError


KINDS: dict[str, type[Translator]] = {}
Kind = TypeVar("Kind", bound=type[Translator])


def register_kind(name: str) -> Callable[[Kind], Kind]:
    """Class decorator that makes a translator kind available as `config.translator.kind`. Raises ConfigError, see
    `register_class`, and for a setting that has the name of a field of TranslatorSpec."""

    def register(cls: Kind) -> Kind:
        names = [{field.name for field in dataclasses.fields(kind)} for kind in (cls.Settings, TranslatorSpec)]
        if shared := names[0] & names[1]:
            raise ConfigError(f"translator kind {name!r}: its setting {min(shared)} is one of all kinds; rename it")
        register_class(KINDS, "translator kind", name, cls)
        return cls

    return register


def kind_named(name: str) -> type[Translator]:
    """The translator class registered under a name. Raises ConfigError."""
    if name not in KINDS:
        raise ConfigError(
            f"unknown translator kind {name[:40]!r}; known are {', '.join(KINDS)}; import the module that registers it"
        )
    return KINDS[name]


def build_translator(spec: TranslatorSpec, *, rngs: nnx.Rngs) -> Translator:
    """Builds a translator with initial weights. Raises ConfigError for an unknown kind."""
    return kind_named(spec.kind)(spec, rngs=rngs)  # type: ignore[call-arg]


def _linear(fan_in: int, fan_out: int, rngs: nnx.Rngs) -> nnx.Linear:
    """A linear layer initialised like torch.nn.Linear: weights and biases from U(±1/√fan_in)."""
    bound = 1 / math.sqrt(fan_in)

    def bias_init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    kernel_init = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    return nnx.Linear(fan_in, fan_out, kernel_init=kernel_init, bias_init=bias_init, rngs=rngs)


def _depth(default: int) -> Any:
    return setting(default, "Number of linear layers.", ge=1, le=128)


def _check_size(spec: TranslatorSpec) -> None:
    width, depth = spec.settings.width, spec.settings.depth
    if width * width * depth > MAX_PARAMETERS:
        raise ConfigError(f"width {width} and depth {depth} exceed {MAX_PARAMETERS:,} parameters; reduce one of them")


@register_kind("mlp")
class MLP(Translator):
    """Linear layers with tanh between them. With clamp 0.2, this is the paper's GCC model (Wong, CLIP2CLAP)."""

    tanh_at_end: ClassVar[bool] = False
    layer_norm: ClassVar[bool] = False  # after each tanh

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Settings:
        """Settings of an MLP."""

        width: int = setting(512, "Units of the hidden layers.", ge=1, le=2**14)
        depth: int = _depth(4)

    def __init__(self, spec: TranslatorSpec, *, rngs: nnx.Rngs):
        super().__init__(spec)
        widths = [spec.source_dim, *[spec.settings.width] * (spec.settings.depth - 1), spec.target_dim]
        self.layers = nnx.List([_linear(a, b, rngs) for a, b in zip(widths[:-1], widths[1:], strict=True)])
        normed = widths[1:] if self.layer_norm else []
        self.norms = nnx.List([nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs) for width in normed])  # torch's epsilon

    @classmethod
    def check(cls, spec: TranslatorSpec) -> None:
        """Raises ConfigError for a width and depth with too many parameters."""
        _check_size(spec)

    def translate(self, source_BS: Float[Array, "B S"], rngs: nnx.Rngs | None) -> Float[Array, "B E"]:
        """Applies the layers, with tanh between them."""
        hidden = source_BS
        for number, layer in enumerate(self.layers):
            hidden = layer(hidden)
            if number < len(self.layers) - 1 or self.tanh_at_end:
                hidden = jnp.tanh(hidden)
            if self.layer_norm:
                hidden = self.norms[number](hidden)
        return hidden


@register_kind("linear")
class OneLayer(MLP):
    """The paper's first model: one linear layer."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Settings(MLP.Settings):
        """Settings of an MLP, with one layer by default."""

        depth: int = _depth(1)


@register_kind("linear2")
class TwoLayers(MLP):
    """The paper's second model: linear, tanh, linear."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Settings(MLP.Settings):
        """Settings of an MLP, with two layers by default."""

        depth: int = _depth(2)


@register_kind("mlp_layernorm")
class LayerNormMLP(MLP):
    """An MLP with tanh and LayerNorm after every layer, from the CLIP2CLAP author's code."""

    tanh_at_end = layer_norm = True


@register_kind("mlp5")
class FiveLayers(MLP):
    """An MLP that ends in tanh, from the CLIP2CLAP author's code."""

    tanh_at_end = True

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Settings(MLP.Settings):
        """Settings of an MLP, with five layers by default."""

        depth: int = _depth(5)


@register_kind("procrustes")
class Procrustes(Translator):
    """One linear layer with the Procrustes rotation and scale, fitted in closed form (training/closed_form.py)."""

    is_closed_form = True

    def __init__(self, spec: TranslatorSpec, *, rngs: nnx.Rngs):
        super().__init__(spec)
        self.linear = _linear(spec.source_dim, spec.target_dim, rngs)

    def translate(self, source_BS: Float[Array, "B S"], rngs: nnx.Rngs | None) -> Float[Array, "B E"]:
        """Applies the linear layer."""
        return self.linear(source_BS)


@register_kind("ridge")
class Ridge(Procrustes):
    """One linear layer with ridge regression's weights, fitted in closed form."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Settings:
        """Settings of ridge regression."""

        penalty: float = setting(
            1e-3, "L2 penalty λ of the ridge regression, in units of the mean squared input.", ge=0, le=1e9
        )


@register_kind("residual")
class Residual(Translator):
    """A linear layer plus an MLP with GELU whose last layer starts at zero, as in Ex-MCR (Zhang et al. 2024).

    Weight decay applies to the MLP alone, so that it pulls towards the linear layer.
    """

    undecayed = ("linear",)

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Settings(MLP.Settings):
        """Settings of the residual translator."""

        depth: int = _depth(2)
        init: str = setting("identity", "Initialisation of the linear layer.", choices=("identity", "procrustes"))

    def __init__(self, spec: TranslatorSpec, *, rngs: nnx.Rngs):
        super().__init__(spec)
        scale = 1 / math.sqrt(spec.source_dim) if spec.input_norm != "none" else 1.0  # a unit vector stays one
        self.linear = nnx.Linear(
            spec.source_dim,
            spec.target_dim,
            kernel_init=lambda key, shape, dtype: scale * jnp.eye(shape[0], shape[1], dtype=dtype),
            rngs=rngs,
        )
        widths = [spec.source_dim, *[spec.settings.width] * (spec.settings.depth - 1)]
        inner = [_linear(a, b, rngs) for a, b in zip(widths[:-1], widths[1:], strict=True)]
        last = nnx.Linear(widths[-1], spec.target_dim, kernel_init=nnx.initializers.zeros, rngs=rngs)
        self.layers = nnx.List([*inner, last])

    @classmethod
    def check(cls, spec: TranslatorSpec) -> None:
        """Raises ConfigError for a width and depth with too many parameters."""
        _check_size(spec)

    def translate(self, source_BS: Float[Array, "B S"], rngs: nnx.Rngs | None) -> Float[Array, "B E"]:
        """Adds the outputs of the linear layer and of the MLP."""
        *inner, last = self.layers
        hidden = source_BS
        for layer in inner:
            hidden = gelu_exact(layer(hidden))
        return self.linear(source_BS) + last(hidden)


class EncoderLayer(nnx.Module):
    """A post-norm transformer layer with ReLU: torch.nn.TransformerEncoderLayer's defaults."""

    def __init__(self, settings: "Transformer.Settings", *, rngs: nnx.Rngs):
        width = settings.width
        self.heads = settings.heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (_linear(width, width, rngs) for _ in "qkvo")
        self.linear1 = _linear(width, settings.mlp_width, rngs)
        self.linear2 = _linear(settings.mlp_width, width, rngs)
        self.norm1 = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
        self.norm2 = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
        self.dropout = nnx.Dropout(settings.dropout)

    def __call__(self, hidden_BSD: Float[Array, "B S D"], rngs: nnx.Rngs | None) -> Float[Array, "B S D"]:
        """Transforms the states of S tokens. rngs: for dropout; None in evaluation."""

        def dropped(x: Float[Array, "..."]) -> Float[Array, "..."]:
            return self.dropout(x, deterministic=rngs is None, rngs=rngs)

        hidden_BSD = self.norm1(hidden_BSD + dropped(self.out_proj(self._attended(hidden_BSD))))
        inner_BSF = dropped(jax.nn.relu(self.linear1(hidden_BSD)))
        return self.norm2(hidden_BSD + dropped(self.linear2(inner_BSF)))

    def _attended(self, hidden_BSD: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        """Multi-head attention before its output projection. Heads are computed one after another, and again for
        the gradient: all at once would need eight times the memory, and on a CPU twice the time."""

        def by_head(projection: nnx.Linear) -> Float[Array, "H B S K"]:
            return jnp.moveaxis(projection(hidden_BSD).reshape(*hidden_BSD.shape[:2], self.heads, -1), 2, 0)

        @jax.checkpoint
        def attend(head: tuple[Float[Array, "B S K"], ...]) -> Float[Array, "B S K"]:
            q_BSK, k_BSK, v_BSK = head
            logits_BSS = jnp.einsum("bqk,bsk->bqs", q_BSK, k_BSK) / math.sqrt(q_BSK.shape[-1])
            return jax.nn.softmax(logits_BSS) @ v_BSK

        attended_HBSK = jax.lax.map(attend, (by_head(self.q_proj), by_head(self.k_proj), by_head(self.v_proj)))
        return jnp.moveaxis(attended_HBSK, 0, 2).reshape(hidden_BSD.shape)


@register_kind("transformer")
class Transformer(Translator):
    """A transformer whose tokens are the coordinates of the source vector: Linear 1 → D, learned positions, post-norm
    layers, Linear D → 1 (Wong, CLIP2CLAP).

    If the widths of the spaces differ, a linear layer first maps the source vector to E coordinates. Attention runs
    over a vector's coordinates, as in the paper; the author's code omits `batch_first`, so it attends over the vectors
    of a batch.
    """

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Settings:
        """Settings of the transformer."""

        width: int = setting(512, "Width of a token's state.", ge=1, le=2**14)
        depth: int = setting(8, "Number of layers.", ge=1, le=128)
        heads: int = setting(8, "Attention heads.", ge=1, le=1024)
        mlp_width: int = setting(96, "Hidden units of the feed-forward layers.", ge=1, le=2**16)
        dropout: float = setting(0.0, "Fraction of the states dropped in training.", ge=0, lt=1)
        linear_first: bool = setting(False, "Whether a linear layer S → E comes first when S = E (always if S ≠ E).")

    def __init__(self, spec: TranslatorSpec, *, rngs: nnx.Rngs):
        super().__init__(spec)
        width = spec.settings.width
        has_linear = spec.settings.linear_first or spec.source_dim != spec.target_dim
        self.resized = nnx.List([_linear(spec.source_dim, spec.target_dim, rngs)] if has_linear else [])
        self.into = _linear(1, width, rngs)
        normal = nnx.initializers.normal(1.0)  # as torch.nn.Embedding
        self.positions = nnx.Embed(spec.target_dim, width, embedding_init=normal, rngs=rngs)
        self.layers = nnx.List([EncoderLayer(spec.settings, rngs=rngs) for _ in range(spec.settings.depth)])
        self.out = _linear(width, 1, rngs)

    @classmethod
    def check(cls, spec: TranslatorSpec) -> None:
        """Raises ConfigError for too many parameters, and for a width that the heads do not divide."""
        _check_size(spec)
        if spec.settings.width % spec.settings.heads:
            raise ConfigError(
                f"the transformer's width {spec.settings.width} must be a multiple of heads {spec.settings.heads}"
            )

    def translate(self, source_BS: Float[Array, "B S"], rngs: nnx.Rngs | None) -> Float[Array, "B E"]:
        """Applies the transformer to the coordinates."""
        for resize in self.resized:
            source_BS = resize(source_BS)
        hidden_BED = self.into(source_BS[:, :, None]) + self.positions.embedding[...][None]
        for layer in self.layers:
            hidden_BED = layer(hidden_BED, rngs)
        return self.out(hidden_BED)[:, :, 0]


TORCH_KINDS = tuple(KINDS)  # kinds that `c2c_jax.torch` also has

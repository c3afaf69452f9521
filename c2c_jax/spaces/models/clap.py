"""CLAP (Wu et al. 2023) with the attribute names of Hugging Face's ClapModel: the text tower (RoBERTa with a pooler and
a two-layer projection), and the whole model with the audio tower of `clap_audio`."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from c2c_jax.spaces.models.clap_audio import ClapAudioConfig, ClapAudioModelWithProjection, ClapProjectionLayer
from c2c_jax.spaces.models.layers import (
    ACTIVATIONS,
    Activation,
    Count,
    Dense,
    Epsilon,
    Layers,
    TokenId,
    Width,
    attend,
    gather,
    require_whole_heads,
    run_layers,
)
from c2c_jax.spaces.models.text import TextModel, TextTower


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClapTextConfig:
    """Sizes of the text tower and its projection. Published files omit values that equal transformers' defaults."""

    is_causal: ClassVar = False
    vocab_size: Count = 50265
    hidden_size: Width = 768
    intermediate_size: Width = 3072
    num_hidden_layers: Layers = 12
    num_attention_heads: Width = 12
    max_position_embeddings: Count = 514  # positions count from pad_token_id + 1
    type_vocab_size: Width = 1
    layer_norm_eps: Epsilon = 1e-12
    hidden_act: Activation = "gelu"
    pad_token_id: TokenId = 1
    projection_dim: Width = 512
    projection_hidden_act: Activation = "relu"

    def __post_init__(self) -> None:
        require_whole_heads(self.hidden_size, self.num_attention_heads)
        if self.max_tokens < 3:  # start token, one word, end token
            raise ValueError(
                f"max_position_embeddings {self.max_position_embeddings} leaves no room for text after pad_token_id "
                f"{self.pad_token_id}"
            )

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest text."""
        return self.max_position_embeddings - self.pad_token_id - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClapConfig:
    """Sizes of both towers."""

    text_config: ClapTextConfig
    audio_config: ClapAudioConfig

    @property
    def projection_dim(self) -> int:
        """The width of the joint space."""
        return self.audio_config.projection_dim


class ClapTextEmbeddings(nnx.Module):
    """The sum of word, position and token type embeddings, normalised."""

    def __init__(self, config: ClapTextConfig, *, rngs: nnx.Rngs):
        D = config.hidden_size
        self.pad_token_id = config.pad_token_id
        self.word_embeddings = nnx.Embed(config.vocab_size, D, rngs=rngs)
        self.position_embeddings = nnx.Embed(config.max_position_embeddings, D, rngs=rngs)
        self.token_type_embeddings = nnx.Embed(config.type_vocab_size, D, rngs=rngs)
        self.LayerNorm = nnx.LayerNorm(D, epsilon=config.layer_norm_eps, rngs=rngs)

    def __call__(
        self, input_ids_BL: Int[Array, "B L"], position_ids_BL: Int[Array, "B L"] | None = None
    ) -> Float[Array, "B L D"]:
        """Embeds tokens. position_ids_BL: None: counted from pad_token_id + 1, without padding."""
        if position_ids_BL is None:  # padding has position pad_token_id
            is_token_BL = (input_ids_BL != self.pad_token_id).astype(jnp.int32)
            position_ids_BL = jnp.cumsum(is_token_BL, axis=1) * is_token_BL + self.pad_token_id
        types_BL = jnp.zeros_like(input_ids_BL)  # a single text has no second segment
        embedded_BLD = self.word_embeddings(input_ids_BL) + self.token_type_embeddings(types_BL)
        return self.LayerNorm(embedded_BLD + self.position_embeddings(position_ids_BL))


class ClapTextSelfAttention(nnx.Module):
    """Multi-head attention before its output projection."""

    def __init__(self, config: ClapTextConfig, *, rngs: nnx.Rngs):
        D = config.hidden_size
        self.heads = config.num_attention_heads
        self.query = nnx.Linear(D, D, rngs=rngs)
        self.key = nnx.Linear(D, D, rngs=rngs)
        self.value = nnx.Linear(D, D, rngs=rngs)

    def __call__(
        self, query_BQD: Float[Array, "B Q D"], hidden_BLD: Float[Array, "B L D"], mask_B1QL: Bool[Array, "B 1 Q L"]
    ) -> Float[Array, "B Q D"]:
        """Attention output for each query. mask_B1QL: which tokens each query attends to."""
        return attend(self.query, self.key, self.value, query_BQD, hidden_BLD, self.heads, mask_B1QL)


class ClapTextResidual(nnx.Module):
    """A linear layer, then the post-norm residual: Hugging Face's SelfOutput and Output in one."""

    def __init__(self, width_in: int, config: ClapTextConfig, *, rngs: nnx.Rngs):
        self.dense = nnx.Linear(width_in, config.hidden_size, rngs=rngs)
        self.LayerNorm = nnx.LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps, rngs=rngs)

    def __call__(self, inner_BLF: Float[Array, "B L F"], residual_BLD: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        """Projects states, adds the residual and normalises."""
        return self.LayerNorm(self.dense(inner_BLF) + residual_BLD)


class ClapTextAttention(nnx.Module):
    """Self-attention, its output projection and residual."""

    def __init__(self, config: ClapTextConfig, *, rngs: nnx.Rngs):
        self.self = ClapTextSelfAttention(config, rngs=rngs)
        self.output = ClapTextResidual(config.hidden_size, config, rngs=rngs)

    def __call__(
        self, query_BQD: Float[Array, "B Q D"], hidden_BLD: Float[Array, "B L D"], mask_B1QL: Bool[Array, "B 1 Q L"]
    ) -> Float[Array, "B Q D"]:
        """The queries' states after attention; see `ClapTextSelfAttention`."""
        return self.output(self.self(query_BQD, hidden_BLD, mask_B1QL), query_BQD)


class ClapTextLayer(nnx.Module):
    """RoBERTa's post-norm layer."""

    def __init__(self, config: ClapTextConfig, *, rngs: nnx.Rngs):
        self.attention = ClapTextAttention(config, rngs=rngs)
        self.intermediate = Dense(
            config.hidden_size, config.intermediate_size, ACTIVATIONS[config.hidden_act], rngs=rngs
        )
        self.output = ClapTextResidual(config.intermediate_size, config, rngs=rngs)

    def __call__(
        self,
        hidden_BLD: Float[Array, "B L D"],
        mask_B1QL: Bool[Array, "B 1 Q L"],
        positions_BQ: Int[Array, "B Q"] | None = None,
    ) -> Float[Array, "B Q D"]:
        """States after this layer at the given positions; None: at all."""
        attended_BQD = self.attention(gather(hidden_BLD, positions_BQ), hidden_BLD, mask_B1QL)
        return self.output(self.intermediate(attended_BQD), attended_BQD)


class ClapTextEncoder(nnx.Module):
    """RoBERTa's stack of layers."""

    def __init__(self, config: ClapTextConfig, *, rngs: nnx.Rngs):
        self.layer = nnx.List([ClapTextLayer(config, rngs=rngs) for _ in range(config.num_hidden_layers)])

    def __call__(
        self, hidden_BLD: Float[Array, "B L D"], positions_BQ: Int[Array, "B Q"], mask_B1LL: Bool[Array, "B 1 L L"]
    ) -> Float[Array, "B Q D"]:
        """Final states at the given positions of each row; see `run_layers`."""
        return run_layers(self.layer, hidden_BLD, positions_BQ, mask_B1LL)


class ClapTextModel(TextModel):
    """RoBERTa with a pooler over the first token."""

    def __init__(self, config: ClapTextConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.embeddings = ClapTextEmbeddings(config, rngs=rngs)
        self.encoder = ClapTextEncoder(config, rngs=rngs)
        self.pooler = Dense(config.hidden_size, config.hidden_size, jax.nn.tanh, rngs=rngs)

    def default_pool_positions(self, input_ids_BL: Int[Array, "B L"]) -> Int[Array, "B"]:
        """The first token of each text."""
        return jnp.zeros(len(input_ids_BL), jnp.int32)

    def pooled(self, hidden_BQD: Float[Array, "B Q D"]) -> Float[Array, "B Q D"]:
        """The pooler's output for each state."""
        return self.pooler(hidden_BQD)


class ClapTextModelWithProjection(TextTower):
    """The text tower and its projection into the joint space of width E = `projection_dim`."""

    def __init__(self, config: ClapTextConfig, *, rngs: nnx.Rngs):
        self.text_model = ClapTextModel(config, rngs=rngs)
        self.text_projection = ClapProjectionLayer(config, rngs=rngs)


class ClapModel(ClapTextModelWithProjection, ClapAudioModelWithProjection):
    """Both towers and their projections into the joint space of width E."""

    def __init__(self, config: ClapConfig, *, rngs: nnx.Rngs):
        ClapAudioModelWithProjection.__init__(self, config.audio_config, rngs=rngs)
        ClapTextModelWithProjection.__init__(self, config.text_config, rngs=rngs)
        # Logarithms of the inverse temperatures: sounds against texts, and texts against sounds.
        self.logit_scale_a = nnx.Param(jnp.log(jnp.asarray(1 / 0.07)))
        self.logit_scale_t = nnx.Param(jnp.log(jnp.asarray(1 / 0.07)))

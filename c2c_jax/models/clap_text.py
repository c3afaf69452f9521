"""CLAP's text tower: RoBERTa with a pooler and CLAP's two-layer projection (Wu et al. 2023), named as in Hugging
Face's ClapTextModelWithProjection."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from c2c_jax.models.layers import ACTIVATIONS, attend


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClapTextConfig:
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int  # two more than the longest text: positions count from pad_token_id + 1
    type_vocab_size: int
    layer_norm_eps: float
    hidden_act: str
    pad_token_id: int
    projection_dim: int
    projection_hidden_act: str


class ClapTextEmbeddings(nnx.Module):
    def __init__(self, config: ClapTextConfig, *, rngs: nnx.Rngs):
        D = config.hidden_size
        self.pad_token_id = config.pad_token_id
        self.word_embeddings = nnx.Embed(config.vocab_size, D, rngs=rngs)
        self.position_embeddings = nnx.Embed(config.max_position_embeddings, D, rngs=rngs)
        self.token_type_embeddings = nnx.Embed(config.type_vocab_size, D, rngs=rngs)
        self.LayerNorm = nnx.LayerNorm(D, epsilon=config.layer_norm_eps, rngs=rngs)

    def __call__(self, ids_BL: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        is_token_BL = (ids_BL != self.pad_token_id).astype(jnp.int32)
        positions_BL = jnp.cumsum(is_token_BL, axis=1) * is_token_BL + self.pad_token_id
        types_BL = jnp.zeros_like(ids_BL)  # a single text has no second segment
        embedded_BLD = self.word_embeddings(ids_BL) + self.token_type_embeddings(types_BL)
        return self.LayerNorm(embedded_BLD + self.position_embeddings(positions_BL))


class ClapTextSelfAttention(nnx.Module):
    def __init__(self, config: ClapTextConfig, *, rngs: nnx.Rngs):
        D = config.hidden_size
        self.heads = config.num_attention_heads
        self.query = nnx.Linear(D, D, rngs=rngs)
        self.key = nnx.Linear(D, D, rngs=rngs)
        self.value = nnx.Linear(D, D, rngs=rngs)

    def __call__(
        self, asking_BQD: Float[Array, "B Q D"], hidden_BLD: Float[Array, "B L D"], mask_B11L: Bool[Array, "B 1 1 L"]
    ) -> Float[Array, "B Q D"]:
        projections = self.query, self.key, self.value
        return attend(*projections, asking_BQD, hidden_BLD, self.heads, mask_B11L=mask_B11L)


class ClapTextResidual(nnx.Module):
    """A linear layer, then the post-norm residual: Hugging Face's SelfOutput and Output in one."""

    def __init__(self, width_in: int, config: ClapTextConfig, *, rngs: nnx.Rngs):
        self.dense = nnx.Linear(width_in, config.hidden_size, rngs=rngs)
        self.LayerNorm = nnx.LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps, rngs=rngs)

    def __call__(self, inner_BLF: Float[Array, "B L F"], residual_BLD: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        return self.LayerNorm(self.dense(inner_BLF) + residual_BLD)


class ClapTextAttention(nnx.Module):
    def __init__(self, config: ClapTextConfig, *, rngs: nnx.Rngs):
        self.self = ClapTextSelfAttention(config, rngs=rngs)
        self.output = ClapTextResidual(config.hidden_size, config, rngs=rngs)

    def __call__(
        self, asking_BQD: Float[Array, "B Q D"], hidden_BLD: Float[Array, "B L D"], mask_B11L: Bool[Array, "B 1 1 L"]
    ) -> Float[Array, "B Q D"]:
        return self.output(self.self(asking_BQD, hidden_BLD, mask_B11L), asking_BQD)


class ClapTextIntermediate(nnx.Module):
    def __init__(self, config: ClapTextConfig, *, rngs: nnx.Rngs):
        self.activation = ACTIVATIONS[config.hidden_act]
        self.dense = nnx.Linear(config.hidden_size, config.intermediate_size, rngs=rngs)

    def __call__(self, hidden_BLD: Float[Array, "B L D"]) -> Float[Array, "B L F"]:
        return self.activation(self.dense(hidden_BLD))


class ClapTextLayer(nnx.Module):
    def __init__(self, config: ClapTextConfig, *, rngs: nnx.Rngs):
        self.attention = ClapTextAttention(config, rngs=rngs)
        self.intermediate = ClapTextIntermediate(config, rngs=rngs)
        self.output = ClapTextResidual(config.intermediate_size, config, rngs=rngs)

    def __call__(
        self, asking_BQD: Float[Array, "B Q D"], hidden_BLD: Float[Array, "B L D"], mask_B11L: Bool[Array, "B 1 1 L"]
    ) -> Float[Array, "B Q D"]:
        """The states after this layer of the tokens that ask: all, or those few whose outcome is wanted."""
        attended_BQD = self.attention(asking_BQD, hidden_BLD, mask_B11L)
        return self.output(self.intermediate(attended_BQD), attended_BQD)


class ClapTextEncoder(nnx.Module):
    def __init__(self, config: ClapTextConfig, *, rngs: nnx.Rngs):
        self.layer = nnx.List([ClapTextLayer(config, rngs=rngs) for _ in range(config.num_hidden_layers)])

    def __call__(self, hidden_BLD: Float[Array, "B L D"], mask_B11L: Bool[Array, "B 1 1 L"]) -> Float[Array, "B D"]:
        """The first token's final state: the last layer does nothing for the others."""
        *before, last = self.layer
        for layer in before:
            hidden_BLD = layer(hidden_BLD, hidden_BLD, mask_B11L)
        return last(hidden_BLD[:, :1], hidden_BLD, mask_B11L)[:, 0]


class ClapTextPooler(nnx.Module):
    def __init__(self, config: ClapTextConfig, *, rngs: nnx.Rngs):
        self.dense = nnx.Linear(config.hidden_size, config.hidden_size, rngs=rngs)

    def __call__(self, first_BD: Float[Array, "B D"]) -> Float[Array, "B D"]:
        return jax.nn.tanh(self.dense(first_BD))


class ClapTextModel(nnx.Module):
    def __init__(self, config: ClapTextConfig, *, rngs: nnx.Rngs):
        self.pad_token_id = config.pad_token_id
        self.embeddings = ClapTextEmbeddings(config, rngs=rngs)
        self.encoder = ClapTextEncoder(config, rngs=rngs)
        self.pooler = ClapTextPooler(config, rngs=rngs)

    def __call__(self, ids_BL: Int[Array, "B L"]) -> Float[Array, "B D"]:
        """The pooled first token. Padding is known by its id and masked, so its amount does not matter."""
        mask_B11L = (ids_BL != self.pad_token_id)[:, None, None, :]
        return self.pooler(self.encoder(self.embeddings(ids_BL), mask_B11L))


class ClapProjectionLayer(nnx.Module):
    def __init__(self, config: ClapTextConfig, *, rngs: nnx.Rngs):
        self.activation = ACTIVATIONS[config.projection_hidden_act]
        self.linear1 = nnx.Linear(config.hidden_size, config.projection_dim, rngs=rngs)
        self.linear2 = nnx.Linear(config.projection_dim, config.projection_dim, rngs=rngs)

    def __call__(self, pooled_BD: Float[Array, "B D"]) -> Float[Array, "B E"]:
        return self.linear2(self.activation(self.linear1(pooled_BD)))


class ClapTextModelWithProjection(nnx.Module):
    """The text tower and its projection into the joint space of width E = `projection_dim`."""

    def __init__(self, config: ClapTextConfig, *, rngs: nnx.Rngs):
        self.text_model = ClapTextModel(config, rngs=rngs)
        self.text_projection = ClapProjectionLayer(config, rngs=rngs)

    def encode_text(self, ids_BL: Int[Array, "B L"]) -> Float[Array, "B E"]:
        """Text projections before L2 normalisation."""
        return self.text_projection(self.text_model(ids_BL))

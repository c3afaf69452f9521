"""CLAP's text tower: RoBERTa with a pooler and CLAP's two-layer projection (Wu et al. 2023), named as in Hugging
Face's ClapTextModelWithProjection."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import msgspec
from flax import nnx
from jaxtyping import Array, Bool, Float

from c2c_jax.spaces.models.layers import ACTIVATIONS, Activation, Count, Epsilon, Layers, Width, attend, taken
from c2c_jax.spaces.packing import TokenRows


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClapTextConfig:
    vocab_size: Count
    hidden_size: Width
    intermediate_size: Width
    num_hidden_layers: Layers
    num_attention_heads: Width
    max_position_embeddings: Count  # two more than the longest text: positions count from pad_token_id + 1
    type_vocab_size: Width
    layer_norm_eps: Epsilon
    hidden_act: Activation
    pad_token_id: Annotated[int, msgspec.Meta(ge=0, le=2**22)]
    projection_dim: Width
    projection_hidden_act: Activation


class ClapTextEmbeddings(nnx.Module):
    def __init__(self, config: ClapTextConfig, *, rngs: nnx.Rngs):
        D = config.hidden_size
        self.pad_token_id = config.pad_token_id
        self.word_embeddings = nnx.Embed(config.vocab_size, D, rngs=rngs)
        self.position_embeddings = nnx.Embed(config.max_position_embeddings, D, rngs=rngs)
        self.token_type_embeddings = nnx.Embed(config.type_vocab_size, D, rngs=rngs)
        self.LayerNorm = nnx.LayerNorm(D, epsilon=config.layer_norm_eps, rngs=rngs)

    def __call__(self, tokens: TokenRows) -> Float[Array, "R L D"]:
        # A padding token that stands in a text takes no place: it has the position that padding has.
        is_token_RL = tokens.ids_RL != self.pad_token_id
        positions_RL = jnp.where(is_token_RL, tokens.places_RL + 1, 0) + self.pad_token_id
        types_RL = jnp.zeros_like(tokens.ids_RL)  # a single text has no second segment
        embedded_RLD = self.word_embeddings(tokens.ids_RL) + self.token_type_embeddings(types_RL)
        return self.LayerNorm(embedded_RLD + self.position_embeddings(positions_RL))


class ClapTextSelfAttention(nnx.Module):
    def __init__(self, config: ClapTextConfig, *, rngs: nnx.Rngs):
        D = config.hidden_size
        self.heads = config.num_attention_heads
        self.query = nnx.Linear(D, D, rngs=rngs)
        self.key = nnx.Linear(D, D, rngs=rngs)
        self.value = nnx.Linear(D, D, rngs=rngs)

    def __call__(
        self, asking_BQD: Float[Array, "B Q D"], hidden_BLD: Float[Array, "B L D"], seen_B1QL: Bool[Array, "B 1 Q L"]
    ) -> Float[Array, "B Q D"]:
        projections = self.query, self.key, self.value
        return attend(*projections, asking_BQD, hidden_BLD, self.heads, seen_B1QL)


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
        self, asking_BQD: Float[Array, "B Q D"], hidden_BLD: Float[Array, "B L D"], seen_B1QL: Bool[Array, "B 1 Q L"]
    ) -> Float[Array, "B Q D"]:
        return self.output(self.self(asking_BQD, hidden_BLD, seen_B1QL), asking_BQD)


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
        self, asking_BQD: Float[Array, "B Q D"], hidden_BLD: Float[Array, "B L D"], seen_B1QL: Bool[Array, "B 1 Q L"]
    ) -> Float[Array, "B Q D"]:
        """The states after this layer of the tokens that ask: all, or those few whose outcome is wanted."""
        attended_BQD = self.attention(asking_BQD, hidden_BLD, seen_B1QL)
        return self.output(self.intermediate(attended_BQD), attended_BQD)


class ClapTextEncoder(nnx.Module):
    def __init__(self, config: ClapTextConfig, *, rngs: nnx.Rngs):
        self.layer = nnx.List([ClapTextLayer(config, rngs=rngs) for _ in range(config.num_hidden_layers)])

    def __call__(self, hidden_RLD: Float[Array, "R L D"], tokens: TokenRows) -> Float[Array, "R Q D"]:
        """The final states at which texts are pooled: the last layer does nothing for the others."""
        seen_R1LL, seen_R1QL = tokens.seen(), tokens.seen(tokens.at_RQ)
        *before, last = self.layer
        for layer in before:
            hidden_RLD = layer(hidden_RLD, hidden_RLD, seen_R1LL)
        return last(taken(hidden_RLD, tokens.at_RQ), hidden_RLD, seen_R1QL)


class ClapTextPooler(nnx.Module):
    def __init__(self, config: ClapTextConfig, *, rngs: nnx.Rngs):
        self.dense = nnx.Linear(config.hidden_size, config.hidden_size, rngs=rngs)

    def __call__(self, first_RQD: Float[Array, "R Q D"]) -> Float[Array, "R Q D"]:
        return jax.nn.tanh(self.dense(first_RQD))


class ClapTextModel(nnx.Module):
    def __init__(self, config: ClapTextConfig, *, rngs: nnx.Rngs):
        self.embeddings = ClapTextEmbeddings(config, rngs=rngs)
        self.encoder = ClapTextEncoder(config, rngs=rngs)
        self.pooler = ClapTextPooler(config, rngs=rngs)

    def __call__(self, tokens: TokenRows) -> Float[Array, "R Q D"]:
        """The texts' first tokens, pooled."""
        return self.pooler(self.encoder(self.embeddings(tokens), tokens))


class ClapProjectionLayer(nnx.Module):
    """Of either tower, into the joint space of width E."""

    def __init__(self, D: int, E: int, activation: str, *, rngs: nnx.Rngs):
        self.activation = ACTIVATIONS[activation]
        self.linear1 = nnx.Linear(D, E, rngs=rngs)
        self.linear2 = nnx.Linear(E, E, rngs=rngs)

    def __call__(self, pooled: Float[Array, "*rows D"]) -> Float[Array, "*rows E"]:
        return self.linear2(self.activation(self.linear1(pooled)))


def text_projection(config: ClapTextConfig, rngs: nnx.Rngs) -> ClapProjectionLayer:
    sizes = config.hidden_size, config.projection_dim, config.projection_hidden_act
    return ClapProjectionLayer(*sizes, rngs=rngs)


class ClapTextModelWithProjection(nnx.Module):
    """The text tower and its projection into the joint space of width E = `projection_dim`."""

    def __init__(self, config: ClapTextConfig, *, rngs: nnx.Rngs):
        self.text_model = ClapTextModel(config, rngs=rngs)
        self.text_projection = text_projection(config, rngs)

    def encode_text(self, tokens: TokenRows) -> Float[Array, "R Q E"]:
        """Text projections before L2 normalisation."""
        return self.text_projection(self.text_model(tokens))

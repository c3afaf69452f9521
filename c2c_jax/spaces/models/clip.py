"""CLIP's text and vision towers (Radford et al. 2021), attribute by attribute as in Hugging Face's CLIPModel."""

import dataclasses
from typing import Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from c2c_jax.spaces.models.layers import (
    ACTIVATIONS,
    Activation,
    Count,
    Epsilon,
    Layers,
    Pixels,
    Width,
    attend,
    taken,
)
from c2c_jax.spaces.packing import TokenRows


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPTextConfig:
    vocab_size: Count
    hidden_size: Width
    intermediate_size: Width
    num_hidden_layers: Layers
    num_attention_heads: Width
    max_position_embeddings: Count
    layer_norm_eps: Epsilon
    hidden_act: Activation


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPVisionConfig:
    hidden_size: Width
    intermediate_size: Width
    num_hidden_layers: Layers
    num_attention_heads: Width
    num_channels: Literal[3]  # images are RGB
    image_size: Pixels
    patch_size: Pixels
    layer_norm_eps: Epsilon
    hidden_act: Activation


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPConfig:
    text: CLIPTextConfig
    vision: CLIPVisionConfig
    projection_dim: Width


class CLIPAttention(nnx.Module):
    def __init__(self, config: CLIPTextConfig | CLIPVisionConfig, *, rngs: nnx.Rngs):
        D = config.hidden_size
        self.heads = config.num_attention_heads
        self.q_proj = nnx.Linear(D, D, rngs=rngs)
        self.k_proj = nnx.Linear(D, D, rngs=rngs)
        self.v_proj = nnx.Linear(D, D, rngs=rngs)
        self.out_proj = nnx.Linear(D, D, rngs=rngs)

    def __call__(
        self,
        asking_BQD: Float[Array, "B Q D"],
        hidden_BLD: Float[Array, "B L D"],
        seen_B1QL: Bool[Array, "B 1 Q L"] | None = None,
    ) -> Float[Array, "B Q D"]:
        projections = self.q_proj, self.k_proj, self.v_proj
        return self.out_proj(attend(*projections, asking_BQD, hidden_BLD, self.heads, seen_B1QL))


class CLIPMLP(nnx.Module):
    def __init__(self, config: CLIPTextConfig | CLIPVisionConfig, *, rngs: nnx.Rngs):
        self.activation = ACTIVATIONS[config.hidden_act]
        self.fc1 = nnx.Linear(config.hidden_size, config.intermediate_size, rngs=rngs)
        self.fc2 = nnx.Linear(config.intermediate_size, config.hidden_size, rngs=rngs)

    def __call__(self, hidden_BLD: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        return self.fc2(self.activation(self.fc1(hidden_BLD)))


class CLIPEncoderLayer(nnx.Module):
    def __init__(self, config: CLIPTextConfig | CLIPVisionConfig, *, rngs: nnx.Rngs):
        self.self_attn = CLIPAttention(config, rngs=rngs)
        self.layer_norm1 = nnx.LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps, rngs=rngs)
        self.mlp = CLIPMLP(config, rngs=rngs)
        self.layer_norm2 = nnx.LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps, rngs=rngs)

    def __call__(
        self,
        hidden_BLD: Float[Array, "B L D"],
        seen_B1QL: Bool[Array, "B 1 Q L"] | None = None,
        at_BQ: Int[Array, "B Q"] | None = None,
    ) -> Float[Array, "B Q D"]:
        """The states after this layer of every token, or of those at `at_BQ` alone."""
        normed_BLD = self.layer_norm1(hidden_BLD)
        asking_BQD, residual_BQD = normed_BLD, hidden_BLD
        if at_BQ is not None:
            asking_BQD, residual_BQD = taken(normed_BLD, at_BQ), taken(hidden_BLD, at_BQ)
        hidden_BQD = residual_BQD + self.self_attn(asking_BQD, normed_BLD, seen_B1QL)
        return hidden_BQD + self.mlp(self.layer_norm2(hidden_BQD))


class CLIPEncoder(nnx.Module):
    def __init__(self, config: CLIPTextConfig | CLIPVisionConfig, *, rngs: nnx.Rngs):
        self.layers = nnx.List([CLIPEncoderLayer(config, rngs=rngs) for _ in range(config.num_hidden_layers)])

    def __call__(
        self,
        hidden_BLD: Float[Array, "B L D"],
        at_BQ: Int[Array, "B Q"],
        seen_B1LL: Bool[Array, "B 1 L L"] | None = None,
        seen_B1QL: Bool[Array, "B 1 Q L"] | None = None,
    ) -> Float[Array, "B Q D"]:
        """The final states at `at_BQ`: the last layer does nothing for the others. seen_*: what every token, and what
        those at `at_BQ` see."""
        *before, last = self.layers
        for layer in before:
            hidden_BLD = layer(hidden_BLD, seen_B1LL)
        return last(hidden_BLD, seen_B1QL, at_BQ)


class CLIPTextEmbeddings(nnx.Module):
    def __init__(self, config: CLIPTextConfig, *, rngs: nnx.Rngs):
        self.token_embedding = nnx.Embed(config.vocab_size, config.hidden_size, rngs=rngs)
        self.position_embedding = nnx.Embed(config.max_position_embeddings, config.hidden_size, rngs=rngs)

    def __call__(self, tokens: TokenRows) -> Float[Array, "R L D"]:
        return self.token_embedding(tokens.ids_RL) + self.position_embedding(tokens.places_RL)


class CLIPTextModel(nnx.Module):
    def __init__(self, config: CLIPTextConfig, *, rngs: nnx.Rngs):
        self.embeddings = CLIPTextEmbeddings(config, rngs=rngs)
        self.encoder = CLIPEncoder(config, rngs=rngs)
        self.final_layer_norm = nnx.LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps, rngs=rngs)

    def __call__(self, tokens: TokenRows) -> Float[Array, "R Q D"]:
        """The final states at the texts' ends, normalised."""
        seen_R1LL, seen_R1QL = tokens.seen(), tokens.seen(tokens.at_RQ)
        return self.final_layer_norm(self.encoder(self.embeddings(tokens), tokens.at_RQ, seen_R1LL, seen_R1QL))


class CLIPVisionEmbeddings(nnx.Module):
    def __init__(self, config: CLIPVisionConfig, *, rngs: nnx.Rngs):
        D = config.hidden_size
        patch = (config.patch_size, config.patch_size)
        positions = (config.image_size // config.patch_size) ** 2 + 1
        self.class_embedding = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (D,)))
        self.patch_embedding = nnx.Conv(
            config.num_channels, D, patch, strides=patch, padding="VALID", use_bias=False, rngs=rngs
        )
        self.position_embedding = nnx.Embed(positions, D, rngs=rngs)

    def __call__(self, pixels_BHWC: Float[Array, "B height width C"]) -> Float[Array, "B P D"]:
        patches = self.patch_embedding(pixels_BHWC)
        B, _, _, D = patches.shape
        class_B1D = jnp.broadcast_to(self.class_embedding[...], (B, 1, D))
        hidden_BPD = jnp.concatenate([class_B1D, patches.reshape(B, -1, D)], axis=1)
        return hidden_BPD + self.position_embedding(jnp.arange(hidden_BPD.shape[1]))[None]


class CLIPVisionModel(nnx.Module):
    def __init__(self, config: CLIPVisionConfig, *, rngs: nnx.Rngs):
        self.embeddings = CLIPVisionEmbeddings(config, rngs=rngs)
        # The name is misspelt in every published checkpoint.
        self.pre_layrnorm = nnx.LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps, rngs=rngs)
        self.encoder = CLIPEncoder(config, rngs=rngs)
        self.post_layernorm = nnx.LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps, rngs=rngs)

    def __call__(self, pixels_BHWC: Float[Array, "B height width C"]) -> Float[Array, "B D"]:
        """The class token's final state, normalised."""
        hidden_BPD = self.pre_layrnorm(self.embeddings(pixels_BHWC))
        class_B1 = jnp.zeros((len(hidden_BPD), 1), jnp.int32)
        return self.post_layernorm(self.encoder(hidden_BPD, class_B1)[:, 0])


class CLIPVisionModelWithProjection(nnx.Module):
    """The vision tower and its projection into the joint space of width E = `projection_dim`."""

    def __init__(self, config: CLIPVisionConfig, projection_dim: int, *, rngs: nnx.Rngs):
        self.vision_model = CLIPVisionModel(config, rngs=rngs)
        self.visual_projection = nnx.Linear(config.hidden_size, projection_dim, use_bias=False, rngs=rngs)

    def encode_image(self, pixels_BHWC: Float[Array, "B height width C"]) -> Float[Array, "B E"]:
        """Image projections before L2 normalisation, of normalised pixels, channels last."""
        return self.visual_projection(self.vision_model(pixels_BHWC))


class CLIPModel(CLIPVisionModelWithProjection):
    """Both towers and their projections."""

    def __init__(self, config: CLIPConfig, *, rngs: nnx.Rngs):
        super().__init__(config.vision, config.projection_dim, rngs=rngs)
        self.text_model = CLIPTextModel(config.text, rngs=rngs)
        self.text_projection = nnx.Linear(config.text.hidden_size, config.projection_dim, use_bias=False, rngs=rngs)
        self.logit_scale = nnx.Param(jnp.log(jnp.asarray(1 / 0.07)))  # CLIP section 2.5

    def encode_text(self, tokens: TokenRows) -> Float[Array, "R Q E"]:
        """Text projections before L2 normalisation."""
        return self.text_projection(self.text_model(tokens))

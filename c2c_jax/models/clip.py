"""CLIP's text and vision towers (Radford et al. 2021), attribute by attribute as in Hugging Face's CLIPModel."""

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from c2c_jax.models.layers import ACTIVATIONS, attend, taken


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPTextConfig:
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    layer_norm_eps: float
    hidden_act: str
    eos_token_id: int  # 2 in old configs, which means: pool at the largest token id


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPVisionConfig:
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_channels: int
    image_size: int  # pixels
    patch_size: int  # pixels
    layer_norm_eps: float
    hidden_act: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPConfig:
    text: CLIPTextConfig
    vision: CLIPVisionConfig
    projection_dim: int


class CLIPAttention(nnx.Module):
    def __init__(self, config: CLIPTextConfig | CLIPVisionConfig, *, rngs: nnx.Rngs):
        D = config.hidden_size
        self.heads = config.num_attention_heads
        self.q_proj = nnx.Linear(D, D, rngs=rngs)
        self.k_proj = nnx.Linear(D, D, rngs=rngs)
        self.v_proj = nnx.Linear(D, D, rngs=rngs)
        self.out_proj = nnx.Linear(D, D, rngs=rngs)

    def __call__(
        self, hidden_BLD: Float[Array, "B L D"], *, is_causal: bool, at_B: Int[Array, "B"] | None = None
    ) -> Float[Array, "B Q D"]:
        """Of every token, or of those at `at_B` alone (Q = 1)."""
        projections = self.q_proj, self.k_proj, self.v_proj
        if at_B is None:
            return self.out_proj(attend(*projections, hidden_BLD, hidden_BLD, self.heads, is_causal=is_causal))
        is_seen_BL = jnp.arange(hidden_BLD.shape[1])[None] <= (at_B[:, None] if is_causal else hidden_BLD.shape[1])
        mask_B11L = jnp.broadcast_to(is_seen_BL, hidden_BLD.shape[:2])[:, None, None]
        return self.out_proj(attend(*projections, taken(hidden_BLD, at_B), hidden_BLD, self.heads, mask_B11L=mask_B11L))


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
        self, hidden_BLD: Float[Array, "B L D"], *, is_causal: bool, at_B: Int[Array, "B"] | None = None
    ) -> Float[Array, "B Q D"]:
        attended_BQD = self.self_attn(self.layer_norm1(hidden_BLD), is_causal=is_causal, at_B=at_B)
        hidden_BQD = attended_BQD + (hidden_BLD if at_B is None else taken(hidden_BLD, at_B))
        return hidden_BQD + self.mlp(self.layer_norm2(hidden_BQD))


class CLIPEncoder(nnx.Module):
    def __init__(self, config: CLIPTextConfig | CLIPVisionConfig, *, rngs: nnx.Rngs):
        self.layers = nnx.List([CLIPEncoderLayer(config, rngs=rngs) for _ in range(config.num_hidden_layers)])

    def __call__(
        self, hidden_BLD: Float[Array, "B L D"], *, is_causal: bool, at_B: Int[Array, "B"] | None = None
    ) -> Float[Array, "B Q D"]:
        """All final states, or those at `at_B` alone: the last layer then does nothing for the others."""
        *before, last = self.layers
        for layer in before:
            hidden_BLD = layer(hidden_BLD, is_causal=is_causal)
        return last(hidden_BLD, is_causal=is_causal, at_B=at_B)


class CLIPTextEmbeddings(nnx.Module):
    def __init__(self, config: CLIPTextConfig, *, rngs: nnx.Rngs):
        self.token_embedding = nnx.Embed(config.vocab_size, config.hidden_size, rngs=rngs)
        self.position_embedding = nnx.Embed(config.max_position_embeddings, config.hidden_size, rngs=rngs)

    def __call__(self, ids_BL: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        return self.token_embedding(ids_BL) + self.position_embedding(jnp.arange(ids_BL.shape[1]))[None]


class CLIPTextModel(nnx.Module):
    def __init__(self, config: CLIPTextConfig, *, rngs: nnx.Rngs):
        self.eos_token_id = config.eos_token_id
        self.embeddings = CLIPTextEmbeddings(config, rngs=rngs)
        self.encoder = CLIPEncoder(config, rngs=rngs)
        self.final_layer_norm = nnx.LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps, rngs=rngs)

    def __call__(self, ids_BL: Int[Array, "B L"]) -> Float[Array, "B D"]:
        """The final state at the end-of-text token, which by causality no later (padding) token can touch."""
        # Configs older than transformers PR 24773 say eos_token_id 2, while the true end-of-text id is the largest.
        is_end_BL = ids_BL if self.eos_token_id == 2 else (ids_BL == self.eos_token_id).astype(jnp.int32)
        end_B = jnp.argmax(is_end_BL, axis=1)
        return self.final_layer_norm(self.encoder(self.embeddings(ids_BL), is_causal=True, at_B=end_B)[:, 0])


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
        class_B = jnp.zeros(len(hidden_BPD), jnp.int32)
        return self.post_layernorm(self.encoder(hidden_BPD, is_causal=False, at_B=class_B)[:, 0])


class CLIPModel(nnx.Module):
    """Both towers and their projections into the joint space of width E = `projection_dim`."""

    def __init__(self, config: CLIPConfig, *, rngs: nnx.Rngs):
        E = config.projection_dim
        self.text_model = CLIPTextModel(config.text, rngs=rngs)
        self.vision_model = CLIPVisionModel(config.vision, rngs=rngs)
        self.text_projection = nnx.Linear(config.text.hidden_size, E, use_bias=False, rngs=rngs)
        self.visual_projection = nnx.Linear(config.vision.hidden_size, E, use_bias=False, rngs=rngs)
        self.logit_scale = nnx.Param(jnp.log(jnp.asarray(1 / 0.07)))  # CLIP section 2.5

    def encode_text(self, ids_BL: Int[Array, "B L"]) -> Float[Array, "B E"]:
        """Text projections before L2 normalisation. Ids must hold the end-of-text token; what follows it is ignored."""
        return self.text_projection(self.text_model(ids_BL))

    def encode_image(self, pixels_BHWC: Float[Array, "B height width C"]) -> Float[Array, "B E"]:
        """Image projections before L2 normalisation, of normalised pixels, channels last."""
        return self.visual_projection(self.vision_model(pixels_BHWC))

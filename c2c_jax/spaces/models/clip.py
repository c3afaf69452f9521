"""CLIP's text and vision towers (Radford et al. 2021) with the attribute names of Hugging Face's CLIPModel."""

import dataclasses
from typing import ClassVar, Literal

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
    TokenId,
    Width,
    attend,
    gather,
    require_whole_heads,
    run_layers,
)
from c2c_jax.spaces.models.text import TextModel, TextTower


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPTextConfig:
    """Sizes of the text tower. Published files omit values that equal transformers' defaults, which are these."""

    is_causal: ClassVar = True
    vocab_size: Count = 49408
    hidden_size: Width = 512
    intermediate_size: Width = 2048
    num_hidden_layers: Layers = 12
    num_attention_heads: Width = 8
    max_position_embeddings: Count = 77
    layer_norm_eps: Epsilon = 1e-5
    hidden_act: Activation = "quick_gelu"
    # Texts are pooled at this token. Files older than transformers' PR 24773 have 2, which means the largest id.
    eos_token_id: TokenId = 49407

    def __post_init__(self) -> None:
        require_whole_heads(self.hidden_size, self.num_attention_heads)

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest text."""
        return self.max_position_embeddings


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPVisionConfig:
    """Sizes of the vision tower and of its projection."""

    hidden_size: Width = 768
    intermediate_size: Width = 3072
    num_hidden_layers: Layers = 12
    num_attention_heads: Width = 12
    num_channels: Literal[3] = 3  # images are RGB
    image_size: Pixels = 224
    patch_size: Pixels = 32
    layer_norm_eps: Epsilon = 1e-5
    hidden_act: Activation = "quick_gelu"
    projection_dim: Width = 512

    def __post_init__(self) -> None:
        require_whole_heads(self.hidden_size, self.num_attention_heads)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPConfig:
    """Sizes of both towers."""

    text_config: CLIPTextConfig
    vision_config: CLIPVisionConfig

    @property
    def projection_dim(self) -> int:
        """The width of the joint space."""
        return self.vision_config.projection_dim


class CLIPAttention(nnx.Module):
    """Multi-head attention."""

    def __init__(self, config: CLIPTextConfig | CLIPVisionConfig, *, rngs: nnx.Rngs):
        D = config.hidden_size
        self.heads = config.num_attention_heads
        self.q_proj = nnx.Linear(D, D, rngs=rngs)
        self.k_proj = nnx.Linear(D, D, rngs=rngs)
        self.v_proj = nnx.Linear(D, D, rngs=rngs)
        self.out_proj = nnx.Linear(D, D, rngs=rngs)

    def __call__(
        self,
        query_BQD: Float[Array, "B Q D"],
        hidden_BLD: Float[Array, "B L D"],
        mask_B1QL: Bool[Array, "B 1 Q L"] | None = None,
    ) -> Float[Array, "B Q D"]:
        """Attention output for each query. mask_B1QL: which tokens each query attends to; None: all."""
        projections = self.q_proj, self.k_proj, self.v_proj
        return self.out_proj(attend(*projections, query_BQD, hidden_BLD, self.heads, mask_B1QL))


class CLIPMLP(nnx.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, config: CLIPTextConfig | CLIPVisionConfig, *, rngs: nnx.Rngs):
        self.activation = ACTIVATIONS[config.hidden_act]
        self.fc1 = nnx.Linear(config.hidden_size, config.intermediate_size, rngs=rngs)
        self.fc2 = nnx.Linear(config.intermediate_size, config.hidden_size, rngs=rngs)

    def __call__(self, hidden_BLD: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        """Applied to each state by itself."""
        return self.fc2(self.activation(self.fc1(hidden_BLD)))


class CLIPEncoderLayer(nnx.Module):
    """A pre-norm transformer layer."""

    def __init__(self, config: CLIPTextConfig | CLIPVisionConfig, *, rngs: nnx.Rngs):
        self.self_attn = CLIPAttention(config, rngs=rngs)
        self.layer_norm1 = nnx.LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps, rngs=rngs)
        self.mlp = CLIPMLP(config, rngs=rngs)
        self.layer_norm2 = nnx.LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps, rngs=rngs)

    def __call__(
        self,
        hidden_BLD: Float[Array, "B L D"],
        mask_B1QL: Bool[Array, "B 1 Q L"] | None = None,
        positions_BQ: Int[Array, "B Q"] | None = None,
    ) -> Float[Array, "B Q D"]:
        """States after this layer at the given positions; None: at all."""
        normed_BLD = self.layer_norm1(hidden_BLD)
        attended_BQD = self.self_attn(gather(normed_BLD, positions_BQ), normed_BLD, mask_B1QL)
        hidden_BQD = gather(hidden_BLD, positions_BQ) + attended_BQD
        return hidden_BQD + self.mlp(self.layer_norm2(hidden_BQD))


class CLIPEncoder(nnx.Module):
    """CLIP's stack of layers."""

    def __init__(self, config: CLIPTextConfig | CLIPVisionConfig, *, rngs: nnx.Rngs):
        self.layers = nnx.List([CLIPEncoderLayer(config, rngs=rngs) for _ in range(config.num_hidden_layers)])

    def __call__(
        self,
        hidden_BLD: Float[Array, "B L D"],
        positions_BQ: Int[Array, "B Q"],
        mask_B1LL: Bool[Array, "B 1 L L"] | None = None,
    ) -> Float[Array, "B Q D"]:
        """Final states at the given positions of each row; see `run_layers`."""
        return run_layers(self.layers, hidden_BLD, positions_BQ, mask_B1LL)


class CLIPTextEmbeddings(nnx.Module):
    """The sum of token and position embeddings."""

    def __init__(self, config: CLIPTextConfig, *, rngs: nnx.Rngs):
        self.token_embedding = nnx.Embed(config.vocab_size, config.hidden_size, rngs=rngs)
        self.position_embedding = nnx.Embed(config.max_position_embeddings, config.hidden_size, rngs=rngs)

    def __call__(
        self, input_ids_BL: Int[Array, "B L"], position_ids_BL: Int[Array, "#B L"] | None = None
    ) -> Float[Array, "B L D"]:
        """Embeds tokens. position_ids_BL: None: 0, 1, 2, …"""
        if position_ids_BL is None:
            position_ids_BL = jnp.arange(input_ids_BL.shape[1])[None]
        return self.token_embedding(input_ids_BL) + self.position_embedding(position_ids_BL)


class CLIPTextModel(TextModel):
    """A causal transformer over tokens, pooled at the end token."""

    def __init__(self, config: CLIPTextConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.embeddings = CLIPTextEmbeddings(config, rngs=rngs)
        self.encoder = CLIPEncoder(config, rngs=rngs)
        self.final_layer_norm = nnx.LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps, rngs=rngs)

    def default_pool_positions(self, input_ids_BL: Int[Array, "B L"]) -> Int[Array, "B"]:
        """Position of the first end token of each text."""
        end = self.config.eos_token_id
        return (input_ids_BL if end == 2 else input_ids_BL == end).argmax(axis=1)

    def pooled(self, hidden_BQD: Float[Array, "B Q D"]) -> Float[Array, "B Q D"]:
        """The normalised final states."""
        return self.final_layer_norm(hidden_BQD)


class CLIPVisionEmbeddings(nnx.Module):
    """The class token and the patches of an image, with their positions."""

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
        """Embeds images. P: the class token, then the patches row by row."""
        patches = self.patch_embedding(pixels_BHWC)
        B, _, _, D = patches.shape
        class_B1D = jnp.broadcast_to(self.class_embedding[...], (B, 1, D))
        hidden_BPD = jnp.concatenate([class_B1D, patches.reshape(B, -1, D)], axis=1)
        return hidden_BPD + self.position_embedding(jnp.arange(hidden_BPD.shape[1]))[None]


class CLIPVisionModel(nnx.Module):
    """A transformer over the patches of an image (ViT), pooled at the class token."""

    def __init__(self, config: CLIPVisionConfig, *, rngs: nnx.Rngs):
        self.config = config
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

    def __init__(self, config: CLIPVisionConfig, *, rngs: nnx.Rngs):
        self.vision_model = CLIPVisionModel(config, rngs=rngs)
        self.visual_projection = nnx.Linear(config.hidden_size, config.projection_dim, use_bias=False, rngs=rngs)

    def encode_image(self, pixels_BHWC: Float[Array, "B height width C"]) -> Float[Array, "B E"]:
        """Image projections before L2 normalisation. pixels_BHWC: normalised."""
        return self.visual_projection(self.vision_model(pixels_BHWC))


class CLIPModel(TextTower, CLIPVisionModelWithProjection):
    """Both towers and their projections."""

    def __init__(self, config: CLIPConfig, *, rngs: nnx.Rngs):
        CLIPVisionModelWithProjection.__init__(self, config.vision_config, rngs=rngs)
        self.text_model = CLIPTextModel(config.text_config, rngs=rngs)
        width, E = config.text_config.hidden_size, config.projection_dim
        self.text_projection = nnx.Linear(width, E, use_bias=False, rngs=rngs)
        self.logit_scale = nnx.Param(jnp.log(jnp.asarray(1 / 0.07)))  # CLIP section 2.5

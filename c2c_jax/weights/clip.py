"""Hugging Face CLIP checkpoints ↔ `models.clip.CLIPModel`."""

from typing import Any

from flax import nnx

from c2c_jax.models.clip import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig
from c2c_jax.weights.folders import sizes_from
from c2c_jax.weights.rules import AS_IS, CONV, LINEAR, Rule, Table, leaf

TABLE = Table(
    rules=(
        Rule(r"logit_scale", r"logit_scale", AS_IS),
        Rule(r"vision_model\.embeddings\.class_embedding", r"vision_model\.embeddings\.class_embedding", AS_IS),
        leaf(r"[\w.]+\.(?:token|position)_embedding", "weight", "embedding"),
        leaf(r"vision_model\.embeddings\.patch_embedding", "weight", "kernel", CONV),
        leaf(r"[\w.]+\.(?:layer_norm[12]|final_layer_norm|pre_layrnorm|post_layernorm)", "weight", "scale"),
        leaf(r"[\w.]+\.(?:[qkv]_proj|out_proj|fc[12])", "weight", "kernel", LINEAR),
        leaf(r"(?:text|visual)_projection", "weight", "kernel", LINEAR),
        leaf(r"[\w.]+", "bias", "bias"),
    ),
    ignored=(r"(?:text|vision)_model\.embeddings\.position_ids",),  # a buffer of files written before 2023
)


def build(config: Any) -> CLIPModel:
    """The module for a transformers CLIPConfig, with initial weights."""
    sizes = CLIPConfig(
        text=sizes_from(CLIPTextConfig, config.text_config),
        vision=sizes_from(CLIPVisionConfig, config.vision_config),
        projection_dim=config.projection_dim,
    )
    return CLIPModel(sizes, rngs=nnx.Rngs(0))

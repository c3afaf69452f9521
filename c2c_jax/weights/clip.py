"""Hugging Face CLIP checkpoints ↔ `models.clip.CLIPModel`; of the same files, the vision tower alone."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax import nnx

from c2c_jax.errors import CheckpointError
from c2c_jax.models.clip import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig, CLIPVisionModelWithProjection
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
VISION_TABLE = dataclasses.replace(
    TABLE, ignored=(*TABLE.ignored, r"text_model\..+", r"text_projection\.weight", r"logit_scale")
)


# What transformers' CLIPVisionConfig and CLIPConfig fill in where a published config.json says nothing.
VISION_DEFAULTS: dict[str, Any] = dict(
    hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, num_channels=3,
    image_size=224, patch_size=32, layer_norm_eps=1e-5, hidden_act="quick_gelu",
)  # fmt: skip
PROJECTION_DIM = 512


def build(config: Any, seed: int = 0) -> CLIPModel:
    """The module for a transformers CLIPConfig, with initial weights by the seed."""
    sizes = CLIPConfig(
        text=sizes_from(CLIPTextConfig, config.text_config),
        vision=sizes_from(CLIPVisionConfig, config.vision_config),
        projection_dim=config.projection_dim,
    )
    return CLIPModel(sizes, rngs=nnx.Rngs(seed))


def build_vision(content: Mapping[str, Any]) -> CLIPVisionModelWithProjection:
    """The vision tower alone for a config.json, read without transformers, which would import torch."""
    return CLIPVisionModelWithProjection(vision_sizes(content), projection_dim(content), rngs=nnx.Rngs(0))


def vision_sizes(content: Mapping[str, Any]) -> CLIPVisionConfig:
    """The vision tower's sizes by a config.json. Raises CheckpointError where they make no tower."""
    # Files of 2021 have the sizes twice; transformers takes those of `vision_config_dict`.
    told = content.get("vision_config_dict") or content.get("vision_config") or {}
    sizes = {name: told.get(name, default) for name, default in VISION_DEFAULTS.items()}
    for name, default in VISION_DEFAULTS.items():
        if isinstance(default, int) and not (isinstance(sizes[name], int) and sizes[name] > 0):
            raise CheckpointError(f"config.json makes no model: vision {name} {sizes[name]!r}; fetch it again")
    if sizes["hidden_size"] % sizes["num_attention_heads"]:
        raise CheckpointError("config.json makes no model: vision hidden_size is no multiple of num_attention_heads")
    return CLIPVisionConfig(**sizes)


def projection_dim(content: Mapping[str, Any]) -> int:
    """The width of the joint space by a config.json."""
    return content.get("projection_dim", PROJECTION_DIM)

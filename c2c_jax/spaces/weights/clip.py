"""Hugging Face CLIP checkpoints ↔ `models.clip.CLIPModel`; of the same files, the vision tower alone."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax import nnx

from c2c_jax.errors import CheckpointError
from c2c_jax.spaces.models.clip import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)
from c2c_jax.spaces.models.layers import Width
from c2c_jax.spaces.weights.folders import checked_sizes, sizes_from
from c2c_jax.spaces.weights.rules import AS_IS, CONV, LINEAR, Rule, Table, leaf

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
    layers=lambda config: {
        "text_model.encoder.layers": config.text_config.num_hidden_layers,
        "vision_model.encoder.layers": config.vision_config.num_hidden_layers,
    },
)
VISION_TABLE = dataclasses.replace(
    TABLE,
    ignored=(*TABLE.ignored, r"text_model\..+", r"text_projection\.weight", r"logit_scale"),
    layers=lambda content: {"vision_model.encoder.layers": vision_sizes(content).num_hidden_layers},
)


# What transformers' CLIPVisionConfig and CLIPConfig fill in where a published config.json says nothing.
VISION_DEFAULTS: dict[str, Any] = dict(
    hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, num_channels=3,
    image_size=224, patch_size=32, layer_norm_eps=1e-5, hidden_act="quick_gelu",
)  # fmt: skip
PROJECTION_DIM = 512


def sizes(config: Any) -> CLIPConfig:
    """Both towers' sizes by a transformers CLIPConfig. Raises CheckpointError where they make no model."""
    text, vision = sizes_from(CLIPTextConfig, config.text_config), sizes_from(CLIPVisionConfig, config.vision_config)
    for name, tower in (("text", text), ("vision", vision)):
        _require_heads(name, tower)
    if type(config.text_config.eos_token_id) is not int:
        raise CheckpointError(f"its sizes make no model: eos_token_id {config.text_config.eos_token_id!r:.60}")
    return checked_sizes(CLIPConfig, dict(text=text, vision=vision, projection_dim=config.projection_dim))


def build(config: Any, rngs: nnx.Rngs) -> CLIPModel:
    """The module for a transformers CLIPConfig, with random initial weights."""
    return CLIPModel(sizes(config), rngs=rngs)


def build_vision(content: Mapping[str, Any], rngs: nnx.Rngs) -> CLIPVisionModelWithProjection:
    """The vision tower alone for a config.json, read without transformers, which would import torch."""
    return CLIPVisionModelWithProjection(vision_sizes(content), projection_dim(content), rngs=rngs)


def vision_sizes(content: Mapping[str, Any]) -> CLIPVisionConfig:
    """The vision tower's sizes by a config.json. Raises CheckpointError where they make no tower."""
    # Files of 2021 have the sizes twice; transformers takes those of `vision_config_dict`.
    fields = content.get("vision_config_dict") or content.get("vision_config") or {}
    if not isinstance(fields, dict):
        raise CheckpointError("its sizes make no model: its vision_config is not an object")
    read = checked_sizes(CLIPVisionConfig, {name: fields.get(name, value) for name, value in VISION_DEFAULTS.items()})
    _require_heads("vision", read)
    return read


def _require_heads(tower: str, read: CLIPTextConfig | CLIPVisionConfig) -> None:
    if read.hidden_size % read.num_attention_heads:
        raise CheckpointError(
            f"its sizes make no model: {tower} hidden_size {read.hidden_size} is not a multiple of "
            f"num_attention_heads {read.num_attention_heads}"
        )


@dataclasses.dataclass(frozen=True)
class _Joint:
    projection_dim: Width = PROJECTION_DIM


def projection_dim(content: Mapping[str, Any]) -> int:
    """The width of the joint space by a config.json. Raises CheckpointError where it is none."""
    return checked_sizes(_Joint, content).projection_dim

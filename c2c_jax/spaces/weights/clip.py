"""Hugging Face CLIP checkpoints ↔ `models.clip.CLIPModel`, or its vision tower alone."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from c2c_jax.spaces.models.clip import CLIPConfig
from c2c_jax.spaces.weights.configs import config_of, tower_content
from c2c_jax.spaces.weights.rules import Rule, WeightTable, conv, embedding, linear, norm

TABLE = WeightTable(
    rules=(
        Rule(r"logit_scale", r"logit_scale"),
        Rule(r"vision_model\.embeddings\.class_embedding", r"vision_model\.embeddings\.class_embedding"),
        *embedding(r"[\w.]+\.(?:token|position)_embedding"),
        *conv(r"vision_model\.embeddings\.patch_embedding"),
        *norm(r"[\w.]+\.(?:layer_norm[12]|final_layer_norm|pre_layrnorm|post_layernorm)"),
        *linear(r"[\w.]+\.(?:[qkv]_proj|out_proj|fc[12])|(?:text|visual)_projection"),
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
    layers=lambda config: {"vision_model.encoder.layers": config.num_hidden_layers},
)


def config(content: Mapping[str, Any]) -> CLIPConfig:
    """Reads both towers' sizes from a config.json. Raises CheckpointError for invalid sizes."""
    return config_of(CLIPConfig, {name: tower_content(content, name) for name in ("text_config", "vision_config")})

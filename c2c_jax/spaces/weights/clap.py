"""Hugging Face CLAP checkpoints ↔ `models.clap.ClapModel`, or one of its towers alone.

Three kinds of folder exist: a whole ClapModel such as `laion/clap-htsat-unfused`, AudioLDM's `text_encoder` (a
ClapTextModelWithProjection), and a ClapAudioModelWithProjection.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from c2c_jax.spaces.models.clap import ClapConfig, ClapTextConfig
from c2c_jax.spaces.models.clap_audio import ClapAudioConfig, relative_position_index
from c2c_jax.spaces.weights.configs import config_of, tower_content
from c2c_jax.spaces.weights.rules import Rule, WeightTable, batch_norm, conv, embedding, leaf, linear, norm

_ENCODER = r"audio_model\.audio_encoder"
_FUSION = rf"{_ENCODER}\.patch_embed\.fusion_model"
_TEXT_BUFFERS = (r"text_model\.embeddings\.(?:position_ids|token_type_ids)",)
_AUDIO_BUFFERS = (r"audio_model\.[\w.]+\.(?:relative_position_index|num_batches_tracked)",)


def _text_constants(config: ClapTextConfig) -> dict[str, np.ndarray]:
    positions = np.arange(config.max_position_embeddings, dtype=np.int64)[None]
    return {
        "text_model.embeddings.position_ids": positions,
        "text_model.embeddings.token_type_ids": np.zeros_like(positions),
    }


def _audio_constants(config: ClapAudioConfig) -> dict[str, np.ndarray]:
    encoder = "audio_model.audio_encoder"
    norms = [f"{encoder}.batch_norm"]
    if config.enable_fusion:
        fusion = f"{encoder}.patch_embed.fusion_model"
        norms += [f"{fusion}.{layer}" for layer in ("local_att.1", "local_att.4", "global_att.2", "global_att.5")]
    index = relative_position_index(config.window_size)
    blocks = (f"{encoder}.layers.{i}.blocks.{j}" for i, depth in enumerate(config.depths) for j in range(depth))
    return {f"{name}.num_batches_tracked": np.zeros((), np.int64) for name in norms} | {
        f"{block}.attention.self.relative_position_index": index for block in blocks
    }


def _text_layers(config: ClapTextConfig) -> dict[str, int]:
    return {"text_model.encoder.layer": config.num_hidden_layers}


def _audio_layers(config: ClapAudioConfig) -> dict[str, int]:
    stages = "audio_model.audio_encoder.layers"
    blocks = {f"{stages}.{stage}.blocks": depth for stage, depth in enumerate(config.depths)}
    return {stages: len(config.depths), **blocks}


TABLE = WeightTable(
    rules=(
        Rule(r"(?P<name>logit_scale_[at])", r"(?P<name>logit_scale_[at])"),
        *embedding(r"text_model\.[\w.]+_embeddings"),
        *norm(r"text_model\.[\w.]+\.LayerNorm"),
        *linear(r"text_model\.[\w.]+\.(?:query|key|value|dense)|(?:text|audio)_projection\.linear[12]"),
        *batch_norm(rf"{_ENCODER}\.batch_norm|{_FUSION}\.local_att\.[14]|{_FUSION}\.global_att\.[25]"),
        *norm(rf"{_ENCODER}\.(?:[\w.]+\.)?(?:layernorm_before|layernorm_after|norm)"),
        *conv(rf"{_ENCODER}\.patch_embed\.(?:proj|mel_conv2d)|{_FUSION}\.local_att\.[03]|{_FUSION}\.global_att\.[14]"),
        *linear(rf"{_ENCODER}\.layers\.[\w.]+\.(?:query|key|value|dense|reduction)"),
        leaf(rf"{_ENCODER}\.[\w.]+\.self", "relative_position_bias_table", "relative_position_bias_table"),
    ),
    ignored=(*_TEXT_BUFFERS, *_AUDIO_BUFFERS),
    constants=lambda config: {**_text_constants(config.text_config), **_audio_constants(config.audio_config)},
    layers=lambda config: {**_text_layers(config.text_config), **_audio_layers(config.audio_config)},
)
TEXT_TABLE = dataclasses.replace(
    TABLE,
    ignored=(*_TEXT_BUFFERS, r"audio_\w+\..+", r"logit_scale_[at]"),
    constants=_text_constants,
    layers=_text_layers,
)
AUDIO_TABLE = dataclasses.replace(
    TABLE,
    ignored=(*_AUDIO_BUFFERS, r"text_\w+\..+", r"logit_scale_[at]"),
    constants=_audio_constants,
    layers=_audio_layers,
)


def config(content: Mapping[str, Any]) -> ClapConfig:
    """Reads both towers' sizes from a config.json. Raises CheckpointError for invalid sizes."""
    audio = _in_pairs(tower_content(content, "audio_config"))
    return config_of(ClapConfig, {"text_config": tower_content(content, "text_config"), "audio_config": audio})


def text_config(content: Mapping[str, Any]) -> ClapTextConfig:
    """Reads the text tower's sizes from its own config.json. Raises CheckpointError for invalid sizes."""
    return config_of(ClapTextConfig, content)


def audio_config(content: Mapping[str, Any]) -> ClapAudioConfig:
    """Reads the audio tower's sizes from its own config.json. Raises CheckpointError for invalid sizes."""
    return config_of(ClapAudioConfig, _in_pairs(content))


def _in_pairs(content: Mapping[str, Any]) -> dict[str, Any]:
    """Writes patch sizes given as one number as pairs."""
    numbers = {name: content[name] for name in ("patch_size", "patch_stride") if isinstance(content.get(name), int)}
    return {**content, **{name: [number] * 2 for name, number in numbers.items()}}

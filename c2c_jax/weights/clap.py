"""Hugging Face CLAP checkpoints ↔ `models.clap.ClapModel`, or one of its towers alone.

Three kinds of folder hold them: a whole ClapModel such as `laion/clap-htsat-unfused`, AudioLDM's `text_encoder` (a
ClapTextModelWithProjection), and a ClapAudioModelWithProjection.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from flax import nnx

from c2c_jax.errors import CheckpointError
from c2c_jax.models.clap import ClapConfig, ClapModel
from c2c_jax.models.clap_audio import ClapAudioConfig, ClapAudioModelWithProjection, relative_position_index
from c2c_jax.models.clap_text import ClapTextConfig, ClapTextModelWithProjection
from c2c_jax.weights.folders import sizes_from
from c2c_jax.weights.rules import CONV, LINEAR, Rule, Table, leaf

_SCALES = (Rule(r"(?P<name>logit_scale_[at])", r"(?P<name>logit_scale_[at])"),)
_TEXT = (
    leaf(r"text_model\.[\w.]+_embeddings", "weight", "embedding"),
    leaf(r"text_model\.[\w.]+\.LayerNorm", "weight", "scale"),
    leaf(r"text_model\.[\w.]+\.(?:query|key|value|dense)|text_projection\.linear[12]", "weight", "kernel", LINEAR),
    leaf(r"text_[\w.]+", "bias", "bias"),
)
_ENCODER = r"audio_model\.audio_encoder"
_FUSION = rf"{_ENCODER}\.patch_embed\.fusion_model"
_AUDIO = (
    leaf(rf"{_ENCODER}\.batch_norm|{_FUSION}\.local_att\.[14]|{_FUSION}\.global_att\.[25]", "weight", "scale"),
    leaf(rf"{_ENCODER}\.[\w.]+\.(?:layernorm_before|layernorm_after|norm)", "weight", "scale"),
    leaf(rf"{_ENCODER}\.norm", "weight", "scale"),
    leaf(rf"{_ENCODER}\.patch_embed\.(?:proj|mel_conv2d)", "weight", "kernel", CONV),
    leaf(rf"{_FUSION}\.local_att\.[03]|{_FUSION}\.global_att\.[14]", "weight", "kernel", CONV),
    leaf(rf"{_ENCODER}\.[\w.]+\.(?:query|key|value|dense|reduction)", "weight", "kernel", LINEAR),
    leaf(r"audio_projection\.linear[12]", "weight", "kernel", LINEAR),
    leaf(rf"{_ENCODER}\.[\w.]+\.self", "relative_position_bias_table", "relative_position_bias_table"),
    leaf(rf"{_ENCODER}\.[\w.]+", "running_mean", "mean"),
    leaf(rf"{_ENCODER}\.[\w.]+", "running_var", "var"),
    leaf(r"audio_[\w.]+", "bias", "bias"),
)
_TEXT_BUFFERS = (r"text_model\.embeddings\.(?:position_ids|token_type_ids)",)
_AUDIO_BUFFERS = (r"audio_model\.[\w.]+\.(?:relative_position_index|num_batches_tracked)",)


def _text_constants(config: Any) -> Mapping[str, np.ndarray]:
    positions = np.arange(config.max_position_embeddings, dtype=np.int64)[None]
    return {
        "text_model.embeddings.position_ids": positions,
        "text_model.embeddings.token_type_ids": np.zeros_like(positions),
    }


def _audio_constants(config: Any) -> Mapping[str, np.ndarray]:
    encoder = "audio_model.audio_encoder"
    norms = [f"{encoder}.batch_norm"]
    if config.enable_fusion:
        fusion = f"{encoder}.patch_embed.fusion_model"
        norms += [f"{fusion}.{layer}" for layer in ("local_att.1", "local_att.4", "global_att.2", "global_att.5")]
    apart = relative_position_index(config.window_size)
    blocks = (f"{encoder}.layers.{i}.blocks.{j}" for i, depth in enumerate(config.depths) for j in range(depth))
    return {f"{norm}.num_batches_tracked": np.zeros((), np.int64) for norm in norms} | {
        f"{block}.attention.self.relative_position_index": apart for block in blocks
    }


WHOLE_TABLE = Table(
    rules=(*_SCALES, *_TEXT, *_AUDIO),
    ignored=(*_TEXT_BUFFERS, *_AUDIO_BUFFERS),
    constants=lambda config: {**_text_constants(config.text_config), **_audio_constants(config.audio_config)},
)
TEXT_TABLE = Table(
    rules=_TEXT, ignored=(*_TEXT_BUFFERS, r"audio_\w+\..+", r"logit_scale_[at]"), constants=_text_constants
)
AUDIO_TABLE = Table(
    rules=_AUDIO, ignored=(*_AUDIO_BUFFERS, r"text_\w+\..+", r"logit_scale_[at]"), constants=_audio_constants
)


def build_whole(config: Any, seed: int = 0) -> ClapModel:
    """The module for a transformers ClapConfig, with initial weights by the seed."""
    sizes = ClapConfig(
        text=sizes_from(ClapTextConfig, config.text_config),
        audio=audio_sizes(config.audio_config),
        logit_scale_init_value=config.logit_scale_init_value,
    )
    return ClapModel(sizes, rngs=nnx.Rngs(seed))


def build_text(config: Any) -> ClapTextModelWithProjection:
    """The module for a transformers ClapTextConfig, with initial weights."""
    return ClapTextModelWithProjection(sizes_from(ClapTextConfig, config), rngs=nnx.Rngs(0))


def build_audio(config: Any) -> ClapAudioModelWithProjection:
    """The module for a transformers ClapAudioConfig, with initial weights."""
    return ClapAudioModelWithProjection(audio_sizes(config), rngs=nnx.Rngs(0))


def audio_sizes(config: Any) -> ClapAudioConfig:
    """The audio tower's sizes by a transformers ClapAudioConfig. Raises CheckpointError where they make no tower, for
    transformers no more than for us."""
    read = {field.name: getattr(config, field.name) for field in dataclasses.fields(ClapAudioConfig)}
    for name in ("patch_size", "patch_stride", "depths", "num_attention_heads"):
        read[name] = (read[name],) * 2 if isinstance(read[name], int) else tuple(read[name])
    sizes = ClapAudioConfig(**read)
    for fault in _faults(sizes, config):
        raise CheckpointError(f"config.json makes no model: {fault}; fetch it again")
    return sizes


def _faults(sizes: ClapAudioConfig, config: Any) -> Iterator[str]:
    if config.patch_embed_input_channels != 1 or not config.flatten_patch_embeds:
        yield "audio patches of more than one channel, or not flattened"
    if config.fusion_type == "channel_map" and sizes.enable_fusion:
        yield "audio fusion_type 'channel_map'; known is aff_2d"
    stages = len(sizes.depths)
    if len(sizes.num_attention_heads) != stages:
        yield f"audio depths {sizes.depths} with heads {sizes.num_attention_heads}"
    if sizes.hidden_size != sizes.patch_embeds_hidden_size * 2 ** (stages - 1):
        yield f"audio hidden_size {sizes.hidden_size} is not the last of {stages} stages' width"
    if sizes.spec_size < sizes.num_mel_bins or sizes.spec_size % sizes.folds:
        yield f"audio spec_size {sizes.spec_size} cannot be made of {sizes.num_mel_bins} mel bins"
    if any(edge % 2 ** (stages - 1) or edge >> (stages - 1) < sizes.window_size for edge in sizes.grid):
        yield f"audio patches of {sizes.grid} cannot be merged {stages - 1} times into windows of {sizes.window_size}"

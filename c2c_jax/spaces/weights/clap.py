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
from c2c_jax.spaces.models.clap import ClapConfig, ClapModel
from c2c_jax.spaces.models.clap_audio import ClapAudioConfig, ClapAudioModelWithProjection, relative_position_index
from c2c_jax.spaces.models.clap_text import ClapTextConfig, ClapTextModelWithProjection
from c2c_jax.spaces.weights.folders import checked_sizes, sizes_from
from c2c_jax.spaces.weights.rules import CONV, LINEAR, Rule, Table, leaf

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


def _text_layers(config: Any) -> dict[str, int]:
    return {"text_model.encoder.layer": config.num_hidden_layers}


def _audio_layers(config: Any) -> dict[str, int]:
    stages = "audio_model.audio_encoder.layers"
    blocks = {f"{stages}.{stage}.blocks": depth for stage, depth in enumerate(config.depths)}
    return {stages: len(config.depths), **blocks}


WHOLE_TABLE = Table(
    rules=(*_SCALES, *_TEXT, *_AUDIO),
    ignored=(*_TEXT_BUFFERS, *_AUDIO_BUFFERS),
    constants=lambda config: {**_text_constants(config.text_config), **_audio_constants(config.audio_config)},
    layers=lambda config: {**_text_layers(config.text_config), **_audio_layers(config.audio_config)},
)
TEXT_TABLE = Table(
    rules=_TEXT,
    ignored=(*_TEXT_BUFFERS, r"audio_\w+\..+", r"logit_scale_[at]"),
    constants=_text_constants,
    layers=_text_layers,
)
AUDIO_TABLE = Table(
    rules=_AUDIO,
    ignored=(*_AUDIO_BUFFERS, r"text_\w+\..+", r"logit_scale_[at]"),
    constants=_audio_constants,
    layers=_audio_layers,
)


def build_whole(config: Any, rngs: nnx.Rngs) -> ClapModel:
    """The module for a transformers ClapConfig, with random initial weights."""
    return ClapModel(sizes(config), rngs=rngs)


def build_text(config: Any, rngs: nnx.Rngs) -> ClapTextModelWithProjection:
    """The module for a transformers ClapTextConfig, with random initial weights."""
    return ClapTextModelWithProjection(text_sizes(config), rngs=rngs)


def build_audio(config: Any, rngs: nnx.Rngs) -> ClapAudioModelWithProjection:
    """The module for a transformers ClapAudioConfig, with random initial weights."""
    return ClapAudioModelWithProjection(audio_sizes(config), rngs=rngs)


def sizes(config: Any) -> ClapConfig:
    """Both towers' sizes by a transformers ClapConfig. Raises CheckpointError where they make no model."""
    start = config.logit_scale_init_value  # of what the weights hold themselves: as in transformers, any number
    fields = dict(text=text_sizes(config.text_config), audio=audio_sizes(config.audio_config))
    return checked_sizes(ClapConfig, {**fields, "logit_scale_init_value": start})


def text_sizes(config: Any) -> ClapTextConfig:
    """The text tower's sizes by a transformers ClapTextConfig. Raises CheckpointError where they make no tower."""
    read = sizes_from(ClapTextConfig, config)
    if read.hidden_size % read.num_attention_heads:
        raise CheckpointError(
            f"its sizes make no model: text hidden_size {read.hidden_size} is not a multiple of num_attention_heads "
            f"{read.num_attention_heads}"
        )
    if read.max_position_embeddings - read.pad_token_id < 4:  # positions begin behind pad_token_id
        raise CheckpointError(
            f"its sizes make no model: max_position_embeddings {read.max_position_embeddings} leaves no text behind "
            f"pad_token_id {read.pad_token_id}"
        )
    return read


def audio_sizes(config: Any) -> ClapAudioConfig:
    """The audio tower's sizes by a transformers ClapAudioConfig. Raises CheckpointError where they make no tower, for
    transformers no more than for us."""
    read = {field.name: getattr(config, field.name) for field in dataclasses.fields(ClapAudioConfig)}
    for name in ("patch_size", "patch_stride"):
        read[name] = (read[name],) * 2 if isinstance(read[name], int) else read[name]
    sizes = checked_sizes(ClapAudioConfig, read)
    for fault in _faults(sizes, config):
        raise CheckpointError(f"its sizes make no model: {fault}")
    return sizes


def _faults(sizes: ClapAudioConfig, config: Any) -> Iterator[str]:
    if config.patch_embed_input_channels != 1 or not config.flatten_patch_embeds:
        yield "audio patches of more than one channel, or not flattened"
    if config.fusion_type == "channel_map" and sizes.enable_fusion:
        yield "audio fusion_type 'channel_map'; known is aff_2d"
    stages = len(sizes.depths)
    if len(sizes.num_attention_heads) != stages:
        yield f"audio depths {sizes.depths} with heads {sizes.num_attention_heads}"
    for stage, heads in enumerate(sizes.num_attention_heads):
        if (width := sizes.patch_embeds_hidden_size * 2**stage) % heads:
            yield f"audio stage {stage} of width {width} with {heads} heads"
    if sizes.enable_fusion and sizes.patch_embeds_hidden_size < sizes.aff_block_r:
        yield f"audio aff_block_r {sizes.aff_block_r} of {sizes.patch_embeds_hidden_size} channels"
    if any(stride > size for stride, size in zip(sizes.patch_stride, sizes.patch_size, strict=True)):
        yield f"audio patch_stride {sizes.patch_stride} is larger than patch_size {sizes.patch_size}"
    for size, stride in zip(sizes.patch_size, sizes.patch_stride, strict=True):
        if (sizes.spec_size + 2 * ((size - stride) // 2) - size) // stride + 1 != sizes.spec_size // stride:
            yield f"audio patches of {size} every {stride} do not fill spec_size {sizes.spec_size}"
    if sizes.hidden_size != sizes.patch_embeds_hidden_size * 2 ** (stages - 1):
        yield f"audio hidden_size {sizes.hidden_size} is not the last of {stages} stages' width"
    if sizes.spec_size < sizes.num_mel_bins or sizes.spec_size % sizes.folds:
        yield f"audio spec_size {sizes.spec_size} cannot be made of {sizes.num_mel_bins} mel bins"
    if any(edge % 2 ** (stages - 1) or edge >> (stages - 1) < sizes.window_size for edge in sizes.grid):
        yield f"audio patches of {sizes.grid} cannot be merged {stages - 1} times into windows of {sizes.window_size}"

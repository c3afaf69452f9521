"""LAION's own CLAP checkpoints ↔ `models.clap.ClapModel`, with the names of github.com/LAION-AI/CLAP.

A `.pt` file contains only the model (`630k-audioset-best.pt`, `music_audioset_epoch_15_esc_90.14.pt`); AudioLDM's
original `.ckpt` contains it as the generator's conditioner. No code in a file is run. Sizes come from the shapes of
tensors; other settings are those that laion_clap uses for all HTSATs and RoBERTas.

laion_clap rounds sounds to 16 bits before encoding. Here they are not rounded, as in transformers; this only changes
the vectors of sounds that are almost silent.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from c2c_jax.errors import CheckpointError
from c2c_jax.io.files import local_path, sha256_of
from c2c_jax.io.hub import HubError, hub_snapshot
from c2c_jax.io.torch_files import StoredTensor, open_torch
from c2c_jax.spaces.audio_preprocessing import INPUT_RATE
from c2c_jax.spaces.models.clap import ClapTextConfig
from c2c_jax.spaces.weights.rules import Rule, WeightTable, batch_norm, conv, embedding, linear, norm, split_projections
from c2c_jax.spaces.weights.tokenizers import read_tokenizer

if TYPE_CHECKING:  # transformers is loaded only where texts are read
    from transformers import PreTrainedTokenizerBase

TOKENIZERS = ("roberta-base", "FacebookAI/roberta-base")  # old and new hub name of one tokenizer
TOKENIZER_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"))  # either set is complete
MAX_TOKENS = {"laion_clap": 77, "AudioLDM": 512}  # where each program truncates texts
HEAD_WIDTH = 64  # of RoBERTa in all sizes; it cannot be read from tensors
# Values of all of laion_clap's model_configs/HTSAT-*.json.
SAMPLE_RATE, MAX_SECONDS, HOP, BAND = 48_000, 10, 480, (50, 14_000)
AUDIOLDM_RATE = 16_000  # Hz; AudioLDM's program resamples its sounds to SAMPLE_RATE for CLAP
WORDS = "text_branch.embeddings.word_embeddings.weight"  # in every CLAP

# Prefixes of paths in laion_clap and here.
_TEXT = r"text_branch\.", r"text_model\."
_AUDIO = r"audio_branch\.", r"audio_model\.audio_encoder\."
_BLOCK = _AUDIO[0] + (_PATH := r"layers\.(?P<stage>\d+)\.blocks\.(?P<block>\d+)\."), _AUDIO[1] + _PATH
_FUSION = r"patch_embed\.fusion_model\."
_BIAS_TABLE = r"\.relative_position_bias_table"
TABLE = WeightTable(
    rules=(
        Rule(r"logit_scale_(?P<side>[at])", r"logit_scale_(?P<side>[at])"),
        *linear(r"(?P<tower>text|audio)_projection\.0", r"(?P<tower>text|audio)_projection\.linear1"),
        *linear(r"(?P<tower>text|audio)_projection\.2", r"(?P<tower>text|audio)_projection\.linear2"),
        *embedding(r"embeddings\.\w+_embeddings", roots=_TEXT),
        *norm(r"[\w.]+\.LayerNorm", roots=_TEXT),
        *linear(r"[\w.]+\.(?:query|key|value|dense)", roots=_TEXT),
        *batch_norm(r"bn0", r"batch_norm", roots=_AUDIO),
        # The global branch starts with a pooling layer, so its numbers are one higher.
        *conv(rf"patch_embed\.(?:proj|mel_conv2d)|{_FUSION}local_att\.[03]|{_FUSION}global_att\.[14]", roots=_AUDIO),
        *batch_norm(rf"{_FUSION}local_att\.[14]|{_FUSION}global_att\.[25]", roots=_AUDIO),
        *norm(r"norm|patch_embed\.norm|layers\.\d+\.downsample\.norm", roots=_AUDIO),
        *linear(r"layers\.\d+\.downsample\.reduction", roots=_AUDIO),
        *norm(r"norm1", r"layernorm_before", roots=_BLOCK),
        *norm(r"norm2", r"layernorm_after", roots=_BLOCK),
        *linear(r"attn\.qkv\.(?P<part>query|key|value)", r"attention\.self\.(?P<part>query|key|value)", roots=_BLOCK),
        *linear(r"attn\.proj", r"attention\.output\.dense", roots=_BLOCK),
        *linear(r"mlp\.fc1", r"intermediate\.dense", roots=_BLOCK),
        *linear(r"mlp\.fc2", r"output\.dense", roots=_BLOCK),
        Rule(rf"{_BLOCK[0]}attn{_BIAS_TABLE}", rf"{_BLOCK[1]}attention\.self{_BIAS_TABLE}"),
    ),
    ignored=(
        r"text_branch\.embeddings\.(?:position_ids|token_type_ids)",
        r"audio_branch\.[\w.]+\.(?:relative_position_index|attn_mask|num_batches_tracked)",
        # torchlibrosa's transform and mel filters, replaced by `audio_preprocessing`
        r"audio_branch\.(?:spectrogram_extractor\.stft\.conv_(?:real|imag)\.weight|logmel_extractor\.melW)",
        # the AudioSet classifier, and layers of the training loss
        r"audio_branch\.(?:tscam_conv|head)\.(?:weight|bias)",
        r"(?:text|audio)_transform\.sequential\.[03]\.(?:weight|bias)",
    ),
)
# By model_type.
TABLES = {
    "clap": TABLE,
    "clap_text_model": dataclasses.replace(
        TABLE, ignored=(*TABLE.ignored, r"audio_(?:branch|projection)\..+", r"logit_scale_[at]")
    ),
    "clap_audio_model": dataclasses.replace(
        TABLE, ignored=(*TABLE.ignored, r"text_(?:branch|projection)\..+", r"logit_scale_[at]")
    ),
}


class LaionClap:
    """A CLAP checkpoint in one file. Raises CheckpointError unless the file contains exactly one CLAP, and only
    tensors.

    program: whose file it is, "laion_clap" or "AudioLDM". content: its sizes as a config.json. other_keys: tensors
    that do not belong to the CLAP.
    """

    shape_source = "its other tensors"  # what determines the shapes of its tensors, for messages

    def __init__(self, name: str, path: Path):
        tensors = open_torch(path, wrapper="state_dict")
        prefixes = [key.removesuffix(WORDS) for key in tensors if key.endswith(WORDS)]
        if len(prefixes) != 1:
            found = f"found {', '.join(sorted(tensors)[:3])}" if not prefixes else f"found {len(prefixes)} of them"
            raise CheckpointError(f"{path}: expected one laion_clap CLAP with RoBERTa (…{WORDS}), {found}")
        (prefix,) = prefixes
        # The prefix is "", "module." (DistributedDataParallel) or "model." (CLAP_Module), except in AudioLDM's files.
        is_alone = not prefix.startswith("cond_stage_model")
        clap_tensors = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix) or is_alone}
        if is_alone and len(clap_tensors) < len(tensors):
            raise CheckpointError(f"{path} has tensors both with and without the prefix {prefix!r}")
        self.name, self.path, self.config_path = name, path, path
        self.program = "laion_clap" if is_alone else "AudioLDM"
        self.content = _content(clap_tensors, path)
        self.other_keys = [] if is_alone else [key for key in tensors if not key.startswith(prefix)]
        self._tensors = clap_tensors  # not yet read from disk

    def fingerprint(self) -> str:
        """SHA-256 of the file."""
        return sha256_of(self.path)

    def table(self, model_type: str) -> WeightTable:
        """The weight table for a model of this model_type."""
        return TABLES[model_type]

    def tensors(self, table: WeightTable) -> dict[str, np.ndarray]:
        """Its tensors as float32, with separate queries, keys and values; those that the table ignores are empty."""
        read = {key: np.empty(0) if table.ignores(key) else tensor.read() for key, tensor in self._tensors.items()}
        pattern = r"(audio_branch\..+\.attn\.qkv)\.(weight|bias)"
        return split_projections(read, pattern, ("query", "key", "value"), str(self.path))

    def preprocessor(self, kind: Any, config: Any) -> Any:
        """Its AudioPreprocessor. Raises CheckpointError if the mel filters do not cover BAND."""
        fields = {
            "feature_size": config.num_mel_bins,
            "sampling_rate": SAMPLE_RATE,
            "hop_length": HOP,
            "max_length_s": MAX_SECONDS,
            "fft_window_size": _fft_window(self._tensors, self.path),
            "frequency_min": BAND[0],
            "frequency_max": BAND[1],
            "truncation": "fusion" if config.enable_fusion else "rand_trunc",
            **({INPUT_RATE: AUDIOLDM_RATE} if self.program == "AudioLDM" else {}),
        }
        return kind.from_dict(fields, self.path)

    def tokenizer(self, config: ClapTextConfig) -> "PreTrainedTokenizerBase | None":
        """RoBERTa's tokenizer, which truncates texts like this program. It is read from the file's folder, its
        subfolder `tokenizer`, or the hub; None if it is in none of these.

        Raises CheckpointError if it cannot be read or does not fit the text tower.
        """
        folder = _tokenizer_folder(self.path)
        if folder is None:
            return None
        tokenizer = read_tokenizer(folder, "RobertaTokenizer", model_max_length=MAX_TOKENS[self.program])
        if len(tokenizer) != config.vocab_size:
            raise CheckpointError(
                f"the tokenizer in {folder} has {len(tokenizer)} tokens, the text tower in {self.path} "
                f"{config.vocab_size}: put the tokenizer of this model into {self.path.parent / 'tokenizer'}"
            )
        return tokenizer


def no_tokenizer(name: str) -> str:
    """The message for a space without a tokenizer. name: path of its file."""
    folder = local_path(name, CheckpointError).parent / "tokenizer"
    return (
        f"space {name} has no tokenizer, and its file does not contain one: run `hf download {TOKENIZERS[1]} "
        f"tokenizer.json "
        f"--local-dir {folder}` on a machine with network access"
    )


def _tokenizer_folder(path: Path) -> Path | None:
    def has_tokenizer(folder: Path) -> bool:
        return any(all((folder / file).is_file() for file in files) for files in TOKENIZER_FILES)

    for folder in (path.parent / "tokenizer", path.parent):
        if has_tokenizer(folder):
            return folder
    patterns = [file for files in TOKENIZER_FILES for file in files]
    for download in (False, True):
        for name in TOKENIZERS:
            try:
                folder = hub_snapshot(name, patterns, download=download)
            except HubError:
                continue
            if has_tokenizer(folder):
                return folder
    return None


def _content(clap_tensors: Mapping[str, StoredTensor], path: Path) -> dict[str, Any]:
    """The content of a config.json, with sizes read from the shapes of tensors."""

    def shape(key: str, axes: int) -> tuple[int, ...]:
        return _shape(clap_tensors, key, axes, path)

    def count(pattern: str) -> int:
        """Number of different layer numbers in the names that match a pattern."""
        return len({match[1] for key in clap_tensors if (match := re.match(pattern, key))})

    vocabulary, text_width = shape(WORDS, 2)
    if text_width % HEAD_WIDTH:
        raise CheckpointError(
            f"{path}: {WORDS} is {text_width} wide; expected a multiple of {HEAD_WIDTH}, as in RoBERTa"
        )
    types, _ = shape("text_branch.embeddings.token_type_embeddings.weight", 2)
    if types != 1:
        raise CheckpointError(f"{path}: its text tower has {types} token types, like BERT; expected RoBERTa's one")
    stages = count(r"audio_branch\.layers\.(\d+)\.")
    width, _, *patch = shape("audio_branch.patch_embed.proj.weight", 4)
    bias_tables = [
        shape(f"audio_branch.layers.{stage}.blocks.0.attn.relative_position_bias_table", 2)
        for stage in range(max(stages, 1))
    ]
    window = (math.isqrt(bias_tables[0][0]) + 1) // 2
    windows, _, _ = shape("audio_branch.layers.0.blocks.1.attn_mask", 3)
    audio: dict[str, Any] = {
        "num_mel_bins": shape("audio_branch.bn0.weight", 1)[0],
        "patch_size": patch[0],
        "patch_stride": patch,  # laion_clap's patches do not overlap
        "window_size": window,
        "spec_size": math.isqrt(windows) * window * patch[0],
        "patch_embeds_hidden_size": width,
        "hidden_size": width * 2 ** (stages - 1),
        "depths": [count(rf"audio_branch\.layers\.{stage}\.blocks\.(\d+)\.") for stage in range(stages)],
        "num_hidden_layers": stages,
        "num_attention_heads": [heads for _, heads in bias_tables],
        "mlp_ratio": shape("audio_branch.layers.0.blocks.0.mlp.fc1.weight", 2)[0] / width,
        "num_classes": shape("audio_branch.head.weight", 2)[0],
    }
    if any(key.startswith("audio_branch.patch_embed.fusion_model.") for key in clap_tensors):
        inner, *_ = shape("audio_branch.patch_embed.fusion_model.local_att.0.weight", 4)
        audio |= {"enable_fusion": True, "fusion_type": "aff_2d", "aff_block_r": width // inner}
    text = {
        "vocab_size": vocabulary,
        "hidden_size": text_width,
        "num_attention_heads": text_width // HEAD_WIDTH,
        "num_hidden_layers": count(r"text_branch\.encoder\.layer\.(\d+)\."),
        "intermediate_size": shape("text_branch.encoder.layer.0.intermediate.dense.weight", 2)[0],
        "max_position_embeddings": shape("text_branch.embeddings.position_embeddings.weight", 2)[0],
        "layer_norm_eps": 1e-5,  # roberta-base's; transformers' conversions have 1e-12, which it was not trained with
    }
    return {
        "model_type": "clap",
        "architectures": ["ClapModel"],
        "text_config": text,
        "audio_config": audio,
        "projection_dim": shape("text_projection.2.weight", 2)[0],
    }


def _shape(clap_tensors: Mapping[str, StoredTensor], key: str, axes: int, path: Path) -> tuple[int, ...]:
    shape = clap_tensors[key].shape if key in clap_tensors else None
    if shape is None or len(shape) != axes or 0 in shape:
        problem = "is missing" if shape is None else f"has shape {shape}"
        raise CheckpointError(f"{path}: {key} {problem}; expected a tensor with {axes} axes, as in laion_clap")
    return shape


def _fft_window(clap_tensors: Mapping[str, StoredTensor], path: Path) -> int:
    """Samples of the spectrogram's window. Raises CheckpointError if the mel filters do not cover BAND."""
    _, _, window = _shape(clap_tensors, "audio_branch.spectrogram_extractor.stft.conv_real.weight", 3, path)
    _shape(clap_tensors, "audio_branch.logmel_extractor.melW", 2, path)
    step = SAMPLE_RATE / window
    filters = clap_tensors["audio_branch.logmel_extractor.melW"].read()
    passed_hertz = np.flatnonzero(filters.any(axis=1)) * step
    low, high = (float(passed_hertz.min()), float(passed_hertz.max())) if len(passed_hertz) else (0.0, 0.0)
    if abs(low - BAND[0]) > 2 * step or abs(high - BAND[1]) > 2 * step:
        raise CheckpointError(
            f"{path}: its mel filters reach from {low:.0f} to {high:.0f} Hz of sounds at {SAMPLE_RATE} Hz; expected "
            f"{BAND[0]} to {BAND[1]}, as in all laion_clap models"
        )
    return window

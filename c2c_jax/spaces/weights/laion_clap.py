"""LAION's own CLAP checkpoints ↔ `models.clap.ClapModel`, in the names of github.com/LAION-AI/CLAP.

Such a model is alone in a `.pt` file (`630k-audioset-best.pt`, `music_audioset_epoch_15_esc_90.14.pt`), or is the
conditioner in AudioLDM's original `.ckpt` beside the generator. Nothing in a file is run. Sizes are those of its
tensors; what no tensor shows is what laion_clap has for each HTSAT and RoBERTa.

laion_clap rounds sounds to 16 bits before it encodes them. Here, as in transformers, they are taken as they are: the
rounding changes vectors only where a sound is about as quiet as it.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import huggingface_hub
import numpy as np

from c2c_jax.errors import CheckpointError
from c2c_jax.io.files import local_path, sha256_of
from c2c_jax.io.tensors import open_torch, to_numpy
from c2c_jax.spaces.audio_preprocessing import INPUT_RATE
from c2c_jax.spaces.models.clap import ClapTextConfig
from c2c_jax.spaces.weights.rules import Rule, Table, batch_norm, conv, embedding, linear, norm, split_projections
from c2c_jax.spaces.weights.tokenizers import read_tokenizer

if TYPE_CHECKING:  # torch and transformers are loaded where a file is read
    import torch
    from transformers import PreTrainedTokenizerBase

TOKENIZERS = ("roberta-base", "FacebookAI/roberta-base")  # the hub's old and new name of one
TOKENIZER_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"))  # either is complete
MAX_TOKENS = {"laion_clap": 77, "AudioLDM": 512}  # where each program cuts a text
HEAD_WIDTH = 64  # of RoBERTa in all its sizes; no tensor shows it
# What laion_clap's model_configs/HTSAT-*.json have in common, as preprocessor_config.json calls it.
SAMPLE_RATE, MAX_SECONDS, HOP, BAND = 48_000, 10, 480, (50, 14_000)
AUDIOLDM_RATE = 16_000  # Hz, of the sounds that AudioLDM's program brings to SAMPLE_RATE for its CLAP
WORDS = "text_branch.embeddings.word_embeddings.weight"  # each CLAP has one

# Roots of paths in laion_clap and here.
_TEXT = r"text_branch\.", r"text_model\."
_AUDIO = r"audio_branch\.", r"audio_model\.audio_encoder\."
_BLOCK = _AUDIO[0] + (_PATH := r"layers\.(?P<stage>\d+)\.blocks\.(?P<block>\d+)\."), _AUDIO[1] + _PATH
_FUSION = r"patch_embed\.fusion_model\."
_BIAS_TABLE = r"\.relative_position_bias_table"
TABLE = Table(
    rules=(
        Rule(r"logit_scale_(?P<side>[at])", r"logit_scale_(?P<side>[at])"),
        *linear(r"(?P<tower>text|audio)_projection\.0", r"(?P<tower>text|audio)_projection\.linear1"),
        *linear(r"(?P<tower>text|audio)_projection\.2", r"(?P<tower>text|audio)_projection\.linear2"),
        *embedding(r"embeddings\.\w+_embeddings", roots=_TEXT),
        *norm(r"[\w.]+\.LayerNorm", roots=_TEXT),
        *linear(r"[\w.]+\.(?:query|key|value|dense)", roots=_TEXT),
        *batch_norm(r"bn0", r"batch_norm", roots=_AUDIO),
        # Numbers in each branch of the fusion: the second begins with its pooling.
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
        # torchlibrosa's transform and mel filters, in whose place is `audio_preprocessing`
        r"audio_branch\.(?:spectrogram_extractor\.stft\.conv_(?:real|imag)\.weight|logmel_extractor\.melW)",
        # the classifier of AudioSet's classes, and layers that only the training's loss uses
        r"audio_branch\.(?:tscam_conv|head)\.(?:weight|bias)",
        r"(?:text|audio)_transform\.sequential\.[03]\.(?:weight|bias)",
    ),
)
# By the model_type of what is loaded.
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
    """A CLAP as it lies in a file. Raises CheckpointError for what holds no such CLAP alone, or more than tensors.

    program: whose file it is, "laion_clap" or "AudioLDM". content: its sizes as a config.json. others: names of the
    tensors beside it.
    """

    shapes_from = "its other tensors"  # what fixes the shapes of its tensors, for messages

    def __init__(self, name: str, path: Path):
        tensors = open_torch(path, safe_classes=_numpy_scalars(), wrapper="state_dict")
        prefixes = [key.removesuffix(WORDS) for key in tensors if key.endswith(WORDS)]
        if len(prefixes) != 1:
            found = f"found {', '.join(sorted(tensors)[:3])}" if not prefixes else f"found {len(prefixes)} of them"
            raise CheckpointError(f"{path}: expected one CLAP of laion_clap's with RoBERTa (…{WORDS}), {found}")
        (prefix,) = prefixes
        # AudioLDM's conditioner; else "", or "module." of torch's DistributedDataParallel, or "model." of CLAP_Module.
        is_alone = not prefix.startswith("cond_stage_model")
        held = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix) or is_alone}
        if is_alone and len(held) < len(tensors):
            raise CheckpointError(f"{path} holds tensors both with and without the prefix {prefix!r} to one name")
        self.name, self.path, self.config_path = name, path, path
        self.program = "laion_clap" if is_alone else "AudioLDM"
        self.content = _content(held, path)
        self.others = [] if is_alone else [key for key in tensors if not key.startswith(prefix)]
        self._held = held  # still on disk

    def fingerprint(self) -> str:
        """SHA-256 of the file."""
        return sha256_of(self.path)

    def table(self, model_type: str) -> Table:
        """The names of its tensors, for a model of this model_type."""
        return TABLES[model_type]

    def tensors(self, table: Table) -> dict[str, np.ndarray]:
        """What the table moves, as float32, with an audio block's queries, keys and values in three; what it ignores is
        empty."""
        read = {key: np.empty(0) if table.ignores(key) else to_numpy(tensor) for key, tensor in self._held.items()}
        pattern = r"(audio_branch\..+\.attn\.qkv)\.(weight|bias)"
        return split_projections(read, pattern, ("query", "key", "value"), str(self.path))

    def preprocessor(self, kind: Any, config: Any) -> Any:
        """Its AudioPreprocessor. Raises CheckpointError for mel filters of another band than BAND."""
        fields = {
            "feature_size": config.num_mel_bins,
            "sampling_rate": SAMPLE_RATE,
            "hop_length": HOP,
            "max_length_s": MAX_SECONDS,
            "fft_window_size": _fft_window(self._held, self.path),
            "frequency_min": BAND[0],
            "frequency_max": BAND[1],
            "truncation": "fusion" if config.enable_fusion else "rand_trunc",
            **({INPUT_RATE: AUDIOLDM_RATE} if self.program == "AudioLDM" else {}),
        }
        return kind.from_dict(fields, self.path)

    def tokenizer(self, config: ClapTextConfig) -> "PreTrainedTokenizerBase | None":
        """RoBERTa's, which cuts texts where this program does: from files beside this one or in the folder `tokenizer`
        there, or from the hub's cache, or the hub. None where it is in none of these.

        Raises CheckpointError for one that cannot be read, or that has other tokens than the text tower.
        """
        folder = _tokenizer_folder(self.path)
        if folder is None:
            return None
        tokenizer = read_tokenizer(folder, "RobertaTokenizer", model_max_length=MAX_TOKENS[self.program])
        if len(tokenizer) != config.vocab_size:
            raise CheckpointError(
                f"the tokenizer in {folder} has {len(tokenizer)} tokens, the text tower in {self.path} "
                f"{config.vocab_size}: put the one it was trained with into {self.path.parent / 'tokenizer'}"
            )
        return tokenizer


def no_tokenizer(name: str) -> str:
    """The message for a space whose tokenizer was not found. name: path of its file."""
    folder = local_path(name, CheckpointError).parent / "tokenizer"
    return (
        f"space {name} has no tokenizer, which its file does not hold: run `hf download {TOKENIZERS[1]} tokenizer.json "
        f"--local-dir {folder}` on a machine with network access"
    )


def _tokenizer_folder(path: Path) -> Path | None:
    def holds_one(folder: Path) -> bool:
        return any(all((folder / file).is_file() for file in files) for files in TOKENIZER_FILES)

    for folder in (path.parent / "tokenizer", path.parent):
        if holds_one(folder):
            return folder
    patterns = [file for files in TOKENIZER_FILES for file in files]
    for is_local in (True, False):
        for name in TOKENIZERS:
            try:
                found = huggingface_hub.snapshot_download(name, allow_patterns=patterns, local_files_only=is_local)
            except OSError:  # it is not in the cache, or the hub is out of reach
                continue
            if holds_one(Path(found)):
                return Path(found)
    return None


def _numpy_scalars() -> list[Any]:
    """What rebuilds numpy's numbers, such as saved learning rates, by its name in numpy 1 and 2."""
    scalar = np.float64().__reduce__()[0]
    return [
        *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
        *(np.dtype, *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8"))),
    ]


def _content(held: "Mapping[str, torch.Tensor]", path: Path) -> dict[str, Any]:
    """Both towers' sizes by the shapes of their tensors, as a config.json."""

    def shape(key: str, axes: int) -> tuple[int, ...]:
        return _shape(held, key, axes, path)

    def count(pattern: str) -> int:
        """How many different numbers are in the names that begin so."""
        return len({match[1] for key in held if (match := re.match(pattern, key))})

    vocabulary, text_width = shape(WORDS, 2)
    if text_width % HEAD_WIDTH:
        raise CheckpointError(f"{path}: {WORDS} is {text_width} wide; expected heads of {HEAD_WIDTH}, as RoBERTa has")
    types, _ = shape("text_branch.embeddings.token_type_embeddings.weight", 2)
    if types != 1:
        raise CheckpointError(f"{path}: its text tower has {types} types of tokens, as BERT; RoBERTa has one")
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
    if any(key.startswith("audio_branch.patch_embed.fusion_model.") for key in held):
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


def _shape(held: "Mapping[str, torch.Tensor]", key: str, axes: int, path: Path) -> tuple[int, ...]:
    shape = tuple(held[key].shape) if key in held else None
    if shape is None or len(shape) != axes or 0 in shape:
        found = "is missing" if shape is None else f"has shape {shape}"
        raise CheckpointError(f"{path}: {key} {found}; expected a tensor of {axes} axes, as laion_clap's HTSAT has")
    return shape


def _fft_window(held: "Mapping[str, torch.Tensor]", path: Path) -> int:
    """Samples of a spectrogram's window. Raises CheckpointError for mel filters of another band than `BAND`."""
    _, _, window = _shape(held, "audio_branch.spectrogram_extractor.stft.conv_real.weight", 3, path)
    _shape(held, "audio_branch.logmel_extractor.melW", 2, path)
    step = SAMPLE_RATE / window
    passed = held["audio_branch.logmel_extractor.melW"].any(dim=1).nonzero()[:, 0] * step
    low, high = (float(passed.min()), float(passed.max())) if len(passed) else (0.0, 0.0)
    if abs(low - BAND[0]) > 2 * step or abs(high - BAND[1]) > 2 * step:
        raise CheckpointError(
            f"{path}: its mel filters reach from {low:.0f} to {high:.0f} Hz of sounds at {SAMPLE_RATE} Hz; expected "
            f"{BAND[0]} to {BAND[1]}, as all of laion_clap's HTSATs have"
        )
    return window

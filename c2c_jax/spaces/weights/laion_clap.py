"""LAION's own CLAP checkpoints ↔ `models.clap.ClapModel`, in the names of github.com/LAION-AI/CLAP.

Such a model is alone in a `.pt` file (`630k-audioset-best.pt`, `music_audioset_epoch_15_esc_90.14.pt`), or is the
conditioner in AudioLDM's original `.ckpt` beside the generator. Nothing in a file is run. Sizes are those of its
tensors; what no tensor tells is what laion_clap has for each HTSAT and RoBERTa.

laion_clap rounds sounds to 16 bits before it hears them. Here, as in transformers, they are taken as they are: the
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
from c2c_jax.io.files import local_path
from c2c_jax.io.tensors import open_torch, to_numpy
from c2c_jax.spaces.audio_preprocessing import INPUT_RATE
from c2c_jax.spaces.weights import clap
from c2c_jax.spaces.weights.formats import Tower, narrowed, transformers_config
from c2c_jax.spaces.weights.rules import AS_IS, CONV, LINEAR, Layout, Rule, Table
from c2c_jax.spaces.weights.tokenizers import read_tokenizer

if TYPE_CHECKING:  # torch and transformers are loaded where a file is read
    import torch
    from transformers import ClapConfig, PreTrainedTokenizerBase

TOKENIZERS = ("roberta-base", "FacebookAI/roberta-base")  # the hub's old and new name of one
TOKENIZER_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"))  # either says all of it
MAX_TOKENS = {"laion_clap": 77, "AudioLDM": 512}  # where each program cuts a text
HEAD_WIDTH = 64  # of RoBERTa in all its sizes; no tensor tells it
# What laion_clap's model_configs/HTSAT-*.json have in common, as preprocessor_config.json calls it.
SAMPLE_RATE, MAX_SECONDS, HOP, BAND = 48_000, 10, 480, (50, 14_000)
AUDIOLDM_RATE = 16_000  # Hz, of the sounds that AudioLDM's program brings to SAMPLE_RATE for its CLAP

_Leaf = tuple[str, str, Layout]
_LINEAR: tuple[_Leaf, ...] = (("weight", "kernel", LINEAR), ("bias", "bias", AS_IS))
_CONV: tuple[_Leaf, ...] = (("weight", "kernel", CONV), ("bias", "bias", AS_IS))
_NORM: tuple[_Leaf, ...] = (("weight", "scale", AS_IS), ("bias", "bias", AS_IS))
_BATCH_NORM: tuple[_Leaf, ...] = (*_NORM, ("running_mean", "mean", AS_IS), ("running_var", "var", AS_IS))


def _module(torch: str, flax: str, leaves: tuple[_Leaf, ...]) -> list[Rule]:
    """The rules of a module's tensors. torch, flax: its path on each side."""
    return [Rule(rf"{torch}\.{leaf}", rf"{flax}\.{ours}", layout) for leaf, ours, layout in leaves]


_THEIRS, _OURS = r"audio_branch\.", r"audio_model\.audio_encoder\."
_BLOCK = r"layers\.(?P<stage>\d+)\.blocks\.(?P<block>\d+)\."
_WORDS = "text_branch.embeddings.word_embeddings.weight"  # each CLAP has one


def _same(path: str, leaves: tuple[_Leaf, ...]) -> list[Rule]:
    """Of a module of the audio tower whose path both have."""
    return _module(_THEIRS + path, _OURS + path, leaves)


def _in_block(torch: str, flax: str, leaves: tuple[_Leaf, ...]) -> list[Rule]:
    return _module(_THEIRS + _BLOCK + torch, _OURS + _BLOCK + flax, leaves)


_TEXT = (
    *_module(
        r"text_branch\.embeddings\.(?P<kind>word|position|token_type)_embeddings",
        r"text_model\.embeddings\.(?P<kind>word|position|token_type)_embeddings",
        (("weight", "embedding", AS_IS),),
    ),
    *_module(r"text_branch\.(?P<path>[\w.]+)\.LayerNorm", r"text_model\.(?P<path>[\w.]+)\.LayerNorm", _NORM),
    *_module(
        r"text_branch\.(?P<path>[\w.]+)\.(?P<kind>query|key|value|dense)",
        r"text_model\.(?P<path>[\w.]+)\.(?P<kind>query|key|value|dense)",
        _LINEAR,
    ),
    *_module(r"text_projection\.0", r"text_projection\.linear1", _LINEAR),
    *_module(r"text_projection\.2", r"text_projection\.linear2", _LINEAR),
)
_AUDIO = (
    *_module(r"audio_projection\.0", r"audio_projection\.linear1", _LINEAR),
    *_module(r"audio_projection\.2", r"audio_projection\.linear2", _LINEAR),
    *_module(rf"{_THEIRS}bn0", rf"{_OURS}batch_norm", _BATCH_NORM),
    *_same(r"patch_embed\.proj", _CONV),
    *_same(r"patch_embed\.mel_conv2d", _CONV),
    *_same(r"patch_embed\.norm", _NORM),
    # Places in each branch of the fusion: the second begins with its pooling.
    *_same(r"patch_embed\.fusion_model\.local_att\.(?P<place>[03])", _CONV),
    *_same(r"patch_embed\.fusion_model\.local_att\.(?P<place>[14])", _BATCH_NORM),
    *_same(r"patch_embed\.fusion_model\.global_att\.(?P<place>[14])", _CONV),
    *_same(r"patch_embed\.fusion_model\.global_att\.(?P<place>[25])", _BATCH_NORM),
    *_in_block(r"norm1", r"layernorm_before", _NORM),
    *_in_block(r"attn", r"attention\.self", (("relative_position_bias_table",) * 2 + (AS_IS,),)),
    *_in_block(r"attn\.qkv\.(?P<kind>query|key|value)", r"attention\.self\.(?P<kind>query|key|value)", _LINEAR),
    *_in_block(r"attn\.proj", r"attention\.output\.dense", _LINEAR),
    *_in_block(r"norm2", r"layernorm_after", _NORM),
    *_in_block(r"mlp\.fc1", r"intermediate\.dense", _LINEAR),
    *_in_block(r"mlp\.fc2", r"output\.dense", _LINEAR),
    *_same(r"layers\.(?P<stage>\d+)\.downsample\.norm", _NORM),
    *_same(r"layers\.(?P<stage>\d+)\.downsample\.reduction", _LINEAR),
    *_same(r"norm", _NORM),
)
_UNUSED = (
    r"text_branch\.embeddings\.(?:position_ids|token_type_ids)",
    r"audio_branch\.[\w.]+\.(?:relative_position_index|attn_mask|num_batches_tracked)",
    # torchlibrosa's transform and mel filters, for which `mels.py` is here
    r"audio_branch\.(?:spectrogram_extractor\.stft\.conv_(?:real|imag)\.weight|logmel_extractor\.melW)",
    # the head that tells AudioSet's classes, and what the training's loss alone passes through
    r"audio_branch\.(?:tscam_conv|head)\.(?:weight|bias)",
    r"(?:text|audio)_transform\.sequential\.[03]\.(?:weight|bias)",
)
_SCALES = Rule(r"logit_scale_(?P<side>[at])", r"logit_scale_(?P<side>[at])")
# The one tower that is wanted, None: both → its table.
TABLES: dict[Tower | None, Table] = {
    None: Table(rules=(_SCALES, *_TEXT, *_AUDIO), ignored=_UNUSED),
    "text": Table(rules=_TEXT, ignored=(*_UNUSED, r"audio_(?:branch|projection)\..+", r"logit_scale_[at]")),
    "audio": Table(rules=_AUDIO, ignored=(*_UNUSED, r"text_(?:branch|projection)\..+", r"logit_scale_[at]")),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaionClap:
    """A CLAP as it lies in a file.

    config: its sizes. program: whose file it is, "laion_clap" or "AudioLDM". fft_window: of its spectrograms, in
    samples. held: its tensors by their names in laion_clap, which are still on disk. others: names of the tensors
    beside it.
    """

    path: Path
    program: str
    config: "ClapConfig"
    fft_window: int
    held: "Mapping[str, torch.Tensor]"
    others: list[str]

    def narrowed(self, only: Tower | None) -> Any:
        """The config of that tower alone, or of all. Raises CheckpointError for a tower that a CLAP has not."""
        if only == "image":
            raise CheckpointError(f"space {self.path} has no image tower; pass a CLIP checkpoint")
        return narrowed(self.config, only) if only else self.config

    @classmethod
    def read(cls, path: Path) -> "LaionClap":
        """Raises CheckpointError for what holds no such CLAP alone, or more than tensors."""
        tensors = open_torch(path, harmless=_numpys_numbers(), wrapper="state_dict")
        prefixes = [key.removesuffix(_WORDS) for key in tensors if key.endswith(_WORDS)]
        if len(prefixes) != 1:
            found = f"found {', '.join(sorted(tensors)[:3])}" if not prefixes else f"found {len(prefixes)} of them"
            raise CheckpointError(f"{path}: expected one CLAP of laion_clap's with RoBERTa (…{_WORDS}), {found}")
        (prefix,) = prefixes
        # AudioLDM's conditioner; else "", or "module." of torch's DistributedDataParallel, or "model." of CLAP_Module.
        alone = not prefix.startswith("cond_stage_model")
        held = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix) or alone}
        if alone and len(held) < len(tensors):
            raise CheckpointError(f"{path} holds tensors both with and without the prefix {prefix!r} to one name")
        return cls(
            path=path,
            program="laion_clap" if alone else "AudioLDM",
            config=_config(held, path),
            fft_window=_fft_window(held, path),
            held=held,
            others=[] if alone else sorted(key for key in tensors if not key.startswith(prefix)),
        )

    def tensors(self, table: Table) -> dict[str, np.ndarray]:
        """What the table carries over, as float32, with an audio block's queries, keys and values in three; what it
        ignores is empty."""
        read: dict[str, np.ndarray] = {}
        for key, tensor in self.held.items():
            if any(re.fullmatch(pattern, key) for pattern in table.ignored):
                read[key] = np.empty(0)
                continue
            value = to_numpy(tensor)
            match = re.fullmatch(r"(audio_branch\..+\.attn\.qkv)\.(weight|bias)", key)
            if not match:
                read[key] = value
                continue
            if value.ndim == 0 or len(value) % 3:
                raise CheckpointError(f"{self.path}: {key} has shape {value.shape}, which is no three projections")
            for name, part in zip(("query", "key", "value"), np.split(value, 3), strict=True):
                read[f"{match[1]}.{name}.{match[2]}"] = part
        return read

    def preprocessor(self) -> dict[str, Any]:
        """How it hears, as transformers' preprocessor_config.json says it."""
        audio: Any = self.config.audio_config
        low, high = BAND
        return {
            "feature_extractor_type": "ClapFeatureExtractor",
            "feature_size": audio.num_mel_bins,
            "sampling_rate": SAMPLE_RATE,
            "hop_length": HOP,
            "max_length_s": MAX_SECONDS,
            "fft_window_size": self.fft_window,
            "frequency_min": low,
            "frequency_max": high,
            "truncation": "fusion" if audio.enable_fusion else "rand_trunc",
            "padding": "repeatpad",
            "padding_value": 0.0,
            "return_attention_mask": False,
            "top_db": None,
            **({INPUT_RATE: AUDIOLDM_RATE} if self.program == "AudioLDM" else {}),
        }

    def load_tokenizer(self) -> "PreTrainedTokenizerBase | None":
        """RoBERTa's, which cuts texts where this program does: from files beside this one or in the folder `tokenizer`
        there, or from the hub's cache, or the hub. None where it is nowhere.

        Raises CheckpointError for one that cannot be read, or that has other tokens than the text tower.
        """
        folder = _tokenizer_folder(self.path)
        if folder is None:
            return None
        tokenizer = read_tokenizer(folder, "RobertaTokenizer", model_max_length=MAX_TOKENS[self.program])
        wanted, _ = self.held[_WORDS].shape
        if len(tokenizer) != wanted:
            raise CheckpointError(
                f"the tokenizer in {folder} has {len(tokenizer)} tokens, the text tower in {self.path} {wanted}: "
                f"put the one it was trained with into {self.path.parent / 'tokenizer'}"
            )
        return tokenizer


def no_tokenizer(name: str) -> str:
    """What is told of a space whose tokenizer is nowhere. name: path of its file."""
    folder = local_path(name, CheckpointError).parent / "tokenizer"
    return (
        f"space {name} has no tokenizer, which its file does not hold: run `hf download {TOKENIZERS[1]} tokenizer.json "
        f"--local-dir {folder}` where there is a network"
    )


def _tokenizer_folder(path: Path) -> Path | None:
    def holds_one(folder: Path) -> bool:
        return any(all((folder / file).is_file() for file in files) for files in TOKENIZER_FILES)

    for folder in (path.parent / "tokenizer", path.parent):
        if holds_one(folder):
            return folder
    patterns = [file for files in TOKENIZER_FILES for file in files]
    for is_asked in (False, True):
        for name in TOKENIZERS:
            try:
                found = huggingface_hub.snapshot_download(name, allow_patterns=patterns, local_files_only=not is_asked)
            except OSError:  # it is not in the cache, or the hub is out of reach
                continue
            if holds_one(Path(found)):
                return Path(found)
    return None


def _numpys_numbers() -> list[Any]:
    """What rebuilds numpy's numbers, as learning rates came to be, by its name in numpy 1 and 2."""
    scalar = np.float64().__reduce__()[0]
    return [
        *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
        *(np.dtype, *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8"))),
    ]


def _config(held: "Mapping[str, torch.Tensor]", path: Path) -> "ClapConfig":
    """What the shapes tell of both towers' sizes."""

    def shape(key: str, axes: int) -> tuple[int, ...]:
        return _shape(held, key, axes, path)

    vocabulary, text_width = shape(_WORDS, 2)
    if text_width % HEAD_WIDTH:
        raise CheckpointError(f"{path}: {_WORDS} is {text_width} wide; expected heads of {HEAD_WIDTH}, as RoBERTa has")
    types, _ = shape("text_branch.embeddings.token_type_embeddings.weight", 2)
    if types != 1:
        raise CheckpointError(f"{path}: its text tower has {types} types of tokens, as BERT; RoBERTa has one")
    text = {
        "vocab_size": vocabulary,
        "hidden_size": text_width,
        "num_attention_heads": text_width // HEAD_WIDTH,
        "num_hidden_layers": _count(held, r"text_branch\.encoder\.layer\.(\d+)\."),
        "intermediate_size": shape("text_branch.encoder.layer.0.intermediate.dense.weight", 2)[0],
        "max_position_embeddings": shape("text_branch.embeddings.position_embeddings.weight", 2)[0],
        "type_vocab_size": types,
        "layer_norm_eps": 1e-5,  # roberta-base's; transformers' conversions have 1e-12, which it was not trained with
    }
    stages = _count(held, r"audio_branch\.layers\.(\d+)\.")
    width, _, *patch = shape("audio_branch.patch_embed.proj.weight", 4)
    rows, _ = shape("audio_branch.layers.0.blocks.0.attn.relative_position_bias_table", 2)
    window = (math.isqrt(rows) + 1) // 2
    windows, _, _ = shape("audio_branch.layers.0.blocks.1.attn_mask", 3)
    audio = {
        "num_mel_bins": shape("audio_branch.bn0.weight", 1)[0],
        "patch_size": patch[0],
        "patch_stride": patch,  # laion_clap's patches do not overlap
        "window_size": window,
        "spec_size": math.isqrt(windows) * window * patch[0],
        "patch_embeds_hidden_size": width,
        "hidden_size": width * 2 ** (stages - 1),
        "depths": [_count(held, rf"audio_branch\.layers\.{stage}\.blocks\.(\d+)\.") for stage in range(stages)],
        "num_hidden_layers": stages,
        "num_attention_heads": [
            shape(f"audio_branch.layers.{stage}.blocks.0.attn.relative_position_bias_table", 2)[1]
            for stage in range(stages)
        ],
        "mlp_ratio": shape("audio_branch.layers.0.blocks.0.mlp.fc1.weight", 2)[0] / width,
        "num_classes": shape("audio_branch.head.weight", 2)[0],
    }
    if any(key.startswith("audio_branch.patch_embed.fusion_model.") for key in held):
        inner, *_ = shape("audio_branch.patch_embed.fusion_model.local_att.0.weight", 4)
        audio |= {"enable_fusion": True, "fusion_type": "aff_2d", "aff_block_r": width // inner}
    sizes = {"text_config": text, "audio_config": audio, "projection_dim": shape("text_projection.2.weight", 2)[0]}
    try:
        config = transformers_config("ClapConfig", sizes)
        clap.sizes(config)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}; expected a CLAP of laion_clap's") from None
    return config


def _shape(held: "Mapping[str, torch.Tensor]", key: str, axes: int, path: Path) -> tuple[int, ...]:
    shape = tuple(held[key].shape) if key in held else None
    if shape is None or len(shape) != axes or 0 in shape:
        found = "is missing" if shape is None else f"has shape {shape}"
        raise CheckpointError(f"{path}: {key} {found}; expected a tensor of {axes} axes, as laion_clap's HTSAT has")
    return shape


def _count(held: "Mapping[str, torch.Tensor]", pattern: str) -> int:
    """How many different numbers stand in the names that begin so."""
    return len({match[1] for key in held if (match := re.match(pattern, key))})


def _fft_window(held: "Mapping[str, torch.Tensor]", path: Path) -> int:
    """Samples of a spectrogram's window. Raises CheckpointError for mel filters of another band than `BAND`."""
    _, _, window = _shape(held, "audio_branch.spectrogram_extractor.stft.conv_real.weight", 3, path)
    _shape(held, "audio_branch.logmel_extractor.melW", 2, path)
    step = SAMPLE_RATE / window
    heard = held["audio_branch.logmel_extractor.melW"].any(dim=1).nonzero()[:, 0] * step
    low, high = (float(heard.min()), float(heard.max())) if len(heard) else (0.0, 0.0)
    if abs(low - BAND[0]) > 2 * step or abs(high - BAND[1]) > 2 * step:
        raise CheckpointError(
            f"{path}: its mel filters reach from {low:.0f} to {high:.0f} Hz of sounds at {SAMPLE_RATE} Hz; expected "
            f"{BAND[0]} to {BAND[1]}, as all of laion_clap's HTSATs have"
        )
    return window

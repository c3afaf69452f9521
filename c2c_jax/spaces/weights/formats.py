"""The kinds of Hugging Face folders that hold a space, told apart by their config.json."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from flax import nnx

from c2c_jax.errors import CheckpointError, one_line
from c2c_jax.io.json import read_json
from c2c_jax.spaces.weights import clap, clip
from c2c_jax.spaces.weights.rules import Table

Tower = Literal["text", "image", "audio"]
# config.json's model_type → the towers that are in such a folder
TOWERS: dict[str, tuple[Tower, ...]] = {
    "clip": ("text", "image"),
    "clap": ("text", "audio"),
    "clap_text_model": ("text",),
    "clap_audio_model": ("audio",),
}
# config.json's model_type → transformers' class of its config
CONFIGS = {
    "clip": "CLIPConfig",
    "clap": "ClapConfig",
    "clap_text_model": "ClapTextConfig",
    "clap_audio_model": "ClapAudioConfig",
}
# Fields of any transformers config that no tower needs, and by which a file can ask for code, or for any memory.
UNUSED = {
    "auto_map", "num_labels", "id2label", "label2id", "quantization_config", "attn_implementation",
    "_attn_implementation", "experts_implementation", "_experts_implementation", "custom_pipelines", "_name_or_path",
}  # fmt: skip
# config.json's model_type → what checks the sizes in a transformers config, and raises CheckpointError
SIZES: dict[str, Callable[[Any], Any]] = {
    "clip": clip.sizes,
    "clap": clap.sizes,
    "clap_text_model": clap.text_sizes,
    "clap_audio_model": clap.audio_sizes,
}


def towers_of(config: Any) -> tuple[Tower, ...]:
    """The towers of a config as `read_config` gives it."""
    return ("image",) if isinstance(config, dict) else TOWERS[config.model_type]


def format_of(config: Any) -> tuple[Callable[[Any, nnx.Rngs], Any], Table]:
    """How to build the module of a config as `read_config` gives it, and the table of its weights."""
    if isinstance(config, dict):
        return clip.build_vision, clip.VISION_TABLE
    formats: dict[str, tuple[Callable[[Any, nnx.Rngs], Any], Table]] = {
        "clip": (clip.build, clip.TABLE),
        "clap": (clap.build_whole, clap.WHOLE_TABLE),
        "clap_text_model": (clap.build_text, clap.TEXT_TABLE),
        "clap_audio_model": (clap.build_audio, clap.AUDIO_TABLE),
    }
    return formats[config.model_type]


def read_config(folder: Path, name: str, only: Tower | None = None) -> Any:
    """A checkpoint's config as transformers reads it; of CLIP's images alone config.json as it is, without
    transformers, which takes long to import.

    only: the tower that is wanted alone. Of a whole CLAP that is the tower's own config; CLIP's texts come with all.
    Raises CheckpointError for a checkpoint of another kind, for none, and for one without that tower.
    """
    if (folder / "model_index.json").is_file() and not (folder / "config.json").is_file():
        raise CheckpointError(f"{name} is a whole generator; its CLAP is {name}:text_encoder")
    content = read_json(folder / "config.json")
    kind = content.get("model_type")
    if not isinstance(kind, str):
        raise CheckpointError(f"{name}: config.json says model_type {_shown(kind)}; expected {', '.join(TOWERS)}")
    if only and only not in TOWERS.get(kind, ()):
        wanted = "a CLIP" if only == "image" else "a whole CLAP"
        raise CheckpointError(f"space {name} has no {only} tower; pass {wanted} checkpoint")
    if kind not in TOWERS:
        raise CheckpointError(f"{name}: config.json says model_type {_shown(kind)}; expected {', '.join(TOWERS)}")
    try:
        if only == "image":
            clip.vision_sizes(content), clip.projection_dim(content)
            return content
        config = transformers_config(CONFIGS[kind], content)
        SIZES[kind](config)
    except CheckpointError as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}; fetch it again") from None
    return narrowed(config, only) if kind == "clap" and only else config


def transformers_config(kind: str, content: Mapping[str, Any]) -> Any:
    """The config of transformers' class of that name, less UNUSED. Raises CheckpointError where it makes none."""
    import transformers

    logger = logging.getLogger("transformers.configuration_utils")
    logger.addFilter(_is_not_of_tokens)
    try:
        return getattr(transformers, kind).from_dict(_without_unused(content))
    except Exception as error:  # transformers checks sizes against each other, by exceptions of many kinds
        raise CheckpointError(f"its sizes make no model ({one_line(error)})") from None
    finally:
        logger.removeFilter(_is_not_of_tokens)


def _is_not_of_tokens(record: logging.LogRecord) -> bool:
    """What transformers says of ids beyond the vocabulary is said of old configs that work too."""
    return "within the vocabulary" not in record.getMessage()


def _without_unused(content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_unused(value) if isinstance(value, dict) else value
        for name, value in content.items()
        if name not in UNUSED
    }


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def narrowed(config: Any, only: Tower) -> Any:
    """One tower's config of a whole ClapModel, which has given it the width of the joint space."""
    tower = config.text_config if only == "text" else config.audio_config
    tower.architectures = [f"Clap{only.capitalize()}ModelWithProjection"]
    return tower


def text_config(config: Any) -> Any:
    """The config of the text tower."""
    return config.text_config if config.model_type in ("clip", "clap") else config


def audio_config(config: Any) -> Any:
    """The config of the audio tower."""
    return config.audio_config if config.model_type == "clap" else config


def longest_text(config: Any) -> int:
    """The longest text of a checkpoint in tokens; RoBERTa counts positions from pad_token_id + 1."""
    sizes = text_config(config)
    before = 0 if config.model_type == "clip" else sizes.pad_token_id + 1
    return sizes.max_position_embeddings - before

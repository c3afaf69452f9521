"""The kinds of Hugging Face folders that hold a space, told apart by their config.json."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from c2c_jax.errors import CheckpointError, one_line
from c2c_jax.models.layers import ACTIVATIONS
from c2c_jax.weights import clap, clip
from c2c_jax.weights.folders import read_json
from c2c_jax.weights.rules import Table

Tower = Literal["text", "image", "audio"]
# config.json's model_type → the towers that are in such a folder
TOWERS: dict[str, tuple[Tower, ...]] = {
    "clip": ("text", "image"),
    "clap": ("text", "audio"),
    "clap_text_model": ("text",),
    "clap_audio_model": ("audio",),
}


def towers_of(config: Any) -> tuple[Tower, ...]:
    """The towers of a config as `read_config` gives it."""
    return ("image",) if isinstance(config, dict) else TOWERS[config.model_type]


def format_of(config: Any) -> tuple[Callable[[Any], Any], Table]:
    """How to build the module of a config as `read_config` gives it, and the table of its weights."""
    if isinstance(config, dict):
        return clip.build_vision, clip.VISION_TABLE
    formats: dict[str, tuple[Callable[[Any], Any], Table]] = {
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
    kind: Any = content.get("model_type")
    if only and only not in TOWERS.get(kind, ()):
        wanted = "a CLIP" if only == "image" else "a whole CLAP"
        raise CheckpointError(f"space {name} has no {only} tower; pass {wanted} checkpoint")
    if kind not in TOWERS:
        raise CheckpointError(f"{name}: config.json says model_type {kind!r}; expected {', '.join(TOWERS)}")
    if only == "image":
        _require_activations(folder, clip.vision_sizes(content).hidden_act)
        return content
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers checks sizes against each other, by exceptions of many kinds
        raise CheckpointError(f"{folder / 'config.json'} makes no model ({one_line(error)}); fetch it again") from error
    if kind == "clip":
        _require_activations(folder, config.text_config.hidden_act, config.vision_config.hidden_act)
    elif kind == "clap":
        for tower in (config.text_config, config.audio_config):
            _require_activations(folder, tower.hidden_act, tower.projection_hidden_act)
    else:
        _require_activations(folder, config.hidden_act, config.projection_hidden_act)
    return narrowed(config, only) if kind == "clap" and only else config


def narrowed(config: Any, only: Tower) -> Any:
    """One tower's config of a whole ClapModel, which has given it the width of the joint space."""
    tower = config.text_config if only == "text" else config.audio_config
    tower.architectures = [f"Clap{only.capitalize()}ModelWithProjection"]
    return tower


def _require_activations(folder: Path, *names: str) -> None:
    for name in names:
        if name not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise CheckpointError(f"{folder / 'config.json'}: hidden_act {name!r}; known are {known}")


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

"""The registry of checkpoint formats, and how a checkpoint of any of them is opened.

A format is a model, the table of its tensors' names, and one entry in FORMATS; a user's own comes in by
`register_format`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from c2c_jax.errors import CheckpointError
from c2c_jax.io.files import local_path, path_exists
from c2c_jax.io.json import read_json
from c2c_jax.spaces.models.clap import ClapModel, ClapTextConfig, ClapTextModelWithProjection
from c2c_jax.spaces.models.clap_audio import ClapAudioModelWithProjection
from c2c_jax.spaces.models.clip import CLIPModel, CLIPTextConfig, CLIPVisionConfig, CLIPVisionModelWithProjection
from c2c_jax.spaces.weights import clap, clip, laion_clap
from c2c_jax.spaces.weights.configs import config_of, tower_content
from c2c_jax.spaces.weights.folders import WEIGHT_FILES, checkpoint_folder, digest_of, files_named, read_tensors
from c2c_jax.spaces.weights.rules import Table
from c2c_jax.spaces.weights.tokenizers import read_tokenizer

if TYPE_CHECKING:  # transformers imports torch: it is loaded only where texts are read
    from transformers import PreTrainedTokenizerBase

Tower = Literal["text", "image", "audio"]
SECTIONS: dict[Tower, str] = {"text": "text_config", "image": "vision_config", "audio": "audio_config"}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
    """How checkpoints of one `model_type` are read.

    config: from the content of config.json to the model's config; raises CheckpointError where it makes no model.
    model: the module's class, called as `model(config, rngs=rngs)`. It has `encode_text`, `encode_image` or
    `encode_audio` for each of its towers, and keeps their configs as transformers does, in `text_model.config` and so
    on. table: names of its tensors. alone: by tower, the model_type under which this one can be loaded alone.
    """

    config: Callable[[Mapping[str, Any]], Any]
    model: Any
    table: Table
    alone: Mapping[Tower, str] = dataclasses.field(default_factory=dict)

    @property
    def towers(self) -> list[Tower]:
        """The towers of the model."""
        return [tower for tower in SECTIONS if hasattr(self.model, f"encode_{tower}")]


# By config.json's model_type.
FORMATS: dict[str, Format] = {
    "clip": Format(config=clip.config, model=CLIPModel, table=clip.TABLE, alone={"image": "clip_vision_model"}),
    "clip_vision_model": Format(
        config=lambda content: config_of(CLIPVisionConfig, content),
        model=CLIPVisionModelWithProjection,
        table=clip.VISION_TABLE,
    ),
    "clap": Format(
        config=clap.config,
        model=ClapModel,
        table=clap.TABLE,
        alone={"text": "clap_text_model", "audio": "clap_audio_model"},
    ),
    "clap_text_model": Format(config=clap.text_config, model=ClapTextModelWithProjection, table=clap.TEXT_TABLE),
    "clap_audio_model": Format(config=clap.audio_config, model=ClapAudioModelWithProjection, table=clap.AUDIO_TABLE),
}
# What opens a checkpoint that is one file, by the names of its tensors: None where these are another format's.
FILE_FORMATS: list[Callable[[str, Path], Any]] = [laion_clap.LaionClap]


def register_format(model_type: str, format: Format) -> None:
    """Adds a format of Hugging Face folders whose config.json has this model_type, or replaces it."""
    FORMATS[model_type] = format


def register_file_format(open_file: Callable[[str, Path], Any]) -> None:
    """Adds a format of checkpoints that are one file, tried before the others. open_file: from a name and its path to
    an object like LaionClap, or to None where the tensors' names are another format's."""
    FILE_FORMATS.insert(0, open_file)


class Folder:
    """A checkpoint in a Hugging Face folder. content: of its config.json."""

    shapes_from = "the sizes in config.json"  # what fixes the shapes of its tensors, for messages
    others: list[str] = []  # names of tensors that belong to no space

    def __init__(self, name: str, download: bool = True):
        self.name, self.path = name, checkpoint_folder(name, download=download)
        self.config_path = self.path / "config.json"
        if (self.path / "model_index.json").is_file() and not self.config_path.is_file():
            raise CheckpointError(f"{name} is a whole generator; its CLAP is {name}:text_encoder")
        self.content = read_json(self.config_path)
        own = any(path_exists(self.path / file) for file in ("tokenizer.json", "vocab.json", "tokenizer_config.json"))
        self._tokens = self.path if own else self.path.parent / "tokenizer"
        self._token_files = [path for file in TOKENIZER_FILES if path_exists(path := self._tokens / file)]

    def fingerprint(self) -> str:
        """SHA-256 over the names and contents of its weights, config and tokenizer files."""
        files = [*files_named(self.path, WEIGHT_FILES), *self._token_files, self.config_path]
        return digest_of({path.name: path for path in files})

    def table(self, model_type: str) -> Table:
        """The names of its tensors, for a model of this model_type."""
        return FORMATS[model_type].table

    def tensors(self, table: Table) -> dict[str, np.ndarray]:
        """Its tensors by name; those that the table ignores are empty."""
        return read_tensors(self.path, table.ignored)

    def preprocessor(self, kind: Any, config: Any) -> Any:
        """Its ImagePreprocessor or AudioPreprocessor. Raises CheckpointError, also for one that does not fit a tower of
        that config."""
        preprocessor = kind.read(self.path)
        preprocessor.require_tower(config, self.path)
        return preprocessor

    def tokenizer(self, config: CLIPTextConfig | ClapTextConfig) -> "PreTrainedTokenizerBase":
        """Raises CheckpointError for a tokenizer that is missing, or does not fit a text tower of that config."""
        import transformers

        if not self._token_files:
            raise CheckpointError(
                f"{self.path} holds no tokenizer: expected tokenizer.json, or vocab.json and merges.txt, there or in "
                f"{self._tokens}"
            )
        kinds = {"clip": transformers.CLIPConfig, "clap": transformers.ClapConfig}
        tokenizer = read_tokenizer(
            self._tokens, config=kinds.get(self.content["model_type"], transformers.PreTrainedConfig)()
        )
        end = config.eos_token_id if isinstance(config, CLIPTextConfig) else 2
        pad = config.pad_token_id if isinstance(config, ClapTextConfig) else tokenizer.pad_token_id
        if end not in (2, *tokenizer("a")["input_ids"]):
            raise CheckpointError(
                f"the tokenizer in {self._tokens} does not end texts with eos_token_id {end} of {self.config_path}: "
                "they belong to different models"
            )
        if tokenizer.pad_token_id not in (None, pad):
            raise CheckpointError(
                f"{self.config_path} says pad_token_id {pad}, and the tokenizer in {self._tokens} "
                f"{tokenizer.pad_token_id}: they belong to different models"
            )
        return tokenizer


def open_checkpoint(name: str, *, download: bool = True) -> Any:
    """The checkpoint of a name as for `load_space`: a Folder, or what the first fitting of FILE_FORMATS opens."""
    if (path := local_path(name, CheckpointError)).is_file():
        return next(opened for open_file in FILE_FORMATS if (opened := open_file(name, path)) is not None)
    return Folder(name, download)


def read_format(checkpoint: Any, only: Tower | None = None) -> tuple[Format, dict[str, Any], Any]:
    """A checkpoint's format, the content of its config.json, and the model's config.

    only: the tower that is wanted; the three are those of this tower where it can be loaded alone.
    Raises CheckpointError for an unknown model_type, a tower that the checkpoint lacks, and sizes that make no model.
    """
    content, kind = checkpoint.content, checkpoint.content.get("model_type")
    if not isinstance(kind, str) or kind not in FORMATS:
        known = ", ".join(FORMATS)
        raise CheckpointError(f"{checkpoint.name}: config.json says model_type {kind!r:.60}; expected {known}")
    if only and only not in FORMATS[kind].towers:
        wanted = "a CLIP" if only == "image" else "a whole CLAP"
        raise CheckpointError(f"space {checkpoint.name} has no {only} tower; pass {wanted} checkpoint")
    try:
        if only and only in FORMATS[kind].alone:
            part, kind = tower_content(content, SECTIONS[only]), FORMATS[kind].alone[only]
            content = {**part, "model_type": kind, "architectures": [FORMATS[kind].model.__name__]}
        return FORMATS[kind], content, FORMATS[kind].config(content)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.config_path}: {error}; fetch it again") from None

"""Registry of checkpoint formats. A format is a model, the table of its tensors' names, and one entry in FORMATS;
`register_format` adds one."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from c2c_jax.errors import CheckpointError
from c2c_jax.io.extras import import_transformers
from c2c_jax.io.files import local_path, path_exists
from c2c_jax.io.json import read_json
from c2c_jax.spaces.models.clap import ClapModel, ClapTextConfig, ClapTextModelWithProjection
from c2c_jax.spaces.models.clap_audio import ClapAudioModelWithProjection
from c2c_jax.spaces.models.clip import CLIPModel, CLIPTextConfig, CLIPVisionConfig, CLIPVisionModelWithProjection
from c2c_jax.spaces.weights import clap, clip, laion_clap
from c2c_jax.spaces.weights.configs import config_of, tower_content
from c2c_jax.spaces.weights.folders import WEIGHT_FILES, checkpoint_folder, digest_of, files_named, read_tensors
from c2c_jax.spaces.weights.rules import WeightTable
from c2c_jax.spaces.weights.tokenizers import read_tokenizer

if TYPE_CHECKING:  # transformers imports torch: it is loaded only where texts are read
    from transformers import PreTrainedTokenizerBase

Tower = Literal["text", "image", "audio"]
SECTIONS: dict[Tower, str] = {"text": "text_config", "image": "vision_config", "audio": "audio_config"}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
    """How checkpoints of one `model_type` are read.

    config: converts the content of config.json to the model's config; raises CheckpointError for invalid sizes.
    model: the module's class, called as `model(config, rngs=rngs)`. It has `encode_text`, `encode_image` or
    `encode_audio` for each of its towers, and their configs as in transformers: `text_model.config` and so on.
    table: names of its tensors. single_tower_types: for each tower that can be loaded alone, its model_type.
    """

    config: Callable[[Mapping[str, Any]], Any]
    model: Any
    table: WeightTable
    single_tower_types: Mapping[Tower, str] = dataclasses.field(default_factory=dict)

    @property
    def towers(self) -> list[Tower]:
        """The towers of the model."""
        return [tower for tower in SECTIONS if hasattr(self.model, f"encode_{tower}")]


# By config.json's model_type.
FORMATS: dict[str, Format] = {
    "clip": Format(
        config=clip.config, model=CLIPModel, table=clip.TABLE, single_tower_types={"image": "clip_vision_model"}
    ),
    "clip_vision_model": Format(
        config=lambda content: config_of(CLIPVisionConfig, content),
        model=CLIPVisionModelWithProjection,
        table=clip.VISION_TABLE,
    ),
    "clap": Format(
        config=clap.config,
        model=ClapModel,
        table=clap.TABLE,
        single_tower_types={"text": "clap_text_model", "audio": "clap_audio_model"},
    ),
    "clap_text_model": Format(config=clap.text_config, model=ClapTextModelWithProjection, table=clap.TEXT_TABLE),
    "clap_audio_model": Format(config=clap.audio_config, model=ClapAudioModelWithProjection, table=clap.AUDIO_TABLE),
}
# Functions that open a checkpoint of one file, or return None if its tensors' names belong to another format.
FILE_FORMATS: list[Callable[[str, Path], Any]] = [laion_clap.LaionClap]


def register_format(model_type: str, format: Format) -> None:
    """Adds or replaces the format of Hugging Face folders with this model_type in config.json."""
    FORMATS[model_type] = format


def register_file_format(open_file: Callable[[str, Path], Any]) -> None:
    """Adds a format of checkpoints in one file, tried before the others. open_file: takes a name and its path, returns
    an object like LaionClap, or None if the tensors' names belong to another format."""
    FILE_FORMATS.insert(0, open_file)


class Folder:
    """A checkpoint in a Hugging Face folder. content: its config.json."""

    shape_source = "the sizes in config.json"  # what determines the shapes of its tensors, for messages
    other_keys: list[str] = []  # tensors that do not belong to the space

    def __init__(self, name: str, download: bool = True):
        self.name, self.path = name, checkpoint_folder(name, download=download)
        self.config_path = self.path / "config.json"
        if (self.path / "model_index.json").is_file() and not self.config_path.is_file():
            raise CheckpointError(f"{name} is a whole generator; its CLAP is {name}:text_encoder")
        self.content = read_json(self.config_path)
        has_tokenizer = any(
            path_exists(self.path / file) for file in ("tokenizer.json", "vocab.json", "tokenizer_config.json")
        )
        self._tokenizer_folder = self.path if has_tokenizer else self.path.parent / "tokenizer"
        self._tokenizer_files = [path for file in TOKENIZER_FILES if path_exists(path := self._tokenizer_folder / file)]

    def fingerprint(self) -> str:
        """SHA-256 over the names and contents of its weights, config and tokenizer files."""
        files = [*files_named(self.path, WEIGHT_FILES), *self._tokenizer_files, self.config_path]
        return digest_of({path.name: path for path in files})

    def table(self, model_type: str) -> WeightTable:
        """The weight table for a model of this model_type."""
        return FORMATS[model_type].table

    def tensors(self, table: WeightTable) -> dict[str, np.ndarray]:
        """Its tensors; those that the table ignores are empty."""
        return read_tensors(self.path, table.ignored)

    def preprocessor(self, kind: Any, config: Any) -> Any:
        """Its ImagePreprocessor or AudioPreprocessor. Raises CheckpointError, also if it does not fit the tower."""
        preprocessor = kind.read(self.path)
        preprocessor.require_tower(config, self.path)
        return preprocessor

    def tokenizer(self, config: CLIPTextConfig | ClapTextConfig) -> "PreTrainedTokenizerBase":
        """Its tokenizer. Raises CheckpointError if it is missing or does not fit the text tower."""
        transformers = import_transformers()
        if not self._tokenizer_files:
            raise CheckpointError(
                f"{self.path} holds no tokenizer: expected tokenizer.json, or vocab.json and merges.txt, there or in "
                f"{self._tokenizer_folder}"
            )
        kinds = {"clip": transformers.CLIPConfig, "clap": transformers.ClapConfig}
        tokenizer = read_tokenizer(
            self._tokenizer_folder, config=kinds.get(self.content["model_type"], transformers.PreTrainedConfig)()
        )
        end = config.eos_token_id if isinstance(config, CLIPTextConfig) else 2
        pad = config.pad_token_id if isinstance(config, ClapTextConfig) else tokenizer.pad_token_id
        if end not in (2, *tokenizer("a")["input_ids"]):
            raise CheckpointError(
                f"the tokenizer in {self._tokenizer_folder} does not end texts with eos_token_id {end} of "
                f"{self.config_path}: "
                "they belong to different models"
            )
        if tokenizer.pad_token_id not in (None, pad):
            raise CheckpointError(
                f"{self.config_path} says pad_token_id {pad}, and the tokenizer in {self._tokenizer_folder} "
                f"{tokenizer.pad_token_id}: they belong to different models"
            )
        return tokenizer


def open_checkpoint(name: str, *, download: bool = True) -> Any:
    """Opens a checkpoint by its name, as for `load_space`: a Folder, or an object of the first matching file format."""
    if (path := local_path(name, CheckpointError)).is_file():
        return next(opened for open_file in FILE_FORMATS if (opened := open_file(name, path)) is not None)
    return Folder(name, download)


def read_format(checkpoint: Any, only: Tower | None = None) -> tuple[Format, dict[str, Any], Any]:
    """Returns a checkpoint's format, the content of its config.json, and the model's config.

    only: one tower; if it can be loaded alone, the results are for a model with this tower only.
    Raises CheckpointError for an unknown model_type, a missing tower and invalid sizes.
    """
    content, kind = checkpoint.content, checkpoint.content.get("model_type")
    if not isinstance(kind, str) or kind not in FORMATS:
        known = ", ".join(FORMATS)
        raise CheckpointError(f"{checkpoint.name}: config.json says model_type {kind!r:.60}; expected {known}")
    if only and only not in FORMATS[kind].towers:
        required = "a CLIP" if only == "image" else "a whole CLAP"
        raise CheckpointError(f"space {checkpoint.name} has no {only} tower; pass {required} checkpoint")
    try:
        if only and only in FORMATS[kind].single_tower_types:
            part, kind = tower_content(content, SECTIONS[only]), FORMATS[kind].single_tower_types[only]
            content = {**part, "model_type": kind, "architectures": [FORMATS[kind].model.__name__]}
        return FORMATS[kind], content, FORMATS[kind].config(content)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.config_path}: {error}; fetch it again") from None

"""Trains a translator on arrays of paired vectors."""

import contextlib
import copy
import dataclasses
import difflib
import logging
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from c2c_jax import recipes
from c2c_jax.api.messages import as_integer, flags_to_arguments
from c2c_jax.api.translator import UNKNOWN_SPACE, Translator
from c2c_jax.config import Config, ImagesConfig, check_fields, flat_fields
from c2c_jax.data.arrays import ArrayStore
from c2c_jax.data.images import MIN_IMAGES, image_vectors
from c2c_jax.errors import ConfigError, ImageError, StoreError, TrainingError
from c2c_jax.io.files import is_array
from c2c_jax.io.output_paths import require_output_folder
from c2c_jax.io.progress import show_progress
from c2c_jax.io.vectors import as_vectors, require_directions
from c2c_jax.spaces.space import Space, identify
from c2c_jax.spaces.space_id import SpaceId
from c2c_jax.training.check import check, drop_inapplicable_settings
from c2c_jax.training.run_state import exclusive_run
from c2c_jax.training.train import train

logger = logging.getLogger(__name__)

_ARGUMENTS = {
    "data.validation_size": "pass validation=",
    "images.files": "pass images=",
    "data.captions": "it trains on the arrays",
    "data.store": "it trains on the arrays",
    "source": "pass spaces=",
    "target": "pass spaces=",
}  # fields of a config → what to do instead
ARRAYS = "arrays"  # stands for file names in the config of a run on arrays


@flags_to_arguments
def fit(
    source: Any,
    target: Any,
    recipe: str | Config = "recommended",
    *,
    images: Any = None,
    validation: int | float = 0.1,
    seed: int = 0,
    workdir: str | Path | None = None,
    spaces: tuple[str | Space, str | Space] | None = None,
    progress: bool = True,
    **overrides: Any,
) -> Translator:
    """Trains a translator on paired vectors, and returns the version with the best validation score.

    source: raw CLIP vectors of N captions [N, S]. target: raw CLAP vectors of the same captions [N, E], row by row.
    Both are arrays of numpy (also memory-mapped), JAX or torch, of any float type, or paths of .npy files. They are
    read in parts, and copied as a whole only if they fit into the devices' memory.
    recipe: the name of a recipe (`c2c train --list`), or a `Config`. images: a few hundred unlabelled images, whose
    mean centres images and which help to select the translator: their raw CLIP vectors [P, S], or, with `spaces`, a
    folder or glob pattern of image files; None: no images.
    validation: fraction or number of the rows to hold out. seed: seed of all random choices. workdir: a folder for
    checkpoints, metrics and the bundle, with which the same call resumes an interrupted run; None: nothing is written.
    spaces: the CLIP and CLAP that computed the vectors, as names or loaded `Space`s; needed if the translator is used
    with images or sounds later. progress: whether to show progress on stderr.
    overrides: fields of the recipe: `steps=3000`, `adapt=False, translator={"kind": "mlp", "settings": {"width": 256}}`
    or `**{"optimizer.learning_rate": 1e-4}`; docs/configuration.md describes all fields.

    Training is the same as with `c2c train`, and uses all devices that JAX detects. With a workdir, SIGTERM saves a
    checkpoint before it ends the program. Raises VectorError, ImageError or
    StoreError for arrays that cannot be used, ConfigError for an unknown or invalid setting, TrainingError for a run
    that fails.
    """
    arrays = as_vectors(source, "source"), as_vectors(target, "target")
    if not isinstance(recipe, str | Config):
        raise ConfigError(f"recipe must be the name of a recipe or a Config, found a {type(recipe).__name__}")
    config = recipes.get(recipe) if isinstance(recipe, str) else copy.deepcopy(recipe)
    _override(config, dict(flat_fields(overrides)))
    config.seed = as_integer("seed", seed)
    config.data.captions = ARRAYS
    config.data.validation_size = _held_out(validation, len(arrays[0]), config)
    config.images.files = "" if images is None else ARRAYS
    ids = _space_ids(spaces, arrays)
    config.source, config.target = (space.name for space in ids)
    check_fields(config)
    check(config)
    if workdir is None and (config.log.tensorboard or config.log.wandb):
        raise ConfigError("log.tensorboard and log.wandb need a folder: pass workdir")
    folder = None if workdir is None else Path(workdir).expanduser()
    if folder:
        require_output_folder(folder, "--workdir")
    image_PS = None if images is None else _image_vectors(images, config.source, folder, ids[0].dim, progress)
    store = ArrayStore.of(*arrays, ids, hashes=folder is not None)
    with exclusive_run(folder) if folder else contextlib.nullcontext():
        result = train(config, store, folder, image_PS, progress=progress)
    if result is None:
        signal.raise_signal(signal.SIGTERM)  # the run has postponed it
        raise TrainingError(f"SIGTERM stopped the run; call fit again with the same workdir, {workdir}, to resume it")
    return Translator(result.bundle, folder, result.history)


def _override(config: Config, fields: Mapping[str, Any]) -> None:
    """Sets fields of a config by their paths. Settings of the recipe's kind that an overridden kind does not have are
    dropped. Raises ConfigError for a field that does not exist."""
    if set_otherwise := next((path for path in fields if path in _ARGUMENTS), None):
        raise ConfigError(f"{set_otherwise} is set by fit itself: {_ARGUMENTS[set_otherwise]}")
    fields = {path: value.item() if isinstance(value, np.generic) else value for path, value in fields.items()}
    for section in ("translator", "objective"):
        if f"{section}.kind" in fields:
            _set_field(config, f"{section}.kind", fields[f"{section}.kind"])
            drop_inapplicable_settings(section, getattr(config, section))
    for path, value in fields.items():
        _set_field(config, path, value)


def _set_field(config: Config, path: str, value: Any) -> None:
    """Sets a field of a config by its path. Raises ConfigError if there is no such field."""
    node: Any = config
    *sections, name = path.split(".")
    for section in sections:
        node = getattr(node, section, None)
    if isinstance(node, dict):
        node[name] = value
    elif dataclasses.is_dataclass(getattr(node, name, None)):
        raise ConfigError(f"{path} must be a dictionary of its fields, found {value!r:.40}")
    elif dataclasses.is_dataclass(node) and name in {field.name for field in dataclasses.fields(node)}:
        setattr(node, name, value)
    else:
        known = [field for field, _ in flat_fields(dataclasses.asdict(config))]
        close = difflib.get_close_matches(path, known, 1)
        advice = f"did you mean {close[0]}?" if close else "c2c_jax/config.py lists the fields"
        raise ConfigError(f"{path!r:.80} is neither an argument of fit nor a config field; {advice}")


def _held_out(validation: int | float, rows: int, config: Config) -> int:
    """The number of rows to hold out. Raises ConfigError if it leaves no rows to train on, or none held out."""
    if rows < 2:
        raise ConfigError(f"source has {rows} rows; pass 2 or more, preferably some thousands")
    is_fraction = isinstance(validation, float | np.floating) and 0 < validation < 1
    count = max(round(validation * rows), 1) if is_fraction else as_integer("validation", validation)
    if not 1 <= count < rows:
        raise ConfigError(
            f"validation is {validation}: pass a fraction between 0 and 1, or a number of rows below the {rows:,} of "
            "the arrays"
        )
    if config.adapt and count > max(rows // 10, 1):
        logger.warning(
            "a recipe with adapt=True holds out at most a tenth of the rows: %s instead of %s",
            f"{rows // 10:,}",
            f"{count:,}",
        )
    return count


def _space_ids(
    spaces: tuple[str | Space, str | Space] | None, arrays: tuple[Shaped[np.ndarray, "N S"], Shaped[np.ndarray, "M E"]]
) -> tuple[SpaceId, SpaceId]:
    """The ids of the two spaces. Raises StoreError if the widths of the arrays differ from theirs, CheckpointError for
    an unknown checkpoint."""
    if spaces is None:
        source, target = (SpaceId(name=UNKNOWN_SPACE, dim=array.shape[1], fingerprint="") for array in arrays)
        return source, target
    source, target = (space.id if isinstance(space, Space) else identify(space) for space in spaces)
    for side, space, array in zip(("source", "target"), (source, target), arrays, strict=True):
        if space.dim != array.shape[1]:
            raise StoreError(f"{side} vectors are {array.shape[1]} wide; those of {space.name} are {space.dim}")
    return source, target


def _image_vectors(images: Any, clip: str, workdir: Path | None, dim: int, progress: bool) -> Float[np.ndarray, "P S"]:
    if isinstance(images, str | Path) and not is_array(Path(images)):
        if clip == UNKNOWN_SPACE:
            raise ConfigError("image files need spaces=, whose CLIP encodes them; pass it, or pass the images' vectors")
        with show_progress(progress):
            vectors_PS = image_vectors(ImagesConfig(files=str(images)), clip, workdir)
        assert vectors_PS is not None
        return vectors_PS
    image_PS = as_vectors(images, "images", dim).astype(np.float32)
    require_directions(image_PS, "images")
    if len(image_PS) < MIN_IMAGES:
        raise ImageError(f"images has {len(image_PS)} vectors; pass {MIN_IMAGES} or more")
    return image_PS

"""The translator bundle: `config.json` and `model.safetensors`, in PyTorch's names and layout.

The loader here and `c2c_jax.torch` read it. Besides the weights, the tensors include the known means, `gap.source_text`
and `gap.source_image` [S], `gap.target_text` and `gap.target_audio` [E], and the caption memory `memory.source` [M, S],
float16, whose settings are "memory" in `config.json`.
"""

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

import jax.numpy as jnp
import msgspec
import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx

from c2c_jax.config import Config
from c2c_jax.errors import BundleError, ConfigError, one_line
from c2c_jax.io.atomic import atomic_write
from c2c_jax.io.json import format_json, read_json
from c2c_jax.io.tensors import read_safetensors
from c2c_jax.old_names import upgraded
from c2c_jax.spaces.space_id import SpaceId
from c2c_jax.spaces.weights.rules import AS_IS, CONV, LINEAR, Rule, WeightTable, fill, unfill
from c2c_jax.translator.centring import ModalityMeans
from c2c_jax.translator.kinds import Translator, TranslatorSpec, build_translator
from c2c_jax.translator.memory import Memory

FORMAT = 2
_MEANS_PREFIX = "gap."  # of the means' tensor names
_MEMORY_KEY = "memory.source"
_BLOCK_ROWS = 2**16  # rows of a memory that are checked together

Score = Annotated[float, msgspec.Meta(ge=0, le=1)]
Cosine = Annotated[float, msgspec.Meta(ge=-1, le=1)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """The candidate that a run selected, and the scores of all candidates.

    trained: weight of the trained translator; the closed-form map `linear` has the rest. memory: whether images are
    moved towards the caption memory. pair_cosine: assumed cosine of an image and its caption, both centred.
    noisy_mrr, noisy_cosine: scores of each candidate; see `training.selection`. selected_by: the score that decided.
    Bundles of earlier versions have no noisy_cosine.
    """

    trained: Score
    linear: str
    memory: bool
    pair_cosine: Score
    noisy_mrr: Annotated[dict[str, Score], msgspec.Meta(min_length=1)]
    noisy_cosine: dict[str, Cosine] = dataclasses.field(default_factory=dict)
    selected_by: Literal["noisy_mrr", "noisy_cosine"] = "noisy_mrr"

    def __post_init__(self) -> None:
        is_needed = self.noisy_cosine or self.selected_by == "noisy_cosine"
        if is_needed and self.noisy_cosine.keys() != self.noisy_mrr.keys():
            raise ValueError("noisy_cosine must score the same candidates as noisy_mrr")

    @property
    def is_refitted(self) -> bool:
        """Whether a part of the translator was refitted to all captions, the held-out ones included, after
        selection."""
        return bool(self.linear)

    @property
    def scores(self) -> dict[str, float]:
        """Each candidate's score by `selected_by`."""
        return self.noisy_cosine if self.selected_by == "noisy_cosine" else self.noisy_mrr

    @property
    def best(self) -> float:
        """The score of the selected candidate."""
        return max(self.scores.values())

    @property
    def trained_scores(self) -> list[float]:
        """The scores of the trained translator by itself, without and with the memory."""
        return [score for name, score in self.scores.items() if name in ("trained", "trained, memory")]

    def __str__(self) -> str:
        parts = [f"{self.trained:.0%} trained" if self.linear else "trained"] if self.trained else []
        parts += [f"{1 - self.trained:.0%} {self.linear}" if self.trained else self.linear] if self.linear else []
        return " + ".join(parts) + (", with the caption memory" if self.memory else "")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bundle:
    """A trained translator with its two spaces, its training config and its validation metrics.

    metrics: empty if it was never validated. means: the known means of captions, images and sounds. memory: captions
    that images are moved towards, or that are only reference queries. choice: None if no other candidate competed and
    a score of unperturbed captions selected the translator.
    """

    translator: Translator
    spec: TranslatorSpec
    source: SpaceId
    target: SpaceId
    recipe: dict[str, Any]
    metrics: dict[str, Any]
    means: ModalityMeans = ModalityMeans()
    memory: Memory | None = None
    choice: Choice | None = None


def weight_table(translator: nnx.Module) -> WeightTable:
    """The weight table of a translator: names and layouts in PyTorch, derived from its flax modules."""
    rules = []
    for path, variable in nnx.to_flat_state(nnx.state(translator, nnx.Param)):
        *module, name = map(str, path)
        torch_name = "weight" if name in ("kernel", "scale", "embedding") else name
        layout = {2: LINEAR, 4: CONV}.get(len(variable.shape), AS_IS) if name == "kernel" else AS_IS
        theirs, ours = (re.escape(".".join((*module, leaf_name))) for leaf_name in (torch_name, name))
        rules.append(Rule(theirs, ours, layout))
    return WeightTable(rules=tuple(rules))


def save_bundle(folder: Path, bundle: Bundle) -> None:
    """Writes a bundle folder atomically, replacing an older one. Raises BundleError if it cannot be written."""
    try:
        with atomic_write(folder) as temporary:
            temporary.mkdir()
            write_files(temporary, bundle)
    except (OSError, safetensors.SafetensorError) as error:
        raise BundleError(
            f"{folder} could not be written ({one_line(error)}); free disk space and start again"
        ) from error


def write_files(folder: Path, bundle: Bundle) -> None:
    """Writes `config.json` and `model.safetensors` into an existing folder."""
    config = {
        "format": FORMAT,
        "translator": bundle.spec.to_json(),
        "source": dataclasses.asdict(bundle.source),
        "target": dataclasses.asdict(bundle.target),
        "recipe": bundle.recipe,
        "metrics": bundle.metrics,
    }
    if bundle.choice is not None:
        config["choice"] = dataclasses.asdict(bundle.choice)
    tensors = unfill(bundle.translator, weight_table(bundle.translator))
    if bundle.memory is not None:
        config["memory"] = bundle.memory.settings
        tensors[_MEMORY_KEY] = np.ascontiguousarray(bundle.memory.source)
    (folder / "config.json").write_bytes(format_json(config))
    _write_tensors(folder / "model.safetensors", tensors, bundle.means)


def write_modality_means(folder: Path, means: ModalityMeans, out: Path | None = None) -> None:
    """Replaces the means of a bundle. Its other tensors and its config.json do not change.

    out: a new folder for the bundle with these means, written atomically; None: change `folder` itself.
    Raises CheckpointError if the tensors cannot be read, BundleError if they cannot be written.
    """
    tensors = read_safetensors(folder / "model.safetensors")
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(_MEANS_PREFIX)}
    try:
        if out is None:
            with atomic_write(folder / "model.safetensors") as temporary:
                _write_tensors(temporary, tensors, means)
            return
        with atomic_write(out) as temporary:
            temporary.mkdir()
            shutil.copyfile(folder / "config.json", temporary / "config.json")
            _write_tensors(temporary / "model.safetensors", tensors, means)
    except (OSError, safetensors.SafetensorError) as error:
        raise BundleError(
            f"{out or folder} could not be written ({one_line(error)}); free disk space, or pass another --out"
        ) from error


def _write_tensors(file: Path, tensors: dict[str, np.ndarray], means: ModalityMeans) -> None:
    stored = {_MEANS_PREFIX + name: np.array(getattr(means, name), np.float32, order="C") for name in means.known}
    safetensors.numpy.save_file(tensors | stored, file, metadata={"format": "pt"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class _MemorySettings:
    weight: Annotated[float, msgspec.Meta(ge=0, le=1)]
    temperature: Annotated[float, msgspec.Meta(ge=1e-6, le=1e9)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Config:
    """A bundle's config.json. recipe: a `Config` as nested dictionaries, or what an import wrote."""

    translator: dict[str, Any]
    source: SpaceId
    target: SpaceId
    recipe: dict[str, Any]
    metrics: dict[str, Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)] | float]
    memory: _MemorySettings | None = None
    choice: Choice | None = None


def _read_config(folder: Path) -> _Config:
    path = folder / "config.json"
    if not path.is_file():
        raise BundleError(f"{folder} contains no translator bundle (no config.json); pass the `bundle` folder of a run")
    content = read_json(path, BundleError)
    if content.get("format") != FORMAT:
        raise BundleError(
            f"{folder} is a bundle of format {str(content.get('format'))[:20]}; this version reads format {FORMAT}"
        )
    if isinstance(memory := content.get("memory"), dict) and "share" in memory:  # the weight's name in version 0.1
        content["memory"] = {"weight": memory["share"], **memory}
    try:
        config = msgspec.convert(content, _Config)
        if "translator" in config.recipe:  # not the recipe of an import
            config = dataclasses.replace(config, recipe=upgraded(config.recipe))
            msgspec.convert(config.recipe, Config)
        TranslatorSpec.from_json(config.translator)
    except ConfigError as error:
        raise BundleError(f"{path}: {error}; fetch it again") from None
    except msgspec.ValidationError as error:
        raise BundleError(f"{path} is not a translator bundle's config ({one_line(error)}); fetch it again") from None
    if invalid := next((name for name, value in config.metrics.items() if "@" in name and not 0 <= value <= 1), None):
        raise BundleError(f"{path}: {invalid} is {config.metrics[invalid]!r:.40}, not from 0 to 1; fetch it again")
    return config


def read_metrics(folder: Path) -> dict[str, int | float]:
    """Reads the validation metrics of a bundle. Raises BundleError if there is no bundle."""
    return _read_config(folder).metrics


def read_choice(folder: Path) -> Choice | None:
    """Reads which candidate a bundle's run selected. Raises BundleError if there is no bundle."""
    return _read_config(folder).choice


def load_bundle(folder: Path) -> Bundle:
    """Reads a bundle folder.

    Raises BundleError if there is none or its config.json is invalid, CheckpointError if its tensors do not fit.
    """
    folder = Path(folder)
    config = _read_config(folder)
    spec = TranslatorSpec.from_json(config.translator)
    tensors = read_safetensors(folder / "model.safetensors")
    means = _read_means(folder, spec, {key: tensors.pop(key) for key in list(tensors) if key.startswith(_MEANS_PREFIX)})
    memory = _read_memory(folder, spec, config.memory, tensors.pop(_MEMORY_KEY, None))
    table = weight_table(nnx.eval_shape(lambda: build_translator(spec, rngs=nnx.Rngs(0))))
    translator = fill(lambda rngs: build_translator(spec, rngs=rngs), tensors, table, str(folder))
    return Bundle(
        translator=translator,
        spec=spec,
        source=config.source,
        target=config.target,
        recipe=config.recipe,
        metrics=config.metrics,
        means=means,
        memory=memory,
        choice=config.choice,
    )


def _read_means(folder: Path, spec: TranslatorSpec, tensors: dict[str, np.ndarray]) -> ModalityMeans:
    known = {field.name for field in dataclasses.fields(ModalityMeans)}
    means_by_name = {key.removeprefix(_MEANS_PREFIX): tensor for key, tensor in tensors.items()}
    for name, mean in means_by_name.items():
        if name not in known:
            raise BundleError(f"{folder}: unknown mean {name!r}; known are {', '.join(sorted(known))}")
        width = spec.source_dim if name.startswith("source") else spec.target_dim
        if mean.shape != (width,) or mean.dtype != np.float32 or not np.isfinite(mean).all():
            raise BundleError(
                f"{folder}: mean {name} is {mean.dtype} of shape {mean.shape}; "
                f"expected finite float32 of shape ({width},)"
            )
    try:
        means = ModalityMeans(**means_by_name)
    except ValueError as error:
        raise BundleError(f"{folder}: {error}") from None
    if spec.input_norm == "centred" and not {"source_text", "target_text"} <= set(means.known):
        raise BundleError(
            f"{folder}: a translator of centred vectors needs the captions' means gap.source_text and gap.target_text; "
            "copy both files of the bundle again"
        )
    if spec.input_norm == "centred":
        for name in means.known:
            if not np.linalg.norm(getattr(means, name).astype(np.float64)) < 1:
                raise BundleError(
                    f"{folder}: {name} has length 1 or more, so it is not a mean of unit vectors; fetch it again"
                )
    return means


def _read_memory(
    folder: Path, spec: TranslatorSpec, settings: _MemorySettings | None, source_MS: np.ndarray | None
) -> Memory | None:
    if settings is None and source_MS is None:
        return None
    if settings is None or source_MS is None:
        missing = "captions" if source_MS is None else "settings"
        raise BundleError(f"{folder}: the caption memory lacks its {missing}; copy both files of the bundle again")
    blocks = np.array_split(source_MS, -(-len(source_MS) // _BLOCK_ROWS)) if source_MS.size else []
    is_well_shaped = source_MS.dtype == np.float16 and source_MS.ndim == 2 and source_MS.shape[1] == spec.source_dim
    if not (is_well_shaped and blocks and all(_are_unit(block_CS) for block_CS in blocks)):
        raise BundleError(
            f"{folder}: caption memory is {source_MS.dtype} of shape {source_MS.shape}; "
            f"expected float16 unit vectors of shape (M, {spec.source_dim})"
        )
    return Memory(source=jnp.asarray(source_MS), weight=settings.weight, temperature=settings.temperature)


def _are_unit(rows_CS: np.ndarray) -> bool:
    """Whether all rows are unit vectors, to float16's precision."""
    return bool((np.abs(np.linalg.norm(rows_CS.astype(np.float32), axis=1) - 1) < 0.01).all())

"""The translator bundle: `config.json` and `model.safetensors`, in PyTorch's names and layout.

Two programs read it: the Flax loader here, through a table of names, and `c2c_jax.torch`, directly. Beside the weights
there are the means that are known, `gap.source_text`, `gap.source_image` [S], `gap.target_text` and `gap.target_audio`
[E], and the caption memory `memory.source` [M, S], float16, whose settings are "memory" in `config.json`.
"""

import dataclasses
import json
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
from c2c_jax.io.json import read_json
from c2c_jax.io.tensors import read_safetensors
from c2c_jax.old_names import upgraded
from c2c_jax.spaces.space import SpaceId
from c2c_jax.spaces.weights.rules import AS_IS, CONV, LINEAR, Rule, Table, fill, unfill
from c2c_jax.translator.centring import ModalityMeans
from c2c_jax.translator.kinds import Translator, TranslatorSpec, build_translator
from c2c_jax.translator.memory import Memory

FORMAT = 2
_GAP = "gap."  # before the names of the means among the tensors
_MEMORY = "memory.source"
_ROWS_AT_ONCE = 2**16  # of a memory that are looked at together


Score = Annotated[float, msgspec.Meta(ge=0, le=1)]
Cosine = Annotated[float, msgspec.Meta(ge=-1, le=1)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """The candidate that a run selected, and the scores of all candidates.

    trained: weight of the trained translator; the rest is that of `linear`, a closed-form map. memory: whether pictures
    are turned towards the caption memory. pair_cosine: the cosine of a picture and its caption, both centred, that the
    scores assume. noisy_mrr, noisy_cosine: scores of each candidate; see `training.selection`. selected_by: the name
    of the one that selected. Bundles of earlier versions have no noisy_cosine.
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
        """Whether the translator has a closed-form part, which was fitted to the held-out captions after selection."""
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
    def of_trained(self) -> list[float]:
        """The scores of the trained translator alone, without and with the memory."""
        return [score for name, score in self.scores.items() if name in ("trained", "trained, memory")]

    def __str__(self) -> str:
        parts = [f"{self.trained:.0%} trained" if self.linear else "trained"] if self.trained else []
        parts += [f"{1 - self.trained:.0%} {self.linear}" if self.trained else self.linear] if self.linear else []
        return " + ".join(parts) + (", with the caption memory" if self.memory else "")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bundle:
    """A trained translator with the spaces it goes between, the recipe it came from and its validation metrics.

    metrics: none where it was never validated. means: of captions, pictures and sounds, as far as they are known.
    memory: captions that pictures are turned towards, or that are only reference queries. choice: None if
    nothing competed with the trained translator and a score of unperturbed captions selected it.
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


def weight_table(translator: nnx.Module) -> Table:
    """The names and layouts of a translator's weights in PyTorch, which follow from those of its flax modules."""
    rules = []
    for path, variable in nnx.to_flat_state(nnx.state(translator, nnx.Param)):
        *module, name = map(str, path)
        torch_name = "weight" if name in ("kernel", "scale", "embedding") else name
        layout = {2: LINEAR, 4: CONV}.get(len(variable.shape), AS_IS) if name == "kernel" else AS_IS
        theirs, ours = (re.escape(".".join((*module, one))) for one in (torch_name, name))
        rules.append(Rule(theirs, ours, layout))
    return Table(rules=tuple(rules))


def save_bundle(folder: Path, bundle: Bundle) -> None:
    """Writes the bundle folder, whole or not at all; an older one of that name is replaced.

    Raises BundleError if the disk does not take it.
    """
    try:
        with atomic_write(folder) as temporary:
            temporary.mkdir()
            write_files(temporary, bundle)
    except (OSError, safetensors.SafetensorError) as error:
        raise BundleError(
            f"{folder} could not be written ({one_line(error)}); free disk space and start again"
        ) from error


def write_files(folder: Path, bundle: Bundle) -> None:
    """Writes `config.json` and `model.safetensors` into a folder that is there."""
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
        tensors[_MEMORY] = np.ascontiguousarray(bundle.memory.source)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    _write_tensors(folder / "model.safetensors", tensors, bundle.means)


def write_modality_means(folder: Path, means: ModalityMeans, out: Path | None = None) -> None:
    """Replaces the means in a bundle folder; its translator and its config.json stay, bit for bit.

    out: a folder that becomes the bundle with them, whole or not at all, in place of one of that name; None: they go
    into the folder itself, of which all other files stay too.
    Raises CheckpointError if the tensors cannot be read, BundleError if the disk does not take them.
    """
    tensors = read_safetensors(folder / "model.safetensors")
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(_GAP)}
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
    stored = {_GAP + name: np.array(getattr(means, name), np.float32, order="C") for name in means.known}
    safetensors.numpy.save_file(tensors | stored, file, metadata={"format": "pt"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class _MemorySettings:
    share: Annotated[float, msgspec.Meta(ge=0, le=1)]
    temperature: Annotated[float, msgspec.Meta(ge=1e-6, le=1e9)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Config:
    """A bundle's config.json. recipe: as `Config` has it, whose fields' types are checked, or what an import wrote."""

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
    try:
        config = msgspec.convert(content, _Config)
        if "translator" in config.recipe:  # an import's recipe is not a config
            config = dataclasses.replace(config, recipe=upgraded(config.recipe))
            msgspec.convert(config.recipe, Config)
        TranslatorSpec.from_json(config.translator)
    except ConfigError as error:
        raise BundleError(f"{path}: {error}; fetch it again") from None
    except msgspec.ValidationError as error:
        raise BundleError(f"{path} is not a translator bundle's config ({one_line(error)}); fetch it again") from None
    if odd := next((name for name, value in config.metrics.items() if "@" in name and not 0 <= value <= 1), None):
        raise BundleError(f"{path}: {odd} is {config.metrics[odd]!r:.40}, not from 0 to 1; fetch it again")
    return config


def read_metrics(folder: Path) -> dict[str, int | float]:
    """The validation metrics of a bundle. Raises BundleError if there is no bundle."""
    return _read_config(folder).metrics


def read_choice(folder: Path) -> Choice | None:
    """The candidate that a bundle's run selected. Raises BundleError if there is no bundle."""
    return _read_config(folder).choice


def load_bundle(folder: Path) -> Bundle:
    """Reads a bundle folder.

    Raises BundleError if there is none or its config.json has another format, CheckpointError if its tensors
    do not fit.
    """
    folder = Path(folder)
    config = _read_config(folder)
    spec = TranslatorSpec.from_json(config.translator)
    tensors = read_safetensors(folder / "model.safetensors")
    means = _read_means(folder, spec, {key: tensors.pop(key) for key in list(tensors) if key.startswith(_GAP)})
    memory = _read_memory(folder, spec, config.memory, tensors.pop(_MEMORY, None))
    table = weight_table(nnx.eval_shape(lambda: build_translator(spec, rngs=nnx.Rngs(0))))
    translator = fill(lambda rngs: build_translator(spec, rngs=rngs), tensors, table, str(folder))
    spaces = {"source": config.source, "target": config.target}
    known = {
        "recipe": config.recipe,
        "metrics": config.metrics,
        "means": means,
        "memory": memory,
        "choice": config.choice,
    }
    return Bundle(translator=translator, spec=spec, **spaces, **known)  # type: ignore[arg-type]


def _read_means(folder: Path, spec: TranslatorSpec, tensors: dict[str, np.ndarray]) -> ModalityMeans:
    known = {field.name for field in dataclasses.fields(ModalityMeans)}
    found = {key.removeprefix(_GAP): tensor for key, tensor in tensors.items()}
    for name, mean in found.items():
        if name not in known:
            raise BundleError(f"{folder}: unknown mean {name!r}; known are {', '.join(sorted(known))}")
        width = spec.source_dim if name.startswith("source") else spec.target_dim
        if mean.shape != (width,) or mean.dtype != np.float32 or not np.isfinite(mean).all():
            raise BundleError(
                f"{folder}: mean {name} is {mean.dtype} of shape {mean.shape}; "
                f"expected finite float32 of shape ({width},)"
            )
    try:
        means = ModalityMeans(**found)
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
        has, lacks = ("settings", "captions") if source_MS is None else ("captions", "settings")
        raise BundleError(f"{folder}: a caption memory's {has} come without its {lacks}; copy both files of the bundle")
    blocks = np.array_split(source_MS, -(-len(source_MS) // _ROWS_AT_ONCE)) if source_MS.size else []
    is_shape = source_MS.dtype == np.float16 and source_MS.ndim == 2 and source_MS.shape[1] == spec.source_dim
    if not (is_shape and blocks and all(_are_unit(block_CS) for block_CS in blocks)):
        raise BundleError(
            f"{folder}: caption memory is {source_MS.dtype} of shape {source_MS.shape}; "
            f"expected float16 unit vectors of shape (M, {spec.source_dim})"
        )
    return Memory(source=jnp.asarray(source_MS), weight=settings.share, temperature=settings.temperature)


def _are_unit(rows_CS: np.ndarray) -> bool:
    """To float16's precision; a NaN is not."""
    return bool((np.abs(np.linalg.norm(rows_CS.astype(np.float32), axis=1) - 1) < 0.01).all())

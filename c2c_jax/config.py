"""The settings of a training run, with their meanings, bounds and defaults.

Recipes fill these dataclasses. The settings of a single translator kind or objective are declared in its own class,
with the same `setting` function, and are stored in `translator.settings` and `objective.settings`.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, get_type_hints

from c2c_jax.errors import ConfigError
from c2c_jax.old_names import accept_old_names

T = TypeVar("T")

INPUT_NORMS = ("none", "unit", "centred")
# Validation scores of perturbed captions: the mean reciprocal rank and the mean cosine of their own targets.
PERTURBED_SCORES = PERTURBED_MRR, PERTURBED_COSINE = "noisy_mrr", "noisy_cosine"
# Validation scores of captions as they are.
CAPTION_SCORES = ("recall@1", "recall@5", "recall@10", "in_batch_top1", "median_rank", "mean_cosine")


def setting(default: Any, help: str, **bounds: Any) -> Any:
    """Declares a dataclass field with a help text and bounds.

    bounds: any of `gt`, `ge`, `lt`, `le` for numbers, and `choices` for strings.
    """
    return dataclasses.field(default=default, metadata={"help": help, **bounds})


def register_class(registry: dict[str, Any], what: str, name: str, cls: type) -> None:
    """Adds a class to a registry under a name; a later class of a script replaces an earlier one. what: for messages.

    Raises ConfigError for a name that is not an identifier or belongs to a built-in class.
    """
    if not name.isidentifier():
        raise ConfigError(f"{what} name {name!r} must consist of letters, digits and underscores")
    other = registry.get(name)
    if other and other.__module__.startswith("c2c_jax.") and other.__module__ != cls.__module__:
        raise ConfigError(f"{what} {name!r} is built in: choose another name")
    registry[name] = cls


@dataclasses.dataclass(kw_only=True, slots=True)
class DataConfig:
    """Where the captions come from, and how they reach the devices."""

    captions: str = setting("miniworld:50000", 'Caption sources, joined by " + "; docs/embedding.md lists the kinds.')
    drop_duplicates: bool = setting(True, "Whether repeated captions are dropped.")
    data_dir: str = setting("", 'Folder of prepared TFDS data sets; "" = ~/tensorflow_datasets.')
    manual_dir: str = setting("", 'Folder that holds Google\'s TSV files; "" = DATA_DIR/downloads/manual.')
    store: str = setting("", 'Folder of the embedding store; "" = WORKDIR/store.')
    validation_size: int = setting(1000, "Number of captions held out for validation, drawn at random.", ge=1, le=10**9)
    loader: str = setting(
        "auto",
        '"resident" keeps the vectors on the devices, "streamed" reads them from disk, "auto" picks what fits.',
        choices=("auto", "resident", "streamed"),
    )


@dataclasses.dataclass(kw_only=True, slots=True)
class EmbedConfig:
    """How the frozen text towers embed the captions."""

    dtype: str = setting("float32", "Precision in which the towers compute.", choices=("float32", "bfloat16"))
    store_dtype: str = setting("float16", "Type of the stored vectors.", choices=("float16", "float32"))
    batch_tokens: int = setting(0, "Tokens per device and batch; 0 = 1,024 on CPUs, 16,384 elsewhere.", ge=0, le=2**22)
    chunk_rows: int = setting(4096, "Rows per chunk of the store, the unit of writing and resuming.", ge=1, le=2**20)


@dataclasses.dataclass(kw_only=True, slots=True)
class TranslatorConfig:
    """The translator's architecture."""

    kind: str = setting("mlp", "Registered translator kind, such as mlp, residual or transformer.")
    input_norm: str = setting(
        "centred",
        '"none": raw vectors; "unit": L2-normalised, then scaled by √S (unit RMS per coordinate); "centred": the same, '
        "after subtracting the mean of their modality.",
        choices=INPUT_NORMS,
    )
    clamp: float = setting(0.0, "Output coordinates are clipped to ±clamp; 0 = no clipping.", ge=0, le=1e6)
    settings: dict[str, Any] = dataclasses.field(
        default_factory=dict, metadata={"help": "The kind's settings by name, such as width and depth."}
    )


@dataclasses.dataclass(kw_only=True, slots=True)
class AugmentConfig:
    """Noise that training adds to the source vectors."""

    noise_cosine: float = setting(
        1.0, "Cosine similarity to the clean source vector kept after adding noise; 1 = no noise.", ge=0, le=1
    )


@dataclasses.dataclass(kw_only=True, slots=True)
class MemoryConfig:
    """The caption memory: captions that an image's vector is moved towards before translation."""

    size: int = setting(
        0, "Number of training captions stored in the bundle, drawn at random; 0 = none, -1 = all.", ge=-1, le=10**8
    )
    weight: float = setting(
        0.5, "Weight of the caption average when mixed with the image vector; the image gets 1 − weight.", gt=0, le=1
    )
    temperature: float = setting(
        0.01, "Temperature of the softmax over the image's cosines to the captions.", ge=1e-6, le=1000
    )


@dataclasses.dataclass(kw_only=True, slots=True)
class ImagesConfig:
    """Unlabelled images, which give the mean of images and the noise of validation."""

    files: str = setting(
        "", 'A folder, an image, a pattern, an .npy file of raw vectors, or miniworld:COUNT; "" = none.'
    )
    calibrate: bool = setting(True, "Whether the bundle stores the mean of the images and centres images with it.")


@dataclasses.dataclass(kw_only=True, slots=True)
class ObjectiveConfig:
    """The training objective."""

    kind: str = setting("infonce", 'Registered objective, or a weighted sum such as "infonce + 0.5*l2".')
    settings: dict[str, Any] = dataclasses.field(
        default_factory=dict,
        metadata={
            "help": "The objective's settings by name, such as temperature or loss_chunks; see training/objectives.py."
        },
    )


@dataclasses.dataclass(kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW and its learning rate."""

    learning_rate: float = setting(1e-3, "Learning rate after warm-up and before decay.", gt=0, le=1000)
    warmup: int = setting(0, "Steps over which the learning rate grows linearly from 0.", ge=0, le=10**9)
    decay: str = setting(
        "constant",
        'Learning rate after warm-up: "constant", or "cosine" or "linear" to 0 at the last step.',
        choices=("constant", "cosine", "linear"),
    )
    clip_norm: float = setting(
        0.0, "Maximum global norm of the gradients; larger ones are scaled down; 0 = no clipping.", ge=0, le=1e9
    )
    ema: float = setting(
        0.0, "Decay of the moving average of the weights, which replaces them in the bundle; 0 = none.", ge=0, lt=1
    )
    weight_decay: float = setting(0.01, "Decoupled weight decay.", ge=0, le=1e6)
    eps: float = setting(1e-8, "Term that AdamW adds to the denominator.", ge=0, le=1)


@dataclasses.dataclass(kw_only=True, slots=True)
class LogConfig:
    """Experiment trackers that receive the metrics in addition to metrics.jsonl."""

    tensorboard: bool = setting(False, "Whether to write metrics to WORKDIR/tensorboard.")
    wandb: str = setting("", 'Weights & Biases project to send metrics to; "" = none.')


@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
    """All settings of a training run."""

    source: str = setting(
        "miniworld/clip", "CLIP, the space of images: a hub name, a folder, or a built-in checkpoint (miniworld/clip)."
    )
    target: str = setting(
        "miniworld/clap",
        "CLAP, the space of sounds. To generate sounds, use the CLAP that the generator was trained with.",
    )
    seed: int = setting(
        420,
        "Seed of all random choices: held-out captions, initial weights, row order, noise, dropout, caption memory, "
        "perturbed validation captions.",
        ge=0,
        le=2**32 - 1,
    )
    batch_size: int = setting(
        1024, "Rows per step, over all devices. Contrastive objectives use the other rows as negatives.", ge=1, le=2**22
    )
    epochs: int = setting(20, "Passes over the training rows.", ge=1, le=10**6)
    steps: int = setting(0, "Number of steps; if 0, `epochs` sets the length of the run.", ge=0, le=10**9)
    steps_per_call: int = setting(
        10,
        "Maximum number of steps of one compiled call; validation, checkpoints and stops happen between calls.",
        ge=1,
        le=1000,
    )
    log_every: int = setting(50, "Steps between training entries in metrics.jsonl.", ge=1, le=10**9)
    precision: str = setting(
        "float32",
        "Precision of matrix products on accelerators; CPUs always use float32.",
        choices=("float32", "tensorfloat32", "bfloat16"),
    )
    eval_every: int = setting(500, "Steps between validations.", ge=1, le=10**9)
    checkpoint_every: int = setting(500, "Steps between resumable checkpoints.", ge=1, le=10**9)
    select_by: str = setting(
        "noisy_mrr",
        "Validation score that selects the bundle. noisy_mrr favours translators that find the exact item, "
        "noisy_cosine those that find items of the right class; others score unperturbed captions, and noisy_mrr then "
        "compares the candidates (docs/selection.md).",
        choices=(*PERTURBED_SCORES, *CAPTION_SCORES),
    )
    adapt: bool = setting(
        False,
        "Whether the bundle may be a closed-form map or a blend with one, with or without the caption memory, if that "
        "scores better. At most a tenth of the captions is then held out, and few captions reduce the batch size.",
    )
    patience: int = setting(
        0, "Validations without improvement after which the run ends early; 0 = never.", ge=0, le=10**9
    )
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    embed: EmbedConfig = dataclasses.field(default_factory=EmbedConfig)
    translator: TranslatorConfig = dataclasses.field(default_factory=TranslatorConfig)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    memory: MemoryConfig = dataclasses.field(default_factory=MemoryConfig)
    images: ImagesConfig = dataclasses.field(default_factory=ImagesConfig)
    objective: ObjectiveConfig = dataclasses.field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    log: LogConfig = dataclasses.field(default_factory=LogConfig)


def check_fields(node: Any, path: str = "config.") -> None:
    """Checks the types and bounds of all fields of a dataclass and its nested dataclasses. Raises ConfigError."""
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            check_fields(value, f"{path}{field.name}.")
    _check_values(type(node), {field.name: getattr(node, field.name) for field in dataclasses.fields(node)}, path)


def settings_as(kind: type[T], values: Mapping[str, Any], path: str) -> T:
    """Checks settings and makes a dataclass of type `kind` from them. path: prefix of the names in messages. Raises
    ConfigError for an unknown name, a value of the wrong type, or one out of bounds."""
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    if unknown := next((name for name in values if name not in known), None):
        raise ConfigError(f"{path}{unknown} is unknown; known are {', '.join(known) or 'none'}")
    _check_values(kind, values, path)
    return kind(**values)


def _check_values(kind: type, values: Mapping[str, Any], path: str) -> None:
    types = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if field.name in values and types[field.name] in (bool, int, float, str):
            _check_type(f"{path}{field.name}", types[field.name], values[field.name])
            _check_bounds(f"{path}{field.name}", values[field.name], field.metadata)


def flat_fields(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the path, such as `optimizer.eps`, and the value of each field of nested dictionaries."""
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from flat_fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _check_type(name: str, kind: type, value: Any) -> None:
    fits = isinstance(value, (int, float) if kind is float else kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{name} is {_short(value)}; it must be of type {kind.__name__}")


def _check_bounds(name: str, value: Any, bounds: Mapping[str, Any]) -> None:
    if "choices" in bounds and value not in bounds["choices"]:
        raise ConfigError(f"{name} is {_short(value)}; known are {', '.join(bounds['choices'])}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name} is {value}; it must be a finite number")
    checks: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
        "gt": (lambda x, bound: x > bound, "above {:,}"),
        "ge": (lambda x, bound: x >= bound, "{:,} or more"),
        "lt": (lambda x, bound: x < bound, "below {:,}"),
        "le": (lambda x, bound: x <= bound, "at most {:,}"),
    }
    for bound, (fits, words) in checks.items():
        if bound in bounds and not fits(value, bounds[bound]):
            raise ConfigError(f"{name} is {_short(value)}; it must be {words.format(bounds[bound])}")


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python does not print integers of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 40 else f"{text[:40]}…"


def candidate_score(select_by: str) -> str:
    """The score by which candidates compete if `config.select_by` is this: itself if it is a score of perturbed
    captions, else noisy_mrr."""
    return select_by if select_by in PERTURBED_SCORES else PERTURBED_MRR


# Checkpoints and captions by the name that follows a recipe's: `--recipe mlp:gcc`, `--config configs/mlp.py:gcc`.
_PAPER = {"source": "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "target": "cvssp/audioldm-l-full:text_encoder"}
DATASET_PRESETS: dict[str, dict[str, str]] = {
    "miniworld": {},
    "gcc": {**_PAPER, "captions": "tfds:conceptual_captions:train"},
    "coco": {**_PAPER, "captions": "tfds:coco_captions:train:captions/text"},
}


def apply_preset(name: str, config: Config) -> Config:
    """Returns a config with the checkpoints and captions of a preset. Raises ConfigError for an unknown preset."""
    if name not in DATASET_PRESETS:
        raise ConfigError(
            f"unknown data preset {name!r} after the recipe's name; known are {', '.join(DATASET_PRESETS)}"
        )
    preset = DATASET_PRESETS[name]
    return dataclasses.replace(
        config,
        source=preset.get("source", config.source),
        target=preset.get("target", config.target),
        data=dataclasses.replace(config.data, captions=preset.get("captions", config.data.captions)),
    )


for _section, _class in (
    ("", Config),
    ("data", DataConfig),
    ("translator", TranslatorConfig),
    ("augment", AugmentConfig),
    ("memory", MemoryConfig),
    ("objective", ObjectiveConfig),
):
    accept_old_names(_section, _class)

PicturesConfig = ImagesConfig  # its name in version 0.1
WORLDS, trained_on = DATASET_PRESETS, apply_preset  # their names in version 0.1

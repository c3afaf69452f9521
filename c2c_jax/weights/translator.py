"""The translator bundle: `config.json` and `model.safetensors`, in PyTorch's names and layout.

One file, two readers: the Flax loader here, through a table, and the twin in `c2c_jax.torch`, directly.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.numpy
from flax import nnx

from c2c_jax.errors import BundleError, one_line
from c2c_jax.files import written_whole
from c2c_jax.models.translator import INPUT_NORMS, KINDS, Translator, TranslatorSpec, build_translator
from c2c_jax.spaces import SpaceId
from c2c_jax.weights.folders import read_json, read_safetensors
from c2c_jax.weights.rules import LINEAR, Table, fill, leaf, unfill

TABLE = Table(
    rules=(
        leaf(r"positions", "weight", "embedding"),
        leaf(r"norms\.\d+|layers\.\d+\.norm[12]", "weight", "scale"),
        leaf(r"linear|into|out|(?:layers|resized)\.\d+", "weight", "kernel", LINEAR),
        leaf(r"layers\.\d+\.(?:[qkv]_proj|out_proj|linear[12])", "weight", "kernel", LINEAR),
        leaf(r"[\w.]+", "bias", "bias"),
    )
)

FORMAT = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bundle:
    """A trained translator with the spaces it goes between, the recipe it came from and its validation metrics."""

    translator: Translator
    spec: TranslatorSpec
    source: SpaceId
    target: SpaceId
    recipe: dict[str, Any]
    metrics: dict[str, Any]


def save_bundle(folder: Path, bundle: Bundle) -> None:
    """Writes the bundle folder, whole or not at all; an older one of that name is replaced.

    Raises BundleError where the disk does not take it.
    """
    config = {
        "format": FORMAT,
        "translator": dataclasses.asdict(bundle.spec),
        "source": dataclasses.asdict(bundle.source),
        "target": dataclasses.asdict(bundle.target),
        "recipe": bundle.recipe,
        "metrics": bundle.metrics,
    }
    try:
        with written_whole(folder) as beside:
            beside.mkdir()
            (beside / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            tensors = unfill(bundle.translator, TABLE)
            safetensors.numpy.save_file(tensors, beside / "model.safetensors", metadata={"format": "pt"})
    except (OSError, safetensors.SafetensorError) as error:
        raise BundleError(f"{folder} could not be written ({one_line(error)}); make room, then start again") from error


def _read_config(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").is_file():
        raise BundleError(f"{folder} holds no translator bundle (no config.json); pass the `bundle` folder of a run")
    config = read_json(folder / "config.json")
    if config.get("format") != FORMAT:
        raise BundleError(f"{folder} is a bundle of format {config.get('format')}; this version reads format {FORMAT}")
    return config


def read_metrics(folder: Path) -> dict[str, Any]:
    """The validation metrics of a bundle. Raises BundleError where there is none."""
    return _read_config(folder)["metrics"]


def load_bundle(folder: Path) -> Bundle:
    """Reads a bundle folder.

    Raises BundleError where there is none or its config.json is of another format, CheckpointError where its tensors
    do not fit.
    """
    folder = Path(folder)
    config = _read_config(folder)
    try:
        spec = TranslatorSpec(**config["translator"])
        source, target = SpaceId(**config["source"]), SpaceId(**config["target"])
        recipe, metrics = config["recipe"], config["metrics"]
    except (KeyError, TypeError) as error:
        raise BundleError(f"{folder / 'config.json'} is not a translator bundle's config ({one_line(error)})") from None
    if spec.kind not in KINDS:
        raise BundleError(f"{folder}: unknown translator kind {spec.kind!r}; known are {', '.join(KINDS)}")
    if spec.input_norm not in INPUT_NORMS:
        raise BundleError(f"{folder}: unknown input_norm {spec.input_norm!r}; known are {', '.join(INPUT_NORMS)}")
    sizes = spec.source_dim, spec.target_dim, spec.width, spec.depth, spec.heads, spec.mlp_width
    shares = spec.clamp, spec.dropout
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        raise BundleError(f"{folder}: sizes {sizes}; expected whole numbers above 0")
    if not all(isinstance(share, int | float) for share in shares):
        raise BundleError(f"{folder}: clamp and dropout {shares}; expected numbers")
    tensors = read_safetensors(folder / "model.safetensors")
    translator = fill(lambda: build_translator(spec, rngs=nnx.Rngs(0)), tensors, TABLE, str(folder))
    return Bundle(translator=translator, spec=spec, source=source, target=target, recipe=recipe, metrics=metrics)

"""Imports checkpoints of CLIP2CLAP's author (Wong): pickled state dicts of `linear.py` to `linear5.py` and of
`encoder2.py` to `encoder4.py`. No code in a file is run.

The author's encoders are built without `batch_first`, so they attend over the vectors of a batch. Ours attends over a
vector's coordinates, as in the paper. Its imported weights are unchanged, but its outputs differ from the author's.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from c2c_jax.errors import AbsentError, CheckpointError, ConfigError
from c2c_jax.io.files import sha256_of
from c2c_jax.io.torch_files import open_torch
from c2c_jax.spaces.space import identify
from c2c_jax.spaces.space_id import SpaceId
from c2c_jax.spaces.weights.rules import WeightTable, embedding, fill, ignored_keys, linear, norm, split_projections
from c2c_jax.translator.bundle import Bundle
from c2c_jax.translator.kinds import TranslatorSpec, build_translator

SOURCE, TARGET = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "cvssp/audioldm-l-full:text_encoder"
WIDTH = 512  # of both of the paper's spaces
# The author's numbered kinds → ours.
ALIASES = {"linear3": "mlp", "linear4": "mlp_layernorm", "linear5": "mlp5"}
CLAMPS = {"linear": 0.3, "linear2": 0.3, "mlp": 0.2, "mlp_layernorm": 0.2, "mlp5": 0.25, "transformer": 0.0}
HEADS = {96: 8, 360: 12, 8: 4}  # width of the author's encoders → attention heads, which cannot be read from tensors


_ROOTS = r"transformer_encoder\.", ""
_LAYER = r"layers\.(?P<layer>\d+)\."
_PROJECTION = r"(?P<projection>[qkv]_proj|out_proj)"
_ENCODER = WeightTable(
    rules=(
        *linear("linear", r"resized\.0"),
        *linear("ff1", "into"),
        *linear("ff2", "out"),
        *embedding("pos_emb", "positions"),
        *linear(rf"{_LAYER}self_attn\.{_PROJECTION}", rf"{_LAYER}{_PROJECTION}", roots=_ROOTS),
        *linear(r"layers\.\d+\.linear[12]", roots=_ROOTS),
        *norm(r"layers\.\d+\.norm[12]", roots=_ROOTS),
    ),
    # The author's state dicts also contain the layer that nn.TransformerEncoder copies.
    ignored=(r"encoder_layer\..+",),
)


def import_checkpoint(
    path: Path,
    *,
    kind: str | None = None,
    clamp: float | None = None,
    heads: int | None = None,
    source: str | None = None,
    target: str | None = None,
) -> tuple[Bundle, list[str]]:
    """Converts one of the author's files to a bundle, and returns it with notes for the user.

    kind: our name or the author's; None: inferred from the keys. clamp: outputs are clipped to ±clamp, 0: no clipping;
    None: the author's value for this kind. heads: of an encoder; None: the author's value for this width. source,
    target: names of the two spaces; None: the paper's. Their fingerprints are "" (unknown) unless their checkpoints are
    on this machine.
    Raises CheckpointError for a file that is not such a state dict in float32, ConfigError for unsuitable arguments.
    """
    tensors = _read(path)
    kind = _kind(tensors, kind, path)
    if kind == "transformer":
        spec, table = _encoder_spec(tensors, heads, path), _ENCODER
        pattern = r"(transformer_encoder\..+\.self_attn)\.in_proj_(weight|bias)"
        tensors = split_projections(tensors, pattern, ("q_proj", "k_proj", "v_proj"), str(path))
    else:
        if heads is not None:
            raise ConfigError(f"{path} is of kind {kind}, which has no attention heads; leave --heads out")
        spec, table = _stack_spec(kind, tensors, path)
    if clamp is not None:
        if not 0 <= clamp < math.inf:
            raise ConfigError(f"--clamp must be 0 (no clipping) or more, found {clamp}")
        spec = dataclasses.replace(spec, clamp=clamp)
    translator = fill(
        lambda rngs: build_translator(spec, rngs=rngs), tensors, table, str(path), sizes="its other tensors"
    )
    ignored = ignored_keys(tensors, table)
    notes = [f"skipped, since outputs do not depend on it: {', '.join(ignored)}"] if ignored else []
    if kind == "transformer":
        notes.append(
            "attention runs over the coordinates of a vector, as in the paper; the author's code runs it over a batch"
        )
        if spec.settings.linear_first:
            notes.append("linear comes before the encoder; the author's last code creates it there and does not use it")
    spaces = []
    for role, name, default, width in (
        ("source", source, SOURCE, spec.source_dim),
        ("target", target, TARGET, spec.target_dim),
    ):
        if name is None and width != WIDTH:
            raise ConfigError(
                f"{path}: its {role} vectors are {width} wide, those of {default} {WIDTH}; pass --{role} NAME"
            )
        space = _identified(name or default, width, role)
        spaces.append(space)
        if not space.fingerprint:
            notes.append(
                f"{role} {space.name} is not on this machine: its fingerprint is unknown and cannot be checked"
            )
    recipe = {"imported": path.name, "sha256": sha256_of(path), "ignored": ignored}
    source_id, target_id = spaces
    bundle = Bundle(translator=translator, spec=spec, source=source_id, target=target_id, recipe=recipe, metrics={})
    return bundle, notes


def _read(path: Path) -> dict[str, np.ndarray]:
    """Reads a pickled state dict without running code, and removes torch.nn.DataParallel's prefix `module.`. Raises
    CheckpointError unless all tensors are finite float32."""
    stored, tensors = open_torch(path), {}
    for key, tensor in stored.items():
        if tensor.dtype != np.float32:
            raise CheckpointError(f"{path}: {key} is torch.{tensor.dtype}; expected float32: save it with .float()")
        values = tensor.read()
        if not np.isfinite(values).all():
            raise CheckpointError(f"{path}: {key} contains NaN or inf: the file is corrupt or its training diverged")
        tensors[key.removeprefix("module.")] = values
    if len(tensors) < len(stored):
        raise CheckpointError(f"{path} has tensors both with and without the prefix 'module.'")
    return tensors


def _kind(tensors: Mapping[str, np.ndarray], requested: str | None, path: Path) -> str:
    """The kind that the keys belong to. requested: which one, if they fit several."""
    modules = {key.rpartition(".")[0] for key in tensors}
    layers = sum(bool(re.fullmatch(r"ff\d+", module)) for module in modules)
    if any(module.startswith("transformer_encoder.") for module in modules):
        possible = ["transformer"]
    elif modules & {"ln1"}:
        possible = ["mlp_layernorm"]
    elif layers:  # mlp and mlp5 differ only in their number of layers
        possible = {4: ["mlp"], 5: ["mlp5"]}.get(layers, ["mlp", "mlp5"])
    elif modules & {"linear"}:
        possible = ["linear2" if "linear2" in modules else "linear"]
    else:
        raise CheckpointError(
            f"{path}: tensors {', '.join(sorted(tensors)[:4])} do not belong to any CLIP2CLAP kind; known are "
            f"{', '.join(CLAMPS)}"
        )
    if requested is None and len(possible) > 1:
        raise ConfigError(f"{path}: its keys fit several kinds; pass --kind {' or --kind '.join(possible)}")
    chosen = possible[0] if requested is None else ALIASES.get(requested, requested)
    if chosen not in CLAMPS:
        raise ConfigError(f"unknown --kind {requested!r}; known are {', '.join([*CLAMPS, *ALIASES])}")
    if chosen not in possible:
        raise ConfigError(
            f"{path}: its keys are those of {' or '.join(possible)}, not of {requested}; leave --kind out"
        )
    return chosen


def _stack_spec(kind: str, tensors: Mapping[str, np.ndarray], path: Path) -> tuple[TranslatorSpec, WeightTable]:
    """Reads the spec of a stack of linear layers from their shapes, and returns it with its weight table."""
    if kind in ("linear", "linear2"):
        names = ["linear", "linear2"] if kind == "linear2" else ["linear"]
    else:
        depth = len({key.rpartition(".")[0] for key in tensors if re.match(r"ff\d+\.", key)})
        names = [f"ff{number}" for number in range(1, depth + 1)]
    rules = [rule for number, name in enumerate(names) for rule in linear(name, rf"layers\.{number}")]
    if kind == "mlp_layernorm":
        rules += [rule for number in range(len(names)) for rule in norm(f"ln{number + 1}", rf"norms\.{number}")]
    (width, source_dim), (target_dim, _) = _matrix(tensors, names[0], path), _matrix(tensors, names[-1], path)
    spec = TranslatorSpec.of(
        kind,
        {"width": width, "depth": len(names)},
        source_dim=source_dim,
        target_dim=target_dim,
        clamp=CLAMPS[kind],
        input_norm="none",
    )
    return spec, WeightTable(rules=rules, ignored=("t",))  # the learned temperature


def _encoder_spec(tensors: Mapping[str, np.ndarray], heads: int | None, path: Path) -> TranslatorSpec:
    """Reads an encoder's spec from the shapes of its tensors. heads: None: the author's value for this width."""
    target_dim, width = _matrix(tensors, "pos_emb", path)
    mlp_width, _ = _matrix(tensors, "transformer_encoder.layers.0.linear1", path)
    layers = {match[1] for key in tensors if (match := re.match(r"transformer_encoder\.layers\.(\d+)\.", key))}
    has_linear = "linear.weight" in tensors
    if heads is None and width not in HEADS:
        raise ConfigError(
            f"{path}: the number of attention heads of an encoder {width} wide cannot be read from its tensors; pass "
            f"--heads N"
        )
    heads = HEADS[width] if heads is None else heads
    if heads < 1 or width % heads:
        raise ConfigError(f"{path}: an encoder {width} wide cannot have {heads} heads; pass a divisor of {width}")
    settings = {
        "width": width, "depth": len(layers), "heads": heads, "mlp_width": mlp_width, "dropout": 0.1,
        "linear_first": has_linear,
    }  # fmt: skip
    source_dim = _matrix(tensors, "linear", path)[1] if has_linear else target_dim
    return TranslatorSpec.of("transformer", settings, source_dim=source_dim, target_dim=target_dim, input_norm="none")


def _matrix(tensors: Mapping[str, np.ndarray], name: str, path: Path) -> tuple[int, int]:
    weight = tensors.get(f"{name}.weight")
    if weight is None or weight.ndim != 2 or 0 in weight.shape:
        raise CheckpointError(f"{path}: {name}.weight is {'missing' if weight is None else f'of shape {weight.shape}'}")
    return weight.shape[0], weight.shape[1]


def _identified(name: str, width: int, role: str) -> SpaceId:
    """The space of a checkpoint; its fingerprint is "" if the checkpoint is not on this machine."""
    try:
        space = identify(name, download=False)
    except AbsentError:
        return SpaceId(name=name, dim=width, fingerprint="")
    if space.dim != width:
        raise ConfigError(f"{name} has vectors {space.dim} wide, the file's {role} vectors are {width} wide")
    return space

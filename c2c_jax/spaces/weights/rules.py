"""Moves named tensors between torch checkpoints and flax.nnx modules, in both directions, by a table of rules.

Strict: no tensor may be unmatched or matched twice, no parameter unfilled, and all shapes must agree.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from c2c_jax.errors import CheckpointError

Module = TypeVar("Module", bound=nnx.Module)

# A named group with its content, which may include one level of unnamed groups.
_GROUP = re.compile(r"\(\?P<(\w+)>[^()]*(?:\(\?:[^()]*\)[^()]*)*\)")


# Permutation from torch's axes to flax's, as for numpy's transpose.
Layout = tuple[int, ...] | None
AS_IS: Layout = None
LINEAR: Layout = (1, 0)  # torch [out, in], flax [in, out]
CONV: Layout = (2, 3, 1, 0)  # torch OIHW, flax HWIO


@dataclasses.dataclass(frozen=True)
class Rule:
    """Regular expressions for a tensor's name in torch and in flax, with the same named groups.

    A group may contain one level of unnamed groups. Outside groups, a pattern is literal text with escaped dots.
    """

    torch: str
    flax: str
    layout: Layout = AS_IS


def leaf(module: str, torch: str, flax: str, layout: Layout = AS_IS) -> Rule:
    """A rule for one tensor of a module that has the same path in both frameworks."""
    group = f"(?P<module>{module})"
    return Rule(rf"{group}\.{torch}", rf"{group}\.{flax}", layout)


def _module(
    tensors: Sequence[tuple[str, str, Layout]], torch: str, flax: str | None = None, roots: tuple[str, str] = ("", "")
) -> tuple[Rule, ...]:
    """Rules for the tensors of a module. torch, flax: patterns of its path in each framework; flax None: the same.
    roots: prefixes of these paths."""
    if flax is None:
        torch = flax = f"(?P<module>{torch})"
    before, ours_before = roots
    return tuple(
        Rule(rf"{before}{torch}\.{theirs}", rf"{ours_before}{flax}\.{ours}", layout) for theirs, ours, layout in tensors
    )


_BIAS = ("bias", "bias", AS_IS)
_NORM = (("weight", "scale", AS_IS), _BIAS)
linear = functools.partial(_module, (("weight", "kernel", LINEAR), _BIAS))
conv = functools.partial(_module, (("weight", "kernel", CONV), _BIAS))
norm = functools.partial(_module, _NORM)
batch_norm = functools.partial(_module, (*_NORM, ("running_mean", "mean", AS_IS), ("running_var", "var", AS_IS)))
embedding = functools.partial(_module, (("weight", "embedding", AS_IS),))


@dataclasses.dataclass(frozen=True)
class WeightTable:
    """All rules of one checkpoint format.

    ignored: patterns of torch keys that the model does not need (buffers, towers that are not loaded). constants: maps
    the model's config to fixed buffers that torch expects, by key. layers: maps the model's config to the number of
    layers of each list of layers, by path.
    """

    rules: Sequence[Rule]
    ignored: Sequence[str] = ()
    constants: Callable[[Any], Mapping[str, np.ndarray]] = lambda config: {}
    layers: Callable[[Any], Mapping[str, int]] = lambda config: {}

    def ignores(self, key: str) -> bool:
        """Whether a torch key is ignored."""
        return any(re.fullmatch(pattern, key) for pattern in self.ignored)


def _renamed(name: str, rules: Sequence[Rule], side: str) -> tuple[str, Layout] | None:
    """The name in the other framework and the layout; None if no rule matches. Raises CheckpointError if two match."""
    other = "flax" if side == "torch" else "torch"
    matches = [(match, rule) for rule in rules if (match := re.fullmatch(getattr(rule, side), name))]
    if not matches:
        return None
    if len(matches) > 1:
        patterns = " and ".join(getattr(rule, side) for _, rule in matches)
        raise CheckpointError(f"tensor {name} is matched by two rules, {patterns}; correct the table")
    match, rule = matches[0]
    template = _GROUP.sub(r"{\1}", getattr(rule, other)).replace("\\.", ".")
    return template.format(**match.groupdict()), rule.layout


def _listed(names: Sequence[str], count: int = 4) -> str:
    shown = ", ".join(sorted(names)[:count])
    return shown if len(names) <= count else f"{shown} and {len(names) - count} more"


class _OneKey(nnx.Rngs):
    """Gives one key for all initial values, which are discarded. nnx.Rngs counts keys, which takes quadratic time in
    the number of layers when traced."""

    def params(self) -> jax.Array:
        return self["default"].key[...]


def require_layers(names: Iterable[str], layers: Mapping[str, int], origin: str) -> None:
    """Raises CheckpointError unless tensors of all layers in the config exist. Called before the model is built, since
    a damaged config may have any number of layers.

    layers: number of layers of each list of layers, by path.
    """
    names = list(names)
    for path, expected in layers.items():
        pattern = re.compile(rf"{re.escape(path)}\.(\d+)\.")
        count = len({match[1] for name in names if (match := pattern.match(name))})
        if expected > count:
            raise CheckpointError(
                f"{origin}: config.json asks for {expected:,} layers in {path}, but the weights have {count}: they "
                "belong to different models"
            )


def fill(
    build: Callable[[nnx.Rngs], Module],
    tensors: Mapping[str, np.ndarray],
    table: WeightTable,
    origin: str,
    sizes: str = "the sizes in config.json",
) -> Module:
    """Builds a module with its parameters filled from `tensors`, as float32.

    build: creates the module from random keys; only traced for shapes, so initial values use no memory. origin, sizes:
    for messages: where the tensors come from, and what determines their shapes.
    Raises CheckpointError for a missing, unknown or duplicate tensor, a wrong shape, and values that are not finite.
    """
    graphdef, abstract = nnx.split(nnx.eval_shape(lambda: build(_OneKey(0))))
    parameters = {".".join(map(str, path)): variable for path, variable in nnx.to_flat_state(abstract)}
    filled: dict[str, np.ndarray] = {}
    extra = []
    for key, tensor in tensors.items():
        if table.ignores(key):
            continue
        renamed = _renamed(key, table.rules, "torch")
        if renamed is None or renamed[0] not in parameters:
            extra.append(key)
            continue
        name, layout = renamed
        shape = parameters[name].shape
        expected = tuple(shape[axis] for axis in np.argsort(layout)) if layout else shape
        if tensor.shape != expected:
            raise CheckpointError(
                f"{origin}: tensor {key} has shape {tuple(tensor.shape)}, but {sizes} ask for {expected}; "
                "they belong to different models"
            )
        if name in filled:
            raise CheckpointError(f"{origin}: two tensors match parameter {name}; the second is {key}")
        filled[name] = _finite(tensor.transpose(layout) if layout else tensor, key, origin)
    if extra:
        raise CheckpointError(
            f"{origin}: {len(extra)} tensors do not belong to this model ({_listed(extra)}); "
            "it is not a checkpoint of this kind, or it holds parts of another model"
        )
    if missing := parameters.keys() - filled.keys():
        names = [renamed[0] for name in missing if (renamed := _renamed(name, table.rules, "flax"))]
        raise CheckpointError(
            f"{origin}: {len(missing)} tensors are missing ({_listed(names)}); it is incomplete or of another kind"
        )
    state = [
        (path, variable.replace(jnp.asarray(filled[".".join(map(str, path))])))
        for path, variable in nnx.to_flat_state(abstract)
    ]
    return nnx.merge(graphdef, nnx.from_flat_state(state))


def ignored_keys(tensors: Iterable[str], table: WeightTable) -> list[str]:
    """The keys that `fill` ignores, sorted."""
    return sorted(filter(table.ignores, tensors))


def split_projections(
    tensors: Mapping[str, np.ndarray], pattern: str, parts: Sequence[str], origin: str
) -> dict[str, np.ndarray]:
    """Splits tensors that stack an attention's three projections.

    pattern: of their names, with one group before and one after the name of a part. Empty tensors are not split.
    Raises CheckpointError for a tensor whose length is not a multiple of three.
    """
    split = {}
    for key, tensor in tensors.items():
        match = re.fullmatch(pattern, key)
        if not match or not tensor.size:
            split[key] = tensor
            continue
        if tensor.ndim == 0 or len(tensor) % 3:
            raise CheckpointError(
                f"{origin}: {key} has shape {tensor.shape}, which cannot be split into three projections"
            )
        for part, projection in zip(parts, np.split(tensor, 3), strict=True):
            split[f"{match[1]}.{part}.{match[2]}"] = projection
    return split


def _finite(tensor: np.ndarray, key: str, origin: str) -> np.ndarray:
    """The tensor as float32. Raises CheckpointError unless it has finite floats."""
    if tensor.dtype.kind != "f":
        raise CheckpointError(
            f"{origin}: tensor {key} is {tensor.dtype}; expected floats: quantised weights are not supported"
        )
    with np.errstate(over="ignore"):
        tensor = tensor.astype(np.float32, copy=False)
    if not np.isfinite(tensor).all():
        raise CheckpointError(
            f"{origin}: tensor {key} has values that are not finite; the file is damaged: fetch it again"
        )
    return tensor


def unfill(module: nnx.Module, table: WeightTable, config: Any = None) -> dict[str, np.ndarray]:
    """The inverse of `fill`: contiguous float32 arrays in torch's layout by torch names, including constants."""
    tensors = dict(table.constants(config))
    for path, variable in nnx.to_flat_state(nnx.state(module, (nnx.Param, nnx.BatchStat))):
        name = ".".join(map(str, path))
        renamed = _renamed(name, table.rules, "flax")
        if renamed is None:
            raise CheckpointError(f"parameter {name} is matched by no rule; correct the table")
        key, layout = renamed
        value = np.asarray(variable[...], np.float32)
        # A copy, since safetensors silently writes transposed views in the wrong order. np.ascontiguousarray would turn
        # scalars into vectors.
        tensors[key] = np.array(value.transpose(np.argsort(layout)) if layout else value, order="C")
    return tensors

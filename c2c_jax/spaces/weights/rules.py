"""The one engine that moves named tensors between torch checkpoints and flax.nnx modules, by a table of rules.

Strict four ways: no key unmatched, none matched twice, no parameter unfilled, every shape equal. The same table
serves both directions.
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

# A named group and what it holds, one level of unnamed groups included.
_GROUP = re.compile(r"\(\?P<(\w+)>[^()]*(?:\(\?:[^()]*\)[^()]*)*\)")


# The order of torch's axes in flax, as of numpy's transpose.
Layout = tuple[int, ...] | None
AS_IS: Layout = None
LINEAR: Layout = (1, 0)  # torch [out, in], flax [in, out]
CONV: Layout = (2, 3, 1, 0)  # torch OIHW, flax HWIO


@dataclasses.dataclass(frozen=True)
class Rule:
    """Two regular expressions with the same named groups, one for each side's name of a tensor.

    A group may hold one level of unnamed groups; outside its groups a pattern is literal text with dots escaped.
    """

    torch: str
    flax: str
    layout: Layout = AS_IS


def leaf(module: str, torch: str, flax: str, layout: Layout = AS_IS) -> Rule:
    """The rule for a module that has the same path on both sides, and a tensor named by each framework's habit."""
    group = f"(?P<module>{module})"
    return Rule(rf"{group}\.{torch}", rf"{group}\.{flax}", layout)


def _module(
    tensors: Sequence[tuple[str, str, Layout]], torch: str, flax: str | None = None, roots: tuple[str, str] = ("", "")
) -> tuple[Rule, ...]:
    """The rules of a module's tensors. torch, flax: patterns of its path on each side; None: the same on both. roots:
    what is before these paths."""
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
class Table:
    """All rules of one checkpoint format.

    ignored: patterns of torch keys that the model does not need (buffers, towers that are not loaded).
    constants: of the model's config, torch key → the fixed buffer that torch expects there on the way back.
    layers: of the model's config, the path of each list of layers → its length.
    """

    rules: Sequence[Rule]
    ignored: Sequence[str] = ()
    constants: Callable[[Any], Mapping[str, np.ndarray]] = lambda config: {}
    layers: Callable[[Any], Mapping[str, int]] = lambda config: {}

    def ignores(self, key: str) -> bool:
        """Whether a torch key is one of the ignored ones."""
        return any(re.fullmatch(pattern, key) for pattern in self.ignored)


def _renamed(name: str, rules: Sequence[Rule], side: str) -> tuple[str, Layout] | None:
    """The other side's name and the layout; None where no rule matches; CheckpointError where two do."""
    other = "flax" if side == "torch" else "torch"
    found = [(match, rule) for rule in rules if (match := re.fullmatch(getattr(rule, side), name))]
    if not found:
        return None
    if len(found) > 1:
        patterns = " and ".join(getattr(rule, side) for _, rule in found)
        raise CheckpointError(f"tensor {name} is matched by two rules, {patterns}; mend the table")
    match, rule = found[0]
    template = _GROUP.sub(r"{\1}", getattr(rule, other)).replace("\\.", ".")
    return template.format(**match.groupdict()), rule.layout


def _listed(names: Sequence[str], count: int = 4) -> str:
    shown = ", ".join(sorted(names)[:count])
    return shown if len(names) <= count else f"{shown} and {len(names) - count} more"


class _OneKey(nnx.Rngs):
    """One key for all initial values, where these are discarded: nnx.Rngs counts keys, which under tracing takes a
    time that grows with the square of the layers."""

    def params(self) -> jax.Array:
        return self["default"].key[...]


def require_layers(names: Iterable[str], layers: Mapping[str, int], origin: str) -> None:
    """Raises CheckpointError unless there are tensors of all layers that a config asks for. To be called before
    anything is built, since a config may ask for any number.

    layers: path of a list of layers → its length by the config.
    """
    names = list(names)
    for path, expected in layers.items():
        pattern = re.compile(rf"{re.escape(path)}\.(\d+)\.")
        found = len({match[1] for name in names if (match := pattern.match(name))})
        if expected > found:
            raise CheckpointError(
                f"{origin}: config.json asks for {expected:,} layers in {path}, but the weights hold {found}: they "
                "belong to different models"
            )


def fill(
    build: Callable[[nnx.Rngs], Module],
    tensors: Mapping[str, np.ndarray],
    table: Table,
    origin: str,
    sizes: str = "the sizes in config.json",
) -> Module:
    """The module that `build` makes, with every parameter taken from `tensors`, as float32.

    build: makes the module with those random keys; only traced for its shapes, so no memory is spent on initial values.
    origin: where the tensors came from, for messages. sizes: what fixes their shapes, likewise.
    Raises CheckpointError for a missing, extra, doubly matched or misshapen tensor, and for values that are not finite
    numbers.
    """
    graphdef, abstract = nnx.split(nnx.eval_shape(lambda: build(_OneKey(0))))
    wanted = {".".join(map(str, path)): variable for path, variable in nnx.to_flat_state(abstract)}
    filled: dict[str, np.ndarray] = {}
    extra = []
    for key, tensor in tensors.items():
        if table.ignores(key):
            continue
        renamed = _renamed(key, table.rules, "torch")
        if renamed is None or renamed[0] not in wanted:
            extra.append(key)
            continue
        name, layout = renamed
        shape = wanted[name].shape
        expected = tuple(shape[axis] for axis in np.argsort(layout)) if layout else shape
        if tensor.shape != expected:
            raise CheckpointError(
                f"{origin}: tensor {key} has shape {tuple(tensor.shape)}, but {sizes} ask for {expected}; "
                "they belong to different models"
            )
        if name in filled:
            raise CheckpointError(f"{origin}: two tensors fill parameter {name}, the second is {key}")
        filled[name] = _finite(tensor.transpose(layout) if layout else tensor, key, origin)
    if extra:
        raise CheckpointError(
            f"{origin}: {len(extra)} tensors have no place in this model ({_listed(extra)}); "
            "it is not a checkpoint of this kind, or it holds parts of another model"
        )
    if missing := wanted.keys() - filled.keys():
        names = [renamed[0] for name in missing if (renamed := _renamed(name, table.rules, "flax"))]
        raise CheckpointError(
            f"{origin}: {len(missing)} tensors are missing ({_listed(names)}); it is incomplete or of another kind"
        )
    state = [
        (path, variable.replace(jnp.asarray(filled[".".join(map(str, path))])))
        for path, variable in nnx.to_flat_state(abstract)
    ]
    return nnx.merge(graphdef, nnx.from_flat_state(state))


def ignored_keys(tensors: Iterable[str], table: Table) -> list[str]:
    """The keys that `fill` ignores, sorted, to be reported by name."""
    return sorted(filter(table.ignores, tensors))


def split_projections(
    tensors: Mapping[str, np.ndarray], pattern: str, parts: Sequence[str], origin: str
) -> dict[str, np.ndarray]:
    """Tensors with those that hold an attention's three projections, one above the other, as three each.

    pattern: of their names, with a group for what is before and one for what is behind the name of a part. Tensors
    that were not read are left as they are. Raises CheckpointError for one that is no three projections.
    """
    split = {}
    for key, tensor in tensors.items():
        match = re.fullmatch(pattern, key)
        if not match or not tensor.size:
            split[key] = tensor
            continue
        if tensor.ndim == 0 or len(tensor) % 3:
            raise CheckpointError(f"{origin}: {key} has shape {tensor.shape}, which is no three projections")
        for part, projection in zip(parts, np.split(tensor, 3), strict=True):
            split[f"{match[1]}.{part}.{match[2]}"] = projection
    return split


def _finite(tensor: np.ndarray, key: str, origin: str) -> np.ndarray:
    """As float32."""
    if tensor.dtype.kind != "f":
        raise CheckpointError(
            f"{origin}: tensor {key} is {tensor.dtype}; expected floats: quantised weights are not read"
        )
    with np.errstate(over="ignore"):
        tensor = tensor.astype(np.float32, copy=False)
    if not np.isfinite(tensor).all():
        raise CheckpointError(
            f"{origin}: tensor {key} has values that are not finite; the file is damaged: fetch it again"
        )
    return tensor


def unfill(module: nnx.Module, table: Table, config: Any = None) -> dict[str, np.ndarray]:
    """The way back: torch names → contiguous float32 arrays in torch's layout, the table's constants included."""
    tensors = dict(table.constants(config))
    for path, variable in nnx.to_flat_state(nnx.state(module, (nnx.Param, nnx.BatchStat))):
        name = ".".join(map(str, path))
        renamed = _renamed(name, table.rules, "flax")
        if renamed is None:
            raise CheckpointError(f"parameter {name} is matched by no rule; mend the table")
        key, layout = renamed
        value = np.asarray(variable[...], np.float32)
        # safetensors silently writes a transposed view's memory as it lies; np.ascontiguousarray would turn a scalar
        # into a vector.
        tensors[key] = np.array(value.transpose(np.argsort(layout)) if layout else value, order="C")
    return tensors

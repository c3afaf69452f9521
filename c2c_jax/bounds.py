"""The bounds of a config's numbers, checked before anything of their size is made."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, get_type_hints

from msgspec import Meta

from c2c_jax.config import Config
from c2c_jax.errors import ConfigError

MAX_PARAMETERS = 2**29  # of a translator: 2 GiB, and three times that with the optimizer's state

BOUNDS = {
    "seed": Meta(ge=0, le=2**32 - 1),
    "batch_size": Meta(ge=1, le=2**22),
    "groups": Meta(ge=0, le=2**16),
    "epochs": Meta(ge=1, le=10**6),
    "steps": Meta(ge=0, le=10**9),
    "log_every": Meta(ge=1, le=10**9),
    "eval_every": Meta(ge=1, le=10**9),
    "checkpoint_every": Meta(ge=1, le=10**9),
    "patience": Meta(ge=0, le=10**9),
    "data.holdout": Meta(ge=1, le=10**9),
    "embed.batch_tokens": Meta(ge=0, le=2**22),
    "embed.chunk_rows": Meta(ge=1, le=2**20),
    "translator.width": Meta(ge=1, le=2**14),
    "translator.depth": Meta(ge=0, le=256),
    "translator.heads": Meta(ge=1, le=1024),
    "translator.mlp_width": Meta(ge=1, le=2**16),
    "translator.dropout": Meta(ge=0, lt=1),
    "translator.clamp": Meta(ge=0, le=1e6),
    "translator.ridge": Meta(ge=0, le=1e9),
    "augment.noise": Meta(ge=0, le=1),
    "memory.captions": Meta(ge=-1, le=10**8),
    "memory.share": Meta(gt=0, le=1),
    "memory.temperature": Meta(ge=1e-6, le=1000),
    "objective.temperature": Meta(gt=0, le=1000),
    "objective.margin_growth": Meta(ge=0, le=1e6),
    "objective.margin_most": Meta(ge=0, le=1e6),
    "objective.twin_cosine": Meta(ge=-1, le=1),
    "objective.blocks": Meta(ge=0, le=2**20),
    "optimizer.learning_rate": Meta(gt=0, le=1000),
    "optimizer.warmup": Meta(ge=0, le=10**9),
    "optimizer.clip_norm": Meta(ge=0, le=1e9),
    "optimizer.ema": Meta(ge=0, lt=1),
    "optimizer.weight_decay": Meta(ge=0, le=1e6),
    "optimizer.eps": Meta(ge=0, le=1),
}


def check_bounds(config: Config) -> None:
    """Raises ConfigError for a field of another type than its own, or beyond its bounds."""
    for path, kind, value in fields_of(config):
        fits = isinstance(value, (int, float) if kind is float else kind)
        if not fits or (isinstance(value, bool) and kind is not bool):
            raise ConfigError(f"config.{path} is {_short(value)}; it must be of type {kind.__name__}")
        if kind in (int, float) and (expected := _expected(value, BOUNDS[path])):
            raise ConfigError(f"config.{path} is {_short(value)}; it must be {expected}")
    width, depth = config.translator.width, config.translator.depth
    if width * width * max(depth, 1) > MAX_PARAMETERS:
        raise ConfigError(
            f"config.translator.width {width} and depth {depth} exceed {MAX_PARAMETERS:,} parameters; "
            "reduce one of them"
        )


def fields_of(node: Any, before: str = "") -> Iterator[tuple[str, type, Any]]:
    """Path, type and value of every field of nested dataclasses."""
    kinds = get_type_hints(type(node))
    for field in dataclasses.fields(node):
        kind, value, path = kinds[field.name], getattr(node, field.name), f"{before}{field.name}"
        if dataclasses.is_dataclass(kind) and isinstance(value, kind):  # type: ignore[arg-type]
            yield from fields_of(value, f"{path}.")
        else:
            yield path, kind, value


def _expected(value: int | float, bounds: Meta) -> str:
    """What a value outside of its bounds has to be; empty for one inside."""
    if isinstance(value, float) and not math.isfinite(value):
        return "a finite number"
    if bounds.gt is not None and value <= bounds.gt:
        return f"above {bounds.gt}"
    if bounds.ge is not None and value < bounds.ge:
        return f"{bounds.ge} or more"
    if bounds.lt is not None and value >= bounds.lt:
        return f"below {bounds.lt}"
    if bounds.le is not None and value > bounds.le:
        return f"at most {bounds.le:,}"
    return ""


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python does not print integers of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 40 else f"{text[:40]}…"

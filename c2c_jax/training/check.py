"""Checks of a config, before anything is read or compiled; an error is one line."""

import dataclasses
import importlib.util
import math
from collections.abc import Collection

import jax

from c2c_jax.bounds import check_bounds
from c2c_jax.config import Config
from c2c_jax.data.store import Store
from c2c_jax.errors import ConfigError
from c2c_jax.training import objectives
from c2c_jax.training.feed import FEEDS
from c2c_jax.training.groups import same_order
from c2c_jax.translator import kinds as translators
from c2c_jax.translator.scores import NOISY_SCORES, SCORES

STARTS = ("identity", "procrustes")  # of a residual translator's linear layer
PRECISIONS = ("float32", "tensorfloat32", "bfloat16")  # of matrix products, as JAX names them
MAX_STEPS = 2**31 - 1  # steps are counted in 32 bits
DECAYS = ("constant", "cosine", "linear")


def check(config: Config) -> None:
    """Raises ConfigError for a config that cannot run on any store: to be called before embedding one."""
    check_bounds(config)
    objectives.parse_objective(config.objective.kind)
    known: dict[str, tuple[str, Collection[str]]] = {
        "translator.kind": (config.translator.kind, translators.KINDS),
        "translator.input_norm": (config.translator.input_norm, translators.INPUT_NORMS),
        "translator.start": (config.translator.start, STARTS),
        "optimizer.decay": (config.optimizer.decay, DECAYS),
        "data.feed": (config.data.feed, FEEDS),
        "precision": (config.precision, PRECISIONS),
        "select_by": (config.select_by, (*NOISY_SCORES, *SCORES)),
    }
    for field, (name, names) in known.items():
        if name not in names:
            raise ConfigError(f"config.{field} is {name!r}; known are {', '.join(names)}")
    if config.adapt and config.translator.clamp:
        raise ConfigError("config.adapt needs outputs without a clamp: pass --config.translator.clamp=0")
    if config.adapt and not (config.translator.kind == "residual" and config.translator.input_norm == "centred"):
        raise ConfigError(
            f"config.adapt blends centred residual translators; this one is {config.translator.kind}, "
            f"{config.translator.input_norm}: pass --config.adapt=False, or change config.translator"
        )
    if config.translator.kind == "transformer" and config.translator.width % config.translator.heads:
        raise ConfigError(
            f"config.translator.width {config.translator.width} must be a multiple of heads {config.translator.heads}"
        )
    devices = jax.device_count()
    if not config.adapt and (beyond := config.batch_size % devices):
        raise ConfigError(
            f"config.batch_size {config.batch_size} must be a multiple of the {devices} devices; "
            f"pass {config.batch_size - beyond + devices}"
        )
    if not config.adapt and (beyond := config.groups and config.batch_size % config.groups):
        raise ConfigError(
            f"config.batch_size {config.batch_size} must be a multiple of config.groups {config.groups}; "
            f"pass {config.batch_size - beyond + config.groups}"
        )
    if config.groups and not same_order(config.groups, devices):
        raise ConfigError(
            f"config.groups {config.groups} does not give 2, 4, 8, ... groups to each of {devices} device(s); "
            f"pass --config.groups={2 * devices}, or use another number of devices"
        )
    for field, asked, module in (
        ("tensorboard", config.log.tensorboard, "tensorboardX"),
        ("wandb", config.log.wandb, "wandb"),
    ):
        if not asked:
            continue
        found = importlib.util.find_spec(module)
        if found is None or found.origin is None:  # a folder of that name beside the program is no package
            raise ConfigError(f"config.log.{field} needs {module}, which is not installed: pip install {module}")


def fitted_to_rows(config: Config, rows: int) -> Config:
    """Adapts a config to a store of `rows` captions. With `adapt`, at most a tenth of them is held out, and a batch is
    no larger than the largest power of two of training captions, rounded down to a multiple of the devices and of
    `groups`. Other configs stay as they are."""
    if not config.adapt:
        return config
    holdout = min(config.data.holdout, max(rows // 10, 1))
    training = max(rows - holdout, 1)
    batch = config.batch_size if config.batch_size <= training else 2 ** (training.bit_length() - 1)
    unit = math.lcm(jax.device_count(), config.groups or 1)
    batch = max(batch - batch % unit, min(batch, unit))
    return dataclasses.replace(config, batch_size=batch, data=dataclasses.replace(config.data, holdout=holdout))


def run_length(config: Config, training: int) -> tuple[int, int]:
    """The number of steps, and of passes over so many training rows, for a config from `fitted_to_rows`. Closed-form
    maps take no steps."""
    if config.translator.kind in translators.CLOSED_FORM:
        return 0, config.epochs
    steps = config.steps or -(-config.epochs * training // config.batch_size)
    return steps, -(-steps * config.batch_size // training)


def check_rows(config: Config, store: Store) -> None:
    """Raises ConfigError where a store has too few rows for the config."""
    config = fitted_to_rows(config, store.plan.rows)
    training = store.plan.rows - config.data.holdout
    if training < 0:
        raise ConfigError(
            f"{config.data.holdout:,} captions cannot be held out for validation of the {store.plan.rows:,} that there "
            "are: pass a smaller --config.data.holdout, or more captions"
        )
    held_out = (
        f"of {store.plan.rows:,} captions {config.data.holdout:,} are held out for validation and "
        f"{training:,} are left to train on"
    )
    if training < 1:
        raise ConfigError(f"{held_out}: pass a smaller --config.data.holdout, or more captions")
    is_closed_form = config.translator.kind in translators.CLOSED_FORM
    if is_closed_form or config.translator.start == "procrustes":
        needs_full_rank = config.translator.kind == "ridge" and not config.translator.ridge
        needed = store.plan.source.dim + 1 if needs_full_rank else 2
        if training < needed:
            raise ConfigError(
                f"{held_out}, and a closed-form map needs {needed:,} or more: pass a smaller --config.data.holdout"
                f"{', or --config.translator.ridge above 0' if needs_full_rank else ''}"
            )
    if run_length(config, training)[0] >= MAX_STEPS:
        raise ConfigError(
            f"config.epochs {config.epochs:,} of {training:,} captions are more than {MAX_STEPS:,} steps; pass fewer"
        )
    if not is_closed_form and config.batch_size > training:
        raise ConfigError(
            f"config.batch_size is {config.batch_size:,}, but {held_out}: pass a smaller --config.batch_size or "
            "--config.data.holdout"
        )
    unit = math.lcm(jax.device_count(), config.groups or 1)
    if not is_closed_form and config.batch_size % unit:
        raise ConfigError(
            f"{held_out}, in batches of {config.batch_size:,}, which cannot be split evenly among {unit} devices or "
            "groups: pass more captions, or use fewer devices"
        )

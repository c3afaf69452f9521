"""Checks a config before anything is read or compiled, and adapts it to the number of captions."""

import dataclasses
from typing import Any

import jax

from c2c_jax.config import Config, ObjectiveConfig, TranslatorConfig, check_fields
from c2c_jax.data.store import Store
from c2c_jax.errors import ConfigError
from c2c_jax.io.extras import require_extra
from c2c_jax.training.objectives import OBJECTIVES, build_objective, parse_objective
from c2c_jax.translator.kinds import TranslatorSpec, kind_named

MAX_STEPS = 2**31 - 1  # steps are counted in 32 bits


def check(config: Config) -> Config:
    """Checks a config and fills in the default settings of its translator and objective. Raises ConfigError if it
    cannot run on any store, and MissingExtraError if it needs a package that is not installed."""
    check_fields(config)
    objective = build_objective(config.objective.kind, config.objective.settings).settings
    translator = build_spec(config, 1, 1)
    _check_adapt(config)
    if not config.adapt and (rest := config.batch_size % jax.device_count()):
        raise ConfigError(
            f"config.batch_size {config.batch_size} must be a multiple of the {jax.device_count()} devices; "
            f"pass {config.batch_size - rest + jax.device_count()}"
        )
    for field, is_enabled, module in (
        ("tensorboard", config.log.tensorboard, "tensorboardX"),
        ("wandb", config.log.wandb, "wandb"),
    ):
        if is_enabled:
            require_extra("log", f"config.log.{field}", module)
    return dataclasses.replace(
        config,
        translator=dataclasses.replace(config.translator, settings=dataclasses.asdict(translator.settings)),
        objective=dataclasses.replace(config.objective, settings=objective),
    )


def build_spec(config: Config, source_dim: int, target_dim: int) -> TranslatorSpec:
    """The specification of a config's translator between spaces of these widths. Raises ConfigError."""
    return TranslatorSpec.of(
        config.translator.kind,
        config.translator.settings,
        "config.translator.settings.",
        source_dim=source_dim,
        target_dim=target_dim,
        clamp=config.translator.clamp,
        input_norm=config.translator.input_norm,
    )


def known_settings(section: str, kind: str) -> set[str]:
    """The names of the settings of a translator kind or an objective. section: "translator" or "objective". Raises
    ConfigError for an unknown kind."""
    if section == "translator":
        classes: list[Any] = [kind_named(kind).Settings]
    else:
        classes = [OBJECTIVES[name] for name in parse_objective(kind)]
    return {field.name for cls in classes for field in dataclasses.fields(cls)}


def drop_inapplicable_settings(section: str, config: TranslatorConfig | ObjectiveConfig) -> None:
    """Removes the settings that the kind does not have, for use after a recipe's kind was overridden. section: as for
    `known_settings`. Raises ConfigError for an unknown kind."""
    known = known_settings(section, config.kind)
    config.settings = {name: value for name, value in config.settings.items() if name in known}


def _check_adapt(config: Config) -> None:
    if not config.adapt:
        return
    if config.translator.clamp:
        raise ConfigError("config.adapt needs a translator without a clamp: pass --config.translator.clamp=0")
    if config.translator.kind != "residual" or config.translator.input_norm != "centred":
        raise ConfigError(
            "config.adapt needs a translator of kind residual with input_norm centred, found "
            f"{config.translator.kind}, {config.translator.input_norm}: pass --config.adapt=False, or change "
            "config.translator"
        )


def fit_to_rows(config: Config, rows: int) -> Config:
    """Adapts a config with `adapt` to a store of `rows` captions; others are returned unchanged. At most a tenth of the
    captions is held out. The batch size is at most the largest power of two that does not exceed the training captions,
    rounded down to a multiple of the devices."""
    if not config.adapt:
        return config
    held_out = min(config.data.validation_size, max(rows // 10, 1))
    training, devices = max(rows - held_out, 1), jax.device_count()
    batch = config.batch_size if config.batch_size <= training else 2 ** (training.bit_length() - 1)
    batch = max(batch - batch % devices, min(batch, devices))
    data = dataclasses.replace(config.data, validation_size=held_out)
    return dataclasses.replace(config, batch_size=batch, data=data)


def run_length(config: Config, training: int) -> tuple[int, int]:
    """(steps, epochs) of a run over `training` rows. Closed-form maps take no steps."""
    if kind_named(config.translator.kind).is_closed_form:
        return 0, config.epochs
    steps = config.steps or -(-config.epochs * training // config.batch_size)
    return steps, -(-steps * config.batch_size // training)


def check_rows(config: Config, store: Store) -> Config:
    """Adapts a config to a store, see `fit_to_rows`. Raises ConfigError if the store has too few captions."""
    config = fit_to_rows(config, store.plan.rows)
    rows, training = store.plan.rows, store.plan.rows - config.data.validation_size
    advice = "pass a smaller --config.data.validation_size"
    if training < 0:
        raise ConfigError(
            f"{config.data.validation_size:,} captions cannot be held out for validation, because there are only "
            f"{rows:,}: {advice}, or more captions"
        )
    held_out = (
        f"only {training:,} of {rows:,} captions remain for training after holding out {config.data.validation_size:,}"
    )
    if training < 1:
        raise ConfigError(f"{held_out}: {advice}, or more captions")
    if fits_closed_form(config):
        needs_full_rank = config.translator.kind == "ridge" and not config.translator.settings["penalty"]
        needed = store.plan.source.dim + 1 if needs_full_rank else 2
        if training < needed:
            or_penalty = ", or --config.translator.settings.penalty above 0" if needs_full_rank else ""
            raise ConfigError(f"{held_out}, and a closed-form map needs at least {needed:,}: {advice}{or_penalty}")
    if kind_named(config.translator.kind).is_closed_form:
        return config
    if run_length(config, training)[0] >= MAX_STEPS:
        raise ConfigError(
            f"config.epochs={config.epochs} over {training:,} captions exceeds {MAX_STEPS:,} steps; pass fewer epochs"
        )
    if config.batch_size > training:
        raise ConfigError(
            f"config.batch_size is {config.batch_size:,}, but {held_out}: pass a smaller --config.batch_size or "
            "--config.data.validation_size"
        )
    if config.batch_size % jax.device_count():
        raise ConfigError(
            f"{held_out}, and batches of {config.batch_size:,} cannot be split evenly among {jax.device_count()} "
            "devices: pass more captions, or use fewer devices"
        )
    return config


def fits_closed_form(config: Config) -> bool:
    """Whether a config's translator is a map fitted in closed form, or starts from one."""
    starts_from_one = config.translator.settings.get("init") == "procrustes"
    return kind_named(config.translator.kind).is_closed_form or starts_from_one

"""Reads `--config FILE.py` and `--config.FIELD=VALUE` overrides."""

import ast
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from c2c_jax.cli import arguments
from c2c_jax.config import Config, check_fields
from c2c_jax.errors import C2CError, ConfigError, ImageError
from c2c_jax.io.files import describe_path, is_array, is_regular, user_path
from c2c_jax.old_names import new_name

# Overrides of a translator kind's or objective's settings, which ml_collections cannot check.
_SETTING = re.compile(r"--config\.(?P<section>translator|objective)\.settings\.(?P<name>\w+)=(?P<value>.*)", re.DOTALL)

LINE_MAX = 300  # characters of an error line


def read_config(path: str, overrides: Sequence[str]) -> Config:
    """Reads the config that a recipe's `get_config()` returns, and applies overrides.

    overrides: `--config.FIELD=VALUE` arguments. Raises ConfigError for a missing file, an unknown field, or a value of
    the wrong type or out of bounds.
    """
    file = Path(path.partition(":")[0])
    if not is_regular(file):
        raise ConfigError(
            f"no recipe at {file} (found {describe_path(file)}); configs/ is only in the source repository, not in the "
            "installed package: run in a clone, or pass a copy"
        )
    from absl import flags
    from ml_collections import config_flags

    values = flags.FlagValues()
    overrides = _joined(overrides)
    renamed = {new for override in overrides if (new := _with_new_name(override)) not in (None, override)}
    overrides = [new for override in overrides if (new := _with_new_name(override))]
    settings = [match for override in overrides if (match := _SETTING.fullmatch(override))]
    argv = ["c2c", f"--config={path}", *(override for override in overrides if not _SETTING.fullmatch(override))]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    try:
        rest = values(argv)
        config = values.config
    except KeyError as error:
        raise ConfigError(f"no such config field: {error.args[0]}; c2c_jax/config.py lists them all") from None
    except C2CError:
        raise
    except flags.Error as error:
        lines = str(error).strip().splitlines()  # if get_config() failed, absl's message includes the traceback
        message = lines[0] if len(lines) == 1 else f"config file {path} does not run: {lines[-1]}"
        raise ConfigError(message if len(message) <= LINE_MAX else f"{message[:LINE_MAX]}…") from error
    except Exception as error:  # a recipe is a program of the user's and may raise anything
        cause = str(error).splitlines()[0] if str(error) else ""
        raise ConfigError(f"config file {path} does not run: {type(error).__name__}: {cause}") from error
    if rest[1:]:
        raise ConfigError(f"unknown argument {rest[1]}; overrides are written --config.FIELD=VALUE")
    if not isinstance(config, Config):
        raise ConfigError(f"{path}: get_config() must return a c2c_jax.config.Config")
    for section in ("translator", "objective"):
        if any(override.startswith(f"--config.{section}.kind=") for override in overrides):
            from c2c_jax.training.check import drop_foreign_settings  # imports JAX

            drop_foreign_settings(section, getattr(config, section))
    for match in settings:
        section = getattr(config, match["section"])
        if match[0] in renamed and not _is_known(match["section"], section.kind, match["name"]):
            print(f"{match[0]} is ignored: {section.kind} has no such setting", file=sys.stderr)
        else:
            section.settings[match["name"]] = _literal(match["value"])
    check_fields(config)
    return config


def _is_known(section: str, kind: str, name: str) -> bool:
    from c2c_jax.training.check import known_settings  # imports JAX

    return name in known_settings(section, kind)


def _joined(overrides: Sequence[str]) -> list[str]:
    """Joins `--config.FIELD VALUE` pairs to `--config.FIELD=VALUE`."""
    joined: list[str] = []
    for override in overrides:
        if joined and re.fullmatch(r"--config\.[\w.]+", joined[-1]) and not override.startswith("--"):
            joined[-1] += f"={override}"
        else:
            joined.append(override)
    return joined


def _with_new_name(override: str) -> str | None:
    """Replaces an old field name in an override by the current one. Returns None if the field was removed."""
    match = re.fullmatch(r"--config\.([\w.]+)(=.*)?", override, re.DOTALL)
    if match is None:
        return override
    if match[1] == "translator.depth" and match[2] == "=0":  # 0 stood for the kind's own default
        return None
    path = new_name(match[1])
    return path and f"--config.{path}{match[2] or ''}"


def _literal(text: str) -> Any:
    """Parses a Python number or boolean; returns any other text unchanged."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {"true": True, "false": False}.get(text, text)
    return value if isinstance(value, bool | int | float) else text


def require_sources(config: Config) -> None:
    """Checks that all inputs of a config exist. Raises CheckpointError, CaptionError, ImageError or StoreError."""
    if config.source and config.target:
        arguments.require_captions(config.data.captions)
        arguments.require_checkpoints(config.source, config.target)
    elif config.data.store:
        arguments.require_store(user_path(config.data.store))
    if is_array(images := user_path(config.images.files)):
        arguments.require_path(images, "an .npy file of raw vectors of images", ImageError)
    elif config.images.files and not config.images.files.startswith("miniworld:"):
        arguments.require_images([str(images)])

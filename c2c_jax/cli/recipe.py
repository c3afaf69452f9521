"""Reads `--recipe NAME` or `--config FILE.py`, and `--config.FIELD=VALUE` overrides."""

import argparse
import ast
import importlib.machinery
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from c2c_jax import recipes
from c2c_jax.cli import arguments
from c2c_jax.config import Config, check_fields
from c2c_jax.errors import C2CError, ConfigError, ImageError
from c2c_jax.io.console import print_fields, stdout_console
from c2c_jax.io.files import describe_path, is_array, is_regular, user_path
from c2c_jax.io.names import split_name
from c2c_jax.old_names import new_name

# Flags for fields that most runs set.
SHORTHANDS = {"data": "data.captions", "source": "source", "target": "target", "images": "images.files"}
# Overrides of a translator kind's or objective's settings, which ml_collections cannot check.
_SETTING = re.compile(r"--config\.(?P<section>translator|objective)\.settings\.(?P<name>\w+)=(?P<value>.*)", re.DOTALL)

LINE_MAX = 300  # characters of an error line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that name a recipe, its captions and its checkpoints."""
    parser.add_argument(
        "--recipe", metavar="NAME",
        help="a recipe of the package, such as recommended, or mlp:gcc for the paper's data",
    )  # fmt: skip
    parser.add_argument(
        "--config", metavar="FILE", help="a recipe of your own: a Python file with a function get_config()"
    )
    parser.add_argument(
        "--data", metavar="SPEC",
        help="captions, such as txt:FILE or tsv:FILE; short for --config.data.captions=SPEC",
    )  # fmt: skip
    parser.add_argument("--source", metavar="NAME", help="CLIP checkpoint; short for --config.source=NAME")
    parser.add_argument("--target", metavar="NAME", help="CLAP checkpoint; short for --config.target=NAME")


def requested_config(args: argparse.Namespace) -> Config:
    """The config that a command's flags select, with all overrides applied. Raises ConfigError as `read_config`
    does."""
    if args.config and args.recipe:
        raise ConfigError("--recipe and --config exclude each other: pass only one of them")
    if not (args.config or args.recipe):
        raise ConfigError("pass --recipe NAME (c2c train --list shows the names) or --config FILE")
    overrides = _joined(args.overrides)
    fields = {(_with_new_name(override) or "").partition("=")[0] for override in overrides}
    for flag, field in SHORTHANDS.items():
        if (value := getattr(args, flag, None)) is not None:
            if f"--config.{field}" in fields:
                raise ConfigError(f"--{flag} and --config.{field} set the same field: pass only one of them")
            overrides.append(f"--config.{field}={value}")
    return _overridden(recipes.get(args.recipe), overrides) if args.recipe else read_config(args.config, overrides)


def read_config(path: str, overrides: Sequence[str]) -> Config:
    """Reads the config that `get_config()` in a Python file returns, and applies overrides.

    path: the file; text after a colon is passed to `get_config`. overrides: `--config.FIELD=VALUE` arguments.
    Raises ConfigError for a missing file, an unknown field, or a value of the wrong type or out of bounds.
    """
    file, *preset = split_preset(path)
    if not is_regular(Path(file)):
        name = Path(file).stem
        advice = "pass a Python file, or --recipe NAME (c2c train --list shows the names)"
        if name in recipes.names():
            advice = f"for the recipe in the package pass --recipe {':'.join([name, *preset])}"
        raise ConfigError(f"no recipe at {file} (found {describe_path(Path(file))}); {advice}")
    try:
        config = _module(file).get_config(*preset)
    except C2CError:
        raise
    except Exception as error:  # a recipe is a program of the user's and may raise anything
        raise ConfigError(f"config file {path} does not run: {type(error).__name__}: {_first_line(error)}") from error
    if not isinstance(config, Config):
        raise ConfigError(f"{path}: get_config() must return a c2c_jax.config.Config")
    return _overridden(config, overrides)


def split_preset(recipe: str) -> list[str]:
    """Splits `mlp:gcc` or `configs/mlp.py:gcc` at the first colon, except that of a Windows drive."""
    name, *preset = split_name(recipe)
    return [name, ":".join(preset)] if preset else [name]


def _module(file: str) -> ModuleType:
    """Runs a Python file as a module. The module is registered, because dataclasses in it look it up."""
    loader = importlib.machinery.SourceFileLoader("config_config", file)
    module = ModuleType(loader.name)
    module.__file__ = file
    sys.modules[loader.name] = module
    loader.exec_module(module)
    return module


def _overridden(config: Config, overrides: Sequence[str]) -> Config:
    """Applies `--config.FIELD=VALUE` arguments to a config. Raises ConfigError."""
    from absl import flags
    from ml_collections import config_flags

    values = flags.FlagValues()
    overrides = _joined(overrides)
    renamed = {new for override in overrides if (new := _with_new_name(override)) not in (None, override)}
    overrides = [new for override in overrides if (new := _with_new_name(override))]
    settings = [match for override in overrides if (match := _SETTING.fullmatch(override))]
    argv = ["c2c", *(override for override in overrides if not _SETTING.fullmatch(override))]
    try:
        config_flags.DEFINE_config_dataclass("config", config, flag_values=values, sys_argv=argv)
        rest = values(argv)
        config = values.config
    except KeyError as error:
        raise ConfigError(f"no such config field: {error.args[0]}; c2c_jax/config.py lists them all") from None
    except flags.Error as error:
        raise ConfigError(_first_line(error)) from error
    if rest[1:]:
        raise ConfigError(f"unknown argument {rest[1]}; overrides are written --config.FIELD=VALUE")
    for section in ("translator", "objective"):
        if any(override.startswith(f"--config.{section}.kind=") for override in overrides):
            from c2c_jax.training.check import drop_inapplicable_settings  # imports JAX

            drop_inapplicable_settings(section, getattr(config, section))
    for match in settings:
        section = getattr(config, match["section"])
        if match[0] in renamed and not _is_known(match["section"], section.kind, match["name"]):
            print(f"{match[0]} is ignored: {section.kind} has no such setting", file=sys.stderr)
        else:
            section.settings[match["name"]] = _literal(match["value"])
    check_fields(config)
    return config


def _first_line(error: Exception) -> str:
    line = str(error).strip().partition("\n")[0]
    return line if len(line) <= LINE_MAX else f"{line[:LINE_MAX]}…"


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


def print_recipes() -> None:
    """Prints the names and descriptions of the recipes: a table on a terminal, tab-separated fields elsewhere."""
    described = [(name, recipes.description(name)) for name in recipes.names()]
    console = stdout_console()
    if console.is_terminal:
        from rich.table import Table

        table = Table("recipe", "what it trains")
        for row in described:
            table.add_row(*row)
        console.print(table)
    else:
        for row in described:
            print_fields(*row)

"""Recipes: the settings of a training run, one file each. `get("recommended")` returns the settings of one."""

import difflib
import importlib
import pkgutil
from types import ModuleType

from c2c_jax.config import Config
from c2c_jax.errors import ConfigError


def names() -> list[str]:
    """The names of all recipes, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def description(name: str) -> str:
    """What a recipe trains, in one line. Raises ConfigError for an unknown recipe."""
    return (_module(name).__doc__ or "").partition("\n")[0]


def get(name: str) -> Config:
    """Returns a new config with a recipe's settings.

    name: one of `names()`, for checkpoints and captions of the mini world, or NAME:PRESET for those of a data preset
    (`mlp:gcc`). Raises ConfigError for an unknown recipe or preset.
    """
    recipe, colon, preset = name.partition(":")
    get_config = _module(recipe).get_config
    return get_config(preset) if colon else get_config()


def _module(name: str) -> ModuleType:
    known = names()
    if name not in known:
        close = difflib.get_close_matches(name, known)
        others = [other for other in known if other not in close]
        raise ConfigError(f"unknown recipe {name!r:.60}; known are {', '.join([*close, *others])}")
    return importlib.import_module(f"{__name__}.{name}")

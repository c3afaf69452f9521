"""Reads `--config FILE.py` and its `--config.a.b=value` overrides."""

from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from c2c_jax.config import Config
from c2c_jax.errors import C2CError, ConfigError


def read_config(path: str, overrides: Sequence[str]) -> Config:
    """The config that a recipe file's `get_config()` gives, with overrides applied.

    overrides: `--config.a.b=value` arguments. Raises ConfigError for a missing file, an unknown field, or a value of
    the wrong type.
    """
    if not Path(path.partition(":")[0]).is_file():
        raise ConfigError(f"config file {path} cannot be read; recipes lie in configs/")
    values = flags.FlagValues()
    argv = ["c2c", f"--config={path}", *overrides]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    try:
        rest = values(argv)
        config = values.config
    except KeyError as error:
        raise ConfigError(f"no such config field: {error.args[0]}; c2c_jax/config.py lists them all") from None
    except C2CError:
        raise
    except flags.Error as error:
        lines = str(error).strip().splitlines()  # many where get_config() itself failed: absl quotes the traceback
        told = lines[0] if len(lines) == 1 else f"config file {path} does not run: {lines[-1]}"
        raise ConfigError(told) from error
    except Exception as error:  # a recipe is the user's own program: whatever it raises is for its author to read
        cause = str(error).splitlines()[0] if str(error) else ""
        raise ConfigError(f"config file {path} does not run: {type(error).__name__}: {cause}") from error
    if rest[1:]:
        raise ConfigError(f"unknown argument {rest[1]}; overrides are written --config.FIELD=VALUE")
    if not isinstance(config, Config):
        raise ConfigError(f"{path}: get_config() must give a c2c_jax.config.Config")
    return config

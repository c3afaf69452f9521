"""Error messages for callers from Python, which name arguments instead of command-line flags."""

import functools
import operator
import re
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from c2c_jax.errors import C2CError, ConfigError
from c2c_jax.io.text import printable

# A command with its flags, which stays as it is, or a single flag.
_COMMAND_OR_FLAG = re.compile(r"`[^`]*`|\b(?:c2c|hf|python) [a-z][^;,)]*|--(?:config\.)?(?P<flag>[a-z][\w.-]*\w)")
# Config fields that are arguments of `fit`.
_ARGUMENTS = {"data.validation_size": "validation", "images.files": "images"}

P = ParamSpec("P")
T = TypeVar("T")


def flags_to_arguments(function: Callable[P, T]) -> Callable[P, T]:
    """Decorator that rewrites flags in the messages of the package's errors: `--config.batch_size` becomes
    `batch_size`, `--output-mean` becomes `output_mean`. Messages are put on one line."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except C2CError as error:
            error.args = (printable(_COMMAND_OR_FLAG.sub(_argument, str(error))),)
            raise

    return wrapper


def _argument(match: re.Match[str]) -> str:
    if not (flag := match["flag"]):
        return match[0]
    return _ARGUMENTS.get(flag, flag.replace("-", "_"))


def as_integer(name: str, value: Any) -> int:
    """An argument as Python's int, also from numpy's integers. Raises ConfigError for anything else."""
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    raise ConfigError(f"{name} must be a whole number, found {value!r:.40}")

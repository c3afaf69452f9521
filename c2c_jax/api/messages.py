"""Rewrites error messages for callers from Python, so that they name arguments instead of command-line flags."""

import functools
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from c2c_jax.errors import C2CError

_FLAG = re.compile(r"--(?:config\.)?([a-z][\w.-]*\w)")
_COMMAND = re.compile(r"\b(?:c2c|hf|python) [a-z]|\.py ")  # flags of a whole command stay as they are

P = ParamSpec("P")
T = TypeVar("T")


def flags_to_arguments(function: Callable[P, T]) -> Callable[P, T]:
    """Decorator that rewrites flags in the messages of the package's errors: `--config.batch_size` becomes
    `batch_size`, `--output-mean` becomes `output_mean`."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except C2CError as error:
            message = str(error)
            if not _COMMAND.search(message):
                error.args = (_FLAG.sub(lambda match: match[1].replace("-", "_"), message),)
            raise

    return wrapper

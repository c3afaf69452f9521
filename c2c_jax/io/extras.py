"""Checks for packages that extras install, such as `c2c_jax[torch]`, and a plain installation lacks."""

import importlib.util
import logging
import types

from c2c_jax.errors import MissingExtraError


def require_extra(extra: str, purpose: str, *packages: str) -> None:
    """Raises MissingExtraError unless all packages are installed. Nothing is imported.

    extra: the extra that installs them, as in `c2c_jax[EXTRA]`. purpose: what needs them, such as "generating sounds";
    the message starts with it. packages: their names in import statements.
    """
    missing = [package for package in packages if not _is_installed(package)]
    if missing:
        *first, last = missing
        names = f"{', '.join(first)} and {last}, which are" if first else f"{last}, which is"
        raise MissingExtraError(
            f"{purpose} needs {names} not installed: pip install 'c2c_jax[{extra}]'", name=missing[0]
        )


def _is_installed(package: str) -> bool:
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None  # a folder of that name has no origin


def import_transformers() -> types.ModuleType:
    """Imports transformers and hides its message that PyTorch is missing, which tokenizers and audio functions do not
    need."""
    logger = logging.getLogger("transformers")
    logger.addFilter(_is_not_advice)
    try:
        import transformers
    finally:
        logger.removeFilter(_is_not_advice)
    return transformers


def _is_not_advice(record: logging.LogRecord) -> bool:
    return "PyTorch was not found" not in record.getMessage()

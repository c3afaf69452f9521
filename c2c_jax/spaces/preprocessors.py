"""The preprocessor of a checkpoint folder: how pictures and sounds become what its towers take."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from c2c_jax.errors import CheckpointError
from c2c_jax.io.files import is_regular, is_there
from c2c_jax.io.json import read_json

FILE = "preprocessor_config.json"
PROCESSOR_FILE = "processor_config.json"  # of transformers 5, which writes it alone

T = TypeVar("T")


def read_preprocessor(folder: Path, *parts: str) -> tuple[dict[str, Any], Path]:
    """The fields of a folder's preprocessor, and their file: the first of `parts` that `processor_config.json` has,
    else `preprocessor_config.json`, as transformers reads them. Raises CheckpointError."""
    advice = f"{folder} is not a whole checkpoint folder: fetch it again"
    if is_there(combined := folder / PROCESSOR_FILE):
        content = read_json(combined, CheckpointError, advice)
        for part in parts:
            if isinstance(fields := content.get(part), dict):
                return fields, combined
    if not is_regular(folder / FILE):
        raise CheckpointError(f"{folder / FILE} is missing, and {PROCESSOR_FILE} has no {parts[0]}; {advice}")
    return read_json(folder / FILE, CheckpointError, advice), folder / FILE


def fields_as(kind: type[T], content: Mapping[str, Any]) -> T:
    """A preprocessor's fields as a dataclass, its types and bounds checked. Raises ValueError."""
    try:
        return msgspec.convert(content, kind)
    except msgspec.MsgspecError as cause:
        raise ValueError(str(cause)) from None

"""Reads a model's sizes from config.json, without transformers, whose import takes seconds."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from c2c_jax.errors import CheckpointError

SHARED = ("projection_dim", "projection_hidden_act")  # fields of a whole model that also apply to its towers

Config = TypeVar("Config")


def config_of(kind: type[Config], content: Mapping[str, Any]) -> Config:
    """Converts the content of a config.json to a dataclass of sizes. Raises CheckpointError for invalid sizes."""
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"its sizes are invalid ({error})") from None


def tower_content(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The section of one tower in a whole model's config.json, as transformers reads it. name: such as "text_config".

    Files of 2021 have the section twice; `text_config_dict` takes precedence. Raises CheckpointError.
    """
    part: Any = next((content[key] for key in (f"{name}_dict", name) if content.get(key) is not None), {})
    if not isinstance(part, dict):
        raise CheckpointError(f"its sizes are invalid: {name} is not an object")
    shared = {key: content[key] for key in SHARED if key in content}
    return {key: value for key, value in part.items() if key not in SHARED} | shared

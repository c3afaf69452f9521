"""A checkpoint's config.json as the sizes of a model. Read without transformers, whose import takes seconds."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from c2c_jax.errors import CheckpointError

SHARED = ("projection_dim", "projection_hidden_act")  # fields that a whole model hands on to its towers

Config = TypeVar("Config")


def config_of(kind: type[Config], content: Mapping[str, Any]) -> Config:
    """A dataclass of sizes, with fields as transformers names them, their types and bounds checked. Raises
    CheckpointError for sizes that make no model."""
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"its sizes make no model ({error})") from None


def tower_content(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One tower's part of a whole model's config.json, as transformers reads it. name: such as "text_config".

    Files of 2021 have the part twice, and `text_config_dict` is the one that holds. Raises CheckpointError.
    """
    part: Any = next((content[key] for key in (f"{name}_dict", name) if content.get(key) is not None), {})
    if not isinstance(part, dict):
        raise CheckpointError(f"its sizes make no model: its {name} is not an object")
    shared = {key: content[key] for key in SHARED if key in content}
    return {key: value for key, value in part.items() if key not in SHARED} | shared

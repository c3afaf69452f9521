"""Accepts config fields by their names in version 0.1 for one release. The first use of each logs the new name."""

import functools
import logging
from collections.abc import Mapping
from typing import Any

RENAMED = {
    "data.holdout": "data.validation_size",
    "data.feed": "data.loader",
    "translator.width": "translator.settings.width",
    "translator.depth": "translator.settings.depth",
    "translator.heads": "translator.settings.heads",
    "translator.mlp_width": "translator.settings.mlp_width",
    "translator.dropout": "translator.settings.dropout",
    "translator.start": "translator.settings.init",
    "translator.ridge": "translator.settings.penalty",
    "augment.noise": "augment.noise_cosine",
    "memory.captions": "memory.size",
    "memory.share": "memory.weight",
    "pictures": "images",
    "pictures.files": "images.files",
    "pictures.calibrate": "images.calibrate",
    "objective.temperature": "objective.settings.temperature",
    "objective.margin_growth": "objective.settings.margin_growth",
    "objective.margin_most": "objective.settings.margin_max",
    "objective.twin_cosine": "objective.settings.false_negative_threshold",
    "objective.blocks": "objective.settings.loss_chunks",
    "objective.recompute": "objective.settings.remat",
}
REMOVED = ("groups", "min_steps", "augment.noise_most")

_logged: set[str] = set()
logger = logging.getLogger(__name__)


def new_name(path: str) -> str | None:
    """The current path of a config field; None for a removed field. The first use of an old path logs a warning."""
    if path not in RENAMED and path not in REMOVED:
        return path
    new = RENAMED.get(path)
    if path not in _logged:
        _logged.add(path)
        advice = f"is now config.{new}" if new else "no longer exists and is ignored"
        logger.warning("config.%s %s", path, advice)
    return new


def upgraded(config: Mapping[str, Any]) -> dict[str, Any]:
    """A saved config, as nested dictionaries, with old names replaced by current ones. Logs nothing."""
    flat: dict[str, Any] = {}
    _flatten(config, "", flat)
    new: dict[str, Any] = {}
    for path, value in flat.items():
        if path in REMOVED or (path == "translator.depth" and value == 0):  # 0 stood for the kind's own default
            continue
        *parents, name = RENAMED.get(path, path).split(".")
        node = new
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return new


def _flatten(node: Mapping[str, Any], prefix: str, flat: dict[str, Any]) -> None:
    for name, value in node.items():
        if isinstance(value, Mapping) and value:
            _flatten(value, f"{prefix}{name}.", flat)
        else:
            flat[prefix + name] = value


def accept_old_names(section: str, cls: type) -> None:
    """Makes a config dataclass accept the old names of its fields as arguments and attributes."""
    prefix = f"{section}." if section else ""
    old = [path.removeprefix(prefix) for path in (*RENAMED, *REMOVED) if path.startswith(prefix)]
    old = [name for name in old if "." not in name and name not in cls.__dataclass_fields__]  # type: ignore[attr-defined]
    original = cls.__init__  # type: ignore[misc]

    @functools.wraps(original)
    def __init__(self: Any, **fields: Any) -> None:
        old_values = {name: fields.pop(name) for name in old if name in fields}
        original(self, **fields)
        for name, value in old_values.items():
            setattr(self, name, value)

    cls.__init__ = __init__  # type: ignore[misc]
    for name in old:
        setattr(cls, name, _property(prefix, name))


def _property(prefix: str, name: str) -> property:
    def path() -> list[str]:
        new = new_name(prefix + name)
        return new.removeprefix(prefix).split(".") if new else []

    def get(self: Any) -> Any:
        match path():
            case []:
                raise AttributeError(name)
            case ["settings", key]:
                if key not in self.settings:
                    raise AttributeError(f"config.{prefix}settings.{key} is not set: the kind's own default applies")
                return self.settings[key]
            case [field]:
                return getattr(self, field)

    def set_(self: Any, value: Any) -> None:
        match path():
            case ["settings", "depth"] if value == 0:
                self.settings.pop("depth", None)
            case ["settings", key]:
                self.settings[key] = value
            case [field]:
                setattr(self, field, value)

    return property(get, set_)

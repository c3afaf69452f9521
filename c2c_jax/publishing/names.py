"""Removes local folders from the names in a bundle's config before it is published."""

import dataclasses
import re
from pathlib import Path
from typing import Any

from c2c_jax.data.captions import open_sources
from c2c_jax.errors import CaptionError
from c2c_jax.io.files import describe_path
from c2c_jax.io.names import last_component, split_name, split_suffix
from c2c_jax.translator.bundle import Bundle

_IS_PATH = re.compile(r"~|\.{0,2}[/\\]|\.{1,2}$|\w+://|[A-Za-z]:[/\\]")  # start of a local path or an address


def without_local_paths(bundle: Bundle) -> Bundle:
    """The bundle with only the last component of each local file and folder name; hub names do not change."""
    return dataclasses.replace(
        bundle,
        source=dataclasses.replace(bundle.source, name=public_name(bundle.source.name)),
        target=dataclasses.replace(bundle.target, name=public_name(bundle.target.name)),
        recipe=_public(bundle.recipe),
    )


def hub_name(name: str) -> str | None:
    """The hub repository OWNER/NAME of a space's name; None for anything else, such as a local folder or file."""
    base = name.partition(":")[0]
    is_hub_name = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", base) and describe_path(Path(base)) == "no file"
    return base if is_hub_name else None


def public_name(name: str) -> str:
    """A space's name for publishing: a hub name, or the last component of a folder, with its `:SUBFOLDER`."""
    if hub_name(name):
        return name
    base, subfolder = split_suffix(name)
    if base == name or subfolder.startswith("//"):  # gs://BUCKET/FOLDER
        return _last_component(name)
    return f"{_last_component(base)}:{subfolder}"


def public_caption_spec(spec: str) -> str:
    """A caption spec with only the last component of each local path."""
    parts = []
    for part in map(str.strip, spec.split(" + ")):
        kind, colon, name = part.partition(":")
        try:
            paths = open_sources(part)[0].places
        except CaptionError:  # the kind is not registered here
            paths = tuple(text for text in split_name(name) if _IS_PATH.match(text))
        for path in paths:
            name = name.replace(path, _last_component(path), 1)
        parts.append(kind + colon + name)
    return " + ".join(parts)


def _public(value: Any, field: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _public(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [_public(inner, field) for inner in value]
    if not isinstance(value, str) or not value:
        return value
    if field in ("source", "target"):
        return public_name(value)
    if field == "captions":
        return public_caption_spec(value)
    if field in ("data_dir", "manual_dir", "store") or _IS_PATH.match(value):
        return _last_component(value)
    return value


def _last_component(path: str) -> str:
    """The last component of a path; for paths such as `.`, of the folder they refer to."""
    last = last_component(path)
    return last if last not in ("", "..") else Path(path).expanduser().resolve().name

"""Names in a bundle's config as they are published: without the folders of this machine."""

import dataclasses
import re
from pathlib import Path, PurePath
from typing import Any

from c2c_jax.data.captions import open_sources
from c2c_jax.errors import CaptionError
from c2c_jax.io.files import describe_path
from c2c_jax.translator.bundle import Bundle

_IS_PATH = re.compile(r"~|\.{0,2}/|\.{1,2}$|\w+://")  # how the name of a place on a machine or in a bucket begins


def without_places(bundle: Bundle) -> Bundle:
    """The bundle with hub names as they are, and only the last component of each local file and folder."""
    return dataclasses.replace(
        bundle,
        source=dataclasses.replace(bundle.source, name=public_name(bundle.source.name)),
        target=dataclasses.replace(bundle.target, name=public_name(bundle.target.name)),
        recipe=_public(bundle.recipe),
    )


def hub_name(name: str) -> str | None:
    """The hub repository OWNER/NAME of a space's name; None for a local folder or file, and for all else."""
    base = name.partition(":")[0]
    is_one = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", base) and describe_path(Path(base)) == "no file"
    return base if is_one else None


def public_name(name: str) -> str:
    """A space's name: a hub name, or the last component of a folder, with its `:SUBFOLDER`."""
    if hub_name(name):
        return name
    base, colon, subfolder = name.rpartition(":")
    if not colon or subfolder.startswith("//"):  # gs://BUCKET/FOLDER
        return _last(name)
    return _last(base) + colon + subfolder


def public_captions(spec: str) -> str:
    """A caption spec whose files and local data sets are named by their last component."""
    parts = []
    for part in map(str.strip, spec.split(" + ")):
        kind, colon, name = part.partition(":")
        try:
            places = open_sources(part)[0].places
        except CaptionError:  # of a kind that is not registered here
            places = tuple(text for text in name.split(":") if _IS_PATH.match(text))
        for place in places:
            name = name.replace(place, _last(place), 1)
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
        return public_captions(value)
    if field in ("data_dir", "manual_dir", "store") or _IS_PATH.match(value):
        return _last(value)
    return value


def _last(path: str) -> str:
    """The last component; of `.` and such, which have none, that of the folder they stand for."""
    last = PurePath(path).name
    return last if last not in ("", "..") else Path(path).expanduser().resolve().name

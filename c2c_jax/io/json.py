"""Reads and formats JSON. All JSON files are read here, with checked types and limits on size, depth and numbers."""

import codecs
import dataclasses
import json
import logging
from collections.abc import Collection, Iterator
from pathlib import Path
from types import GenericAlias
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec

from c2c_jax.errors import C2CError, CheckpointError
from c2c_jax.io.files import describe_placeholder, open_regular

# Default limit of a file. Python objects take up to 24 times the bytes of their JSON.
MAX_BYTES = 2**22
MAX_RECORD_BYTES = 2**24  # of a file that is decoded directly into its type: a store needs 250 bytes for 4,096 captions
MAX_LINE_BYTES = 2**24  # of one line of a .jsonl file
MAX_DEPTH = 64  # nested objects and arrays
ADVICE = "fetch the file again"

T = TypeVar("T")

logger = logging.getLogger(__name__)


def read_json(
    path: Path, error: type[C2CError] = CheckpointError, advice: str = ADVICE, max_bytes: int = MAX_BYTES
) -> dict[str, Any]:
    """Reads a JSON object from a file.

    Raises `error`, with `advice` at the end of the message, if the file is missing, not a regular file, larger than
    `max_bytes`, nested deeper than MAX_DEPTH, not UTF-8, not JSON (RFC 8259, which has no NaN) or not an object.
    """
    return read_json_as(dict, path, error, advice, max_bytes)


def read_json_as(
    kind: type[T] | GenericAlias,
    path: Path,
    error: type[C2CError] = CheckpointError,
    advice: str = ADVICE,
    max_bytes: int = MAX_BYTES,
    forbid_unknown: bool = False,
) -> T:
    """Reads a JSON file as a dataclass or any other type that msgspec supports.

    Checks every field's type and bounds (`typing.Annotated[int, msgspec.Meta(ge=1)]`). forbid_unknown: refuses fields
    that the dataclass lacks, which are otherwise ignored. Raises as `read_json`.
    """
    with open_regular(path, "a JSON file", error, advice) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise error(f"{path} is larger than {max_bytes:,} bytes; {advice}")
    if placeholder := describe_placeholder(content[:256]):
        raise error(f"{path} {placeholder}; {advice}")
    try:
        value = parse_json(content, kind)
        if forbid_unknown:
            fields = differing_fields(kind, parse_json(content))
            if unknown := [name for name, is_stated in fields if is_stated]:
                raise ValueError(f"unknown field {', '.join(unknown)[:200]}")
    except ValueError as cause:
        raise error(f"{path} cannot be read as JSON ({cause}); {advice}") from None
    return value


def read_json_lines(
    path: Path, kind: type[T] | GenericAlias, error: type[C2CError], advice: str
) -> Iterator[tuple[int, T | ValueError]]:
    """Yields the number (from 1) and content of each line of a .jsonl file.

    The content is a ValueError if the line is damaged or longer than MAX_LINE_BYTES. A last line without a line end, as
    killed processes leave, is skipped.
    """
    with open_regular(path, "a file of JSON lines", error, advice) as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES), b""), start=1):
            if not line.endswith(b"\n"):
                if len(line) == MAX_LINE_BYTES:
                    yield number, ValueError(f"a line longer than {MAX_LINE_BYTES:,} bytes")
                return
            try:
                yield number, parse_json(line, kind)
            except ValueError as cause:
                yield number, cause


def parse_json(content: bytes | str, kind: type[T] | GenericAlias = Any) -> T:  # type: ignore[assignment]
    """Decodes JSON as a dataclass or any other type that msgspec supports; unknown fields are skipped without decoding.

    Raises ValueError for invalid JSON, wrong types or bounds, and nesting deeper than MAX_DEPTH.
    """
    if isinstance(content, bytes):
        content = content.removeprefix(codecs.BOM_UTF8)
    try:
        value = msgspec.json.decode(content, type=kind)
        if _depth(value) > MAX_DEPTH:
            raise RecursionError
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from None
    except msgspec.MsgspecError as cause:
        raise ValueError(str(cause)) from None
    return value


def format_json(content: Any) -> bytes:
    """Formats content as indented JSON in UTF-8 with a final newline. The bytes are the same on every system."""
    return (json.dumps(content, indent=2) + "\n").encode("utf-8")


def _depth(content: Any) -> int:
    if not isinstance(content, dict | list):
        return 0
    return 1 + max(map(_depth, content.values() if isinstance(content, dict) else content), default=0)


def differing_fields(kind: Any, content: Any, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Yields the fields that only the dataclass or only its JSON has, including nested ones: the name, as `a.b`, and
    whether the JSON has it."""
    if isinstance(content, dict) and dataclasses.is_dataclass(kind):
        fields = get_type_hints(kind)
        for name in dict.fromkeys((*fields, *content)):
            if name in fields and name in content:
                yield from differing_fields(fields[name], content[name], f"{prefix}{name}.")
            else:
                yield prefix + name, name in content
    elif isinstance(content, dict | list):
        for inner in content if isinstance(content, list) else [content]:
            for part in get_args(kind):
                yield from differing_fields(part, inner, prefix)


def report_missing_fields(kind: type, content: dict[str, Any], path: Path, optional: Collection[str] = ()) -> None:
    """Logs which fields of a dataclass are missing from the JSON object of `path`, except those in `optional`."""
    missing = [name for name, is_stated in differing_fields(kind, content) if not is_stated and name not in optional]
    if missing:
        logger.warning("%s does not state %s", path, ", ".join(dict.fromkeys(missing))[:200])

"""The one reader of JSON: of our own files and of checkpoints, bounded in size, depth and numbers, and typed."""

import codecs
import dataclasses
from collections.abc import Collection, Iterator
from pathlib import Path
from types import GenericAlias
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec

from c2c_jax.errors import C2CError, CheckpointError
from c2c_jax.io.console import stderr_console
from c2c_jax.io.files import open_regular, stand_in

# Of a file, unless its reader says otherwise. Python's objects take up to 24 times the bytes of their JSON.
MAX_BYTES = 2**22
MAX_RECORD_BYTES = 2**24  # of what is decoded straight into its type: 250 bytes for 4,096 captions of a store
MAX_LINE_BYTES = 2**24  # of one line of a .jsonl file
MAX_DEPTH = 64  # nested objects and arrays
ADVICE = "fetch the file again"

T = TypeVar("T")


def read_json(
    path: Path, error: type[C2CError] = CheckpointError, advice: str = ADVICE, max_bytes: int = MAX_BYTES
) -> dict[str, Any]:
    """The JSON object in a file.

    error: the class of what is raised, with `advice` at the end of its line, for a file that is missing, not a regular
    file, larger than `max_bytes`, nested deeper than MAX_DEPTH, not UTF-8, not JSON (RFC 8259: NaN is not) or not an
    object.
    """
    return read_json_as(dict, path, error, advice, max_bytes)


def read_json_as(
    kind: type[T] | GenericAlias,
    path: Path,
    error: type[C2CError] = CheckpointError,
    advice: str = ADVICE,
    max_bytes: int = MAX_BYTES,
    is_exact: bool = False,
    removed: Collection[str] = (),
) -> T:
    """The content of a JSON file as a dataclass or any other type that msgspec knows, every field's type and bounds
    (`typing.Annotated[int, msgspec.Meta(ge=1)]`) checked; fields the dataclass does not have are ignored; with
    `is_exact` they are refused, except those in `removed`. Raises as `read_json`."""
    with open_regular(path, "a JSON file", error, advice) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise error(f"{path} is larger than {max_bytes:,} bytes; {advice}")
    if found_instead := stand_in(content[:256]):
        raise error(f"{path} {found_instead}; {advice}")
    try:
        found = parse_json(content, kind)
        if is_exact:
            differ = differing(kind, parse_json(content))
            if unknown := [name for name, is_stated in differ if is_stated and name not in removed]:
                raise ValueError(f"unknown field {', '.join(unknown)[:200]}")
    except ValueError as cause:
        raise error(f"{path} cannot be read as JSON ({cause}); {advice}") from None
    return found


def read_json_lines(
    path: Path, kind: type[T] | GenericAlias, error: type[C2CError], advice: str
) -> Iterator[tuple[int, T | ValueError]]:
    """(number from 1, content) of each whole line of a .jsonl file; the content is a ValueError where a line is damaged
    or longer than MAX_LINE_BYTES. A last line without its end, which a killed process leaves, is not given."""
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
    """JSON as a dataclass or any other type that msgspec knows, decoded with no objects made of fields that the type
    does not have. Raises ValueError, in one line, for what is not JSON, of other types or bounds, or nested deeper than
    MAX_DEPTH."""
    if isinstance(content, bytes):
        content = content.removeprefix(codecs.BOM_UTF8)
    try:
        found = msgspec.json.decode(content, type=kind)
        if _depth(found) > MAX_DEPTH:
            raise RecursionError
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from None
    except msgspec.MsgspecError as cause:
        raise ValueError(str(cause)) from None
    return found


def _depth(content: Any) -> int:
    if not isinstance(content, dict | list):
        return 0
    return 1 + max(map(_depth, content.values() if isinstance(content, dict) else content), default=0)


def differing(kind: Any, content: Any, before: str = "") -> Iterator[tuple[str, bool]]:
    """Fields that only one of two has, a dataclass (with those inside it) and the JSON that it is read from: the name,
    as `a.b`, and whether it is the JSON that has it."""
    if isinstance(content, dict) and dataclasses.is_dataclass(kind):
        fields = get_type_hints(kind)
        for name in dict.fromkeys((*fields, *content)):
            if name in fields and name in content:
                yield from differing(fields[name], content[name], f"{before}{name}.")
            else:
                yield before + name, name in content
    elif isinstance(content, dict | list):
        for inner in content if isinstance(content, list) else [content]:
            for part in get_args(kind):
                yield from differing(part, inner, before)


def report_missing_fields(kind: type, content: dict[str, Any], path: Path, optional: Collection[str] = ()) -> None:
    """Prints the fields of a dataclass that the JSON object read from `path` lacks, except those in `optional`."""
    missing = [name for name, is_stated in differing(kind, content) if not is_stated and name not in optional]
    if missing:
        stderr_console().print(f"{path} does not state {', '.join(dict.fromkeys(missing))[:200]}")

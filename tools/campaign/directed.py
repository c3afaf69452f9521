"""Directed damage: typical mistakes, failed downloads and attacks in place of a file."""

import dataclasses
import json
import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tools.campaign import hostile
from tools.campaign.hostile import Apply, Attack, changed, written
from tools.campaign.readers import Reader

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 605247071\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>404</title></head><body>Not found</body></html>\n"
DIGITS = "9" * 5000
DEEP = 100_000
LONG_LINE = 100 * 2**20
QUOTES = (b'"\n' + b'""\n' * 22_000) * 8  # each quote may end the row that the first one starts
# New values of a field of JSON.
VALUES = {
    "null": "null", "list": "[]", "object": "{}", "text": '"x"', "true": "true", "minus": "-1", "zero": "0",
    "billion": "1000000000", "1e308": "1e308", "digits": DIGITS, "deep": "[" * DEEP + "]" * DEEP, "NaN": "NaN",
}  # fmt: skip
ROOTS = {"null": b"null", "five": b"5", "list": b"[]", "text": b'"x"', "deep": b"[" * DEEP, "object": b"{}"}
MARKER = "@@campaign@@"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DirectedChange:
    """A change of one file. file: path in the reader's folder. is_field: whether a field of JSON is changed. is_strict:
    see `verdicts.Change`."""

    key: str
    how: str
    file: str
    apply: Apply
    is_field: bool = False
    is_strict: bool = False


def directed_changes(reader: Reader, folder: Path) -> Iterator[DirectedChange]:
    """Yields all directed changes for a reader with intact files in `folder`; of similar files, only the first one is
    changed."""
    paths = [path for path in reader.paths(folder) if not path.name.startswith("_")]
    firsts = {
        (path.suffix, path.name if path.suffix == ".json" else "", path.parent.parent.name): path
        for path in reversed(paths)
    }
    turns = -(-len(firsts) // 2)  # replacements that apply to all files are distributed over the files
    for number, path in enumerate(sorted(firsts.values())):
        file, content = path.relative_to(folder).as_posix(), path.read_bytes()

        def change(key: str, how: str, apply: Apply, file: str = file, **more: bool) -> DirectedChange:
            return DirectedChange(
                key=f"{file.replace('/', '_')}-{key}", how=f"{file}: {how}", file=file, apply=apply, **more
            )

        for key, how, apply in REPLACED[number % turns :: turns]:
            yield change(key, how, apply, is_strict=key not in ("dangling", "empty"))
        for attack in _texts(path.suffix):
            yield change(*attack)
        if fields := _json(content):
            for key, root in list(ROOTS.items())[number % turns :: turns]:
                yield change(f"root-{key}", f"the root is {key}", written(root), is_strict=key != "object")
            for attack in IN_JSON:
                yield change(*attack)
            for name, old in fields:
                yield change(f"{name}-gone", f"without {name}", _field(name, None), is_field=True)
                for key, value in VALUES.items():
                    new = json.loads(value) if key not in ("deep", "digits", "NaN") else []
                    strict = old is not None and _kind(old) != _kind(new)
                    yield change(
                        f"{name}-{key}", f"{name} is {key}", _field(name, value), is_field=True, is_strict=strict
                    )
        for key, how, apply in hostile.of(reader, path):
            yield change(key, how, apply, is_strict=True)


def _replaced_by(make: Callable[[Path], Any]) -> Apply:
    def apply(path: Path) -> None:
        path.unlink()
        make(path)

    return apply


def bind_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # paths of sockets have at most 108 bytes
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


def _twice(data: bytes) -> bytes:
    text = json.dumps(json.loads(data))
    return f"{text[:-1]}, {text[1:]}".encode() if len(text) > 2 else data


def _numbers(value: str) -> Apply:
    return changed(lambda data: re.sub(rb"(?<![\w.-])\d+(?![\w.-])", value.encode(), data, count=3))


_UTF_16: Attack = ("utf-16", "in UTF-16", changed(lambda data: data.decode().encode("utf-16")))
_BOM: Attack = ("bom", "with a byte order mark", changed(lambda data: b"\xef\xbb\xbf" + data))
REPLACED: tuple[Attack, ...] = (
    ("empty", "empty", written(b"")),
    ("pointer", "a pointer of Git LFS", written(POINTER)),
    ("page", "a page of HTML", written(PAGE)),
    ("picture", "an image of another kind", written(b"\x89PNG\r\n\x1a\n" + bytes(200))),
    ("zeros", "4 KiB of zeros", written(bytes(4096))),
    ("pipe", "a named pipe", _replaced_by(os.mkfifo)),
    ("device", "a link to /dev/zero", _replaced_by(lambda path: path.symlink_to("/dev/zero"))),
    ("folder", "a folder", _replaced_by(Path.mkdir)),
    ("socket", "a socket", _replaced_by(bind_socket)),
    ("dangling", "a broken symbolic link", _replaced_by(lambda path: path.symlink_to("nowhere"))),
    ("loop", "a link to itself", _replaced_by(lambda path: path.symlink_to(path.name))),
)
IN_JSON: tuple[Attack, ...] = (
    _UTF_16,
    _BOM,
    ("tail", "followed by other text", changed(lambda data: data + b"\n}{")),
    ("twice", "every key of the root twice", changed(_twice)),
)


def _texts(suffix: str) -> Iterator[Attack]:
    if suffix not in (".txt", ".tsv", ".csv", ".jsonl"):
        return
    yield _UTF_16
    yield "latin-1", "with a byte that is not UTF-8", changed(lambda data: data.replace(b"a", b"\xe9", 1))
    yield _BOM
    yield "carriage", "lines that end in CR LF", changed(lambda data: data.replace(b"\n", b"\r\n"))
    yield "long", "a line of 100 MiB", changed(lambda data: data + b"x" * LONG_LINE + b"\n")
    yield "quote", "a stray quote", changed(lambda data: data.replace(b"\n", b'\n"', 2))
    yield "nul", "with NULs", changed(lambda data: data.replace(b"a", b"\0", 3))
    if suffix in (".csv", ".txt"):
        yield "quotes", "quotes that never close, over many lines", changed(lambda data: data + QUOTES)
        yield "digits", "integers of 5,000 digits", _numbers(DIGITS)
        yield "times", "start and end as integers of 5,000 digits", _numbers(f"{DIGITS}_{DIGITS}")
    if suffix == ".jsonl":
        yield "deep", "a line nested deeply", changed(lambda data: data + b'{"a":' * DEEP + b"\n")
        yield "digits", "an integer of 5,000 digits", changed(lambda data: data + f'{{"step": {DIGITS}}}\n'.encode())
        yield "root", "a line that is null", changed(lambda data: data + b"null\n5\n[]\n")


def _json(content: bytes) -> list[tuple[str, Any]]:
    """Returns path (`a/b/0`) and value of the fields of a JSON object; for lists and large objects only the first."""
    try:
        root = json.loads(content)
    except ValueError:
        return []
    return list(_fields(root, "")) if isinstance(root, dict) else []


def _fields(value: Any, before: str) -> Iterator[tuple[str, Any]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for number, (key, inner) in enumerate(entries):
        if number >= (40 if isinstance(value, dict) else 1):
            return
        if "/" not in str(key):
            yield f"{before}{key}", inner
            yield from _fields(inner, f"{before}{key}/")


def _field(name: str, value: str | None) -> Apply:
    """Returns a function that replaces a field by JSON, or removes it."""

    def apply(path: Path) -> None:
        root = json.loads(path.read_bytes())
        holder, (*parts, last) = root, name.split("/")
        for part in parts:
            holder = holder[int(part) if isinstance(holder, list) else part]
        place: Any = int(last) if isinstance(holder, list) else last
        if value is None:
            del holder[place]
        else:
            holder[place] = MARKER
        path.write_text(json.dumps(root, indent=2).replace(f'"{MARKER}"', value or "", 1))

    return apply


def _kind(value: Any) -> str:
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__

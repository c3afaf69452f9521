"""Reading JSON: only valid JSON (RFC 8259) within limits and of the right types; errors are one line with the file."""

import dataclasses
import os
import tracemalloc
from typing import Annotated

import msgspec
import pytest

from c2c_jax.errors import StoreError
from c2c_jax.io import json as reader
from c2c_jax.io.json import MAX_DEPTH, MAX_RECORD_BYTES, parse_json, read_json, read_json_as, read_json_lines

ADVICE = "make it again"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    depth: Annotated[int, msgspec.Meta(ge=1, le=9)]
    names: list[str] = dataclasses.field(default_factory=list)


def refusal(path, content, kind=None):
    path.write_bytes(content)
    with pytest.raises(StoreError) as caught:
        read_json_as(kind, path, StoreError, ADVICE) if kind else read_json(path, StoreError, ADVICE)
    message = str(caught.value)
    assert message.startswith(str(path)) and message.endswith(ADVICE) and "\n" not in message and len(message) < 400
    return message


def test_what_is_json(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf {"a": [1, 2.5, -1e3, true, null, "\\u00e9\\ud83d\\ude00"], "b": {}} \n')
    assert read_json(path) == {"a": [1, 2.5, -1000.0, True, None, "é😀"], "b": {}}


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"null", b"5", b"[]", b'"x"', b"{'a': 1}", b'{"a": NaN}', b'{"a": Infinity}', b'{"a": 1} x', b"\xff",
        b'{"a": "\\ud800"}', b'{"a": ' + b"9" * 5000 + b"}", b"[" * 200_000, b'{"a":' * 200_000, b'{"a": "\x01"}',
        b"version https://git-lfs.github.com/spec/v1\n", b"<!doctype html>",
    ],
    ids=lambda content: repr(content[:20]),
)  # fmt: skip
def test_what_is_not(tmp_path, content):
    refusal(tmp_path / "a.json", content)


def test_depth(tmp_path):
    """The top-level value counts as the first level."""
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None
    assert parse_json('{"a":' * (MAX_DEPTH - 1) + "[]" + "}" * (MAX_DEPTH - 1)) is not None
    deeper = '{"a":' + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1) + "}"
    assert f"nested deeper than {MAX_DEPTH} levels" in refusal(tmp_path / "a.json", deeper.encode())


def test_size(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}')
    with pytest.raises(StoreError, match="larger than 7 bytes; make it again"):
        read_json(path, StoreError, ADVICE, max_bytes=7)
    assert read_json(path, StoreError, ADVICE, max_bytes=8) == {"a": 1}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"depth": "x"}', "Expected `int`, got `str` - at `$.depth`"),
        (b'{"depth": true}', "Expected `int`, got `bool` - at `$.depth`"),
        (b'{"depth": 2.0}', "Expected `int`, got `float` - at `$.depth`"),
        (b'{"depth": 0}', "Expected `int` >= 1 - at `$.depth`"),
        (b'{"depth": 10}', "Expected `int` <= 9 - at `$.depth`"),
        (b'{"names": []}', "missing required field `depth`"),
        (b'{"depth": 1, "names": [1]}', "Expected `str`, got `int` - at `$.names[0]`"),
    ],
)
def test_types_and_bounds(tmp_path, content, why):
    assert why in refusal(tmp_path / "a.json", content, Sizes)


def test_typed(tmp_path):
    (tmp_path / "a.json").write_text('{"depth": 9, "names": ["a"], "of a later version": {}}')
    assert read_json_as(Sizes, tmp_path / "a.json") == Sizes(depth=9, names=["a"])


def test_lines(tmp_path, monkeypatch):
    """A damaged line yields an error; an unfinished last line, from a killed process, is skipped."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"depth": 1}\n{"depth": 0}\n\n{"depth": 2}\n{"depth": 3')
    lines = list(read_json_lines(path, Sizes, StoreError, ADVICE))
    assert [number for number, _ in lines] == [1, 2, 3, 4]
    assert [isinstance(line, ValueError) for _, line in lines] == [False, True, True, False]
    assert lines[3] == (4, Sizes(depth=2))
    monkeypatch.setattr(reader, "MAX_LINE_BYTES", 20)
    path.write_bytes(b'{"depth": 1}\n{"depth": 1, "names": ["a"]}\n{"depth": 2}\n')
    (_, first), (number, too_long) = read_json_lines(path, Sizes, StoreError, ADVICE)
    assert (first, number) == (Sizes(depth=1), 2) and "longer than 20 bytes" in str(too_long)


def test_only_regular_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    (tmp_path / "zero").symlink_to("/dev/zero")
    kinds = {
        "pipe": "a named pipe",
        "link": "a broken symbolic link",
        "zero": "a device",
        ".": "a folder",
        "no": "no file",
    }
    for name, kind_at in kinds.items():
        with pytest.raises(StoreError, match=f"found {kind_at}; {ADVICE}"):
            read_json(tmp_path / name, StoreError, ADVICE)
        with pytest.raises(StoreError, match=f"found {kind_at}; {ADVICE}"):
            list(read_json_lines(tmp_path / name, Sizes, StoreError, ADVICE))


@pytest.mark.parametrize("unit", [b"[],", b'"",', b'{"":0},'])
def test_a_file_of_many_small_things_takes_little_memory(tmp_path, unit):
    path = tmp_path / "a.json"
    path.write_bytes(b'{"others": [' + unit * (2**23 // len(unit)) + b"0]}")
    tracemalloc.start()
    with pytest.raises(StoreError, match="is larger than 4,194,304 bytes"):
        read_json(path, StoreError, ADVICE)
    with pytest.raises(StoreError, match=r"missing required field `depth`"):
        read_json_as(Sizes, path, StoreError, ADVICE, MAX_RECORD_BYTES)
    assert tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()


def test_large_files_are_typed_and_bounded_too(tmp_path):
    path = tmp_path / "a.json"
    for content, why in (
        (b'{"depth": 10}', "Expected `int` <= 9"),
        (b'{"depth": 1, "names": ' + b"[" * 2**20, "Expected `str`"),
        (b'{"depth": 1, "others": ' + b"[" * 2**20, "nested deeper"),
    ):
        path.write_bytes(content)
        with pytest.raises(StoreError, match=why):
            read_json_as(Sizes, path, StoreError, ADVICE, MAX_RECORD_BYTES)
    path.write_bytes(b'\xef\xbb\xbf{"depth": 9, "names": ["a"], "others": [[[]]]}')
    assert read_json_as(Sizes, path, StoreError, ADVICE, MAX_RECORD_BYTES) == Sizes(depth=9, names=["a"])


def test_unknown_fields_are_refused_where_all_are_known(tmp_path):
    @dataclasses.dataclass
    class Outer:
        one: Sizes | None = None
        several: list[Sizes] = dataclasses.field(default_factory=list)
        free: dict[str, int] = dataclasses.field(default_factory=dict)

    path = tmp_path / "a.json"
    path.write_text('{"one": {"depth": 2}, "several": [{"depth": 3}], "free": {"a": 1}}')
    assert read_json_as(Outer, path, forbid_unknown=True) == read_json_as(Outer, path)
    path.write_text('{"one": {"depth": 2, "a": 1}, "several": [{"depth": 3}, {"depth": 3, "b": 1}], "c": 1}')
    assert read_json_as(Outer, path).one == Sizes(depth=2)
    with pytest.raises(StoreError, match=r"unknown field one\.a, several\.b, c"):
        read_json_as(Outer, path, StoreError, forbid_unknown=True)

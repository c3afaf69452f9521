"""Judges readers of damaged files, by comparing exit and results with those for the intact file."""

import dataclasses
import os
import pickle
import re
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tools.campaign.cases import Context, Outcome
from tools.campaign.process import Exit, Limits, call
from tools.campaign.readers import Reader

MARK = "MARK"  # a file that code hidden in an input would create in the working directory
CLOSE = 1e-3  # tolerance of numbers, relative to the largest
END = 16  # bytes at the end of a file; if they are intact, the file is not truncated
OWN_LINE = re.compile(r"^c2c [\w-]+: ")


@dataclasses.dataclass(frozen=True)
class Change:
    """A file's content before and after damage. is_strict: the damage is always detectable, such as a field of another
    type; `Reader.rule` does not apply."""

    before: bytes
    after: bytes
    is_strict: bool = False


def read(reader: Reader, folder: Path, log: Path) -> Exit:
    """Runs the reader's probe in a child; C2CError and OSError end it as on the command line."""

    def probe() -> dict[str, Any]:
        from c2c_jax.errors import C2CError

        try:
            return reader.probe()
        except C2CError as error:
            print(f"c2c reader: {error}", file=sys.stderr)
        except OSError as error:
            print(f"c2c reader: {error.filename}: {error.strerror}", file=sys.stderr)
        raise SystemExit(2)

    return call(probe, log, folder, reader.limits)


def original(reader: Reader, context: Context) -> Exit:
    """Runs the reader on intact files; caches the exit in a file."""
    cache = context.folder / "originals" / f"{reader.name}.pickle"
    with context.inputs.lock:
        if not cache.is_file():
            folder = reader.prepare(context.inputs, cache.parent / reader.name / "folder")
            # The first run compiles, which takes more time and memory.
            generous = Limits(cpu=600, idle=120, memory=2**33)
            for _ in range(2):
                ended = call(reader.probe, folder.parent / "log", folder, generous)
                folder = reader.prepare(context.inputs, folder)
                if ended.code or ended.result is None:
                    raise RuntimeError(f"the reader of {reader.name} fails on intact files: {ended.err}")
            cache.write_bytes(pickle.dumps(ended))
        return pickle.loads(cache.read_bytes())


def judge(reader: Reader, intact: Exit, ended: Exit, folder: Path, change: Change) -> Outcome:
    """Returns the verdict of a case."""

    def outcome(verdict: str, what: str = "") -> Outcome:
        return Outcome(verdict=verdict, what=what, cpu=ended.cpu)

    if (folder / MARK).exists():
        return outcome("mark", "code that was hidden in the file ran")
    if ended.why:
        return outcome(
            ended.why, f"{ended.cpu:.1f} s of CPU time, {ended.memory_growth / 2**20:,.0f} MiB more; {ended.last}"
        )
    if ended.code == 2 and OWN_LINE.match(ended.last) and "Traceback" not in ended.err:
        return outcome("refused")
    if ended.code or "Traceback" in ended.err:
        name = signal.Signals(-ended.code).name if ended.code < 0 else f"exit code {ended.code}"
        return outcome("traceback", f"{name}\n{ended.err[-2000:]}")
    difference = first_difference(intact.result, ended.result)
    if not difference:
        return outcome("right")
    if [line for line in ended.lines if line not in intact.lines and "Warning" not in line]:
        return outcome("reported")
    if not change.is_strict and is_undetectable(reader, intact.result, ended.result, change):
        return outcome("undetectable")
    return outcome("wrong in silence", f"exit code 0, nothing on stderr, and wrong results: {difference}")


def first_difference(expected: dict[str, Any], actual: dict[str, Any]) -> str:
    """Describes the first difference between results; empty if there is none."""
    for name, value in expected.items():
        if name not in actual:
            if isinstance(value, np.ndarray) and "count" in expected:  # of an index: it is encoded again
                continue
            return f"{name} is missing"
        other = actual[name]
        if not isinstance(value, np.ndarray):
            if value != other:
                return f"{name}: {_short(value, other)}"
        elif value.shape != other.shape:
            return f"{name} has shape {other.shape}, not {value.shape}"
        elif not _finite(other):
            return f"{name} is not finite"
        elif value.size and (far := np.abs(value.astype(np.float64) - other).max()) > CLOSE * np.abs(value).max():
            return f"{name} is off by up to {far:.3g}"
    new = sorted(set(actual) - set(expected))
    return f"{new[0]} is new" if new else ""


def _finite(array: np.ndarray) -> bool:
    return bool(np.isfinite(array.astype(np.float64)).all())


def _short(value: Any, other: Any) -> str:
    if isinstance(value, list):
        changed = [(a, b) for a, b in zip(value, other, strict=False) if a != b][:1]
        return f"{len(other)} of {len(value)}; the first that differs: {str(changed)[:200]}"
    start = max(len(os.path.commonprefix([str(value), str(other)])) - 20, 0)
    return f"{str(other)[start : start + 80]!r}, not {str(value)[start : start + 80]!r}"


def is_undetectable(reader: Reader, expected: dict[str, Any], actual: dict[str, Any], change: Change) -> bool:
    """Whether the file format cannot reveal the damage; see `Reader.rule`."""
    if reader.rule in ("text", "checked"):
        return reader.rule == "text"
    if reader.rule == "values":
        return bool(expected["outline"] == actual["outline"])
    for name, value in expected.items():
        other = actual.get(name)
        if other is None:
            return False
        if isinstance(value, np.ndarray):
            near = abs(len(value) - len(other)) <= reader.slack if reader.slack else value.shape == other.shape
            if not (near and _finite(other)):
                return False
    return len(change.after) >= len(change.before) or change.after[-END:] == change.before[-END:]

"""Writes an embedding store, by one process at a time; a write that was interrupted at any moment can be resumed.

Files are written atomically (`io.atomic`), except `progress-*.jsonl`, whose last line may be cut short.
A store's folder is in one of these states, and otherwise is new:

    planned      plan.json, no manifest.json: chunks are written in any order, each before its line of progress
    finished     manifest.json, no plan.json
    growing      manifest.json, and a plan.json of more rows: what the manifest describes stays as it is
    repaired     manifest.json, and a plan.json of the same rows: chunks without their checksum are written again

The steps, between any two of which a process may be killed:

    plan    progress of earlier plans removed; plan.json; captions      `restore_captions` writes those that are missing
    write   chunk of both sides; line of progress                       a chunk without its line is written again
    finish  zarr.json; manifest.json; progress removed; plan.json       after the second step nothing is left to repair
            removed

Progress is removed before the plan that it belongs to, so that none is ever taken for that of another plan.
"""

import contextlib
import dataclasses
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from jaxtyping import Shaped

from c2c_jax.data.chunks import cast_problem, cast_vectors
from c2c_jax.data.store import SIDES, Plan, Sha256, Store, read_plan, write_json
from c2c_jax.errors import StoreError
from c2c_jax.io.atomic import exclusive_lock, sweep
from c2c_jax.io.console import stderr_console
from c2c_jax.io.json import read_json_lines

console = stderr_console()


@contextlib.contextmanager
def store_lock(path: Path) -> Iterator[None]:
    """Locks the store at `path`, whose folder is made, against other writers. Raises StoreError if another process
    writes it. One process holds the lock for all processes of its job."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive_lock(path))
        except BlockingIOError:
            raise StoreError(f"another process is writing the store {path}: wait until it is done") from None
        yield


def restore_captions(path: Path, texts_of: Callable[[Plan], Iterable[str]]) -> None:
    """Writes those chunks of captions of a planned store that are damaged or missing.

    texts_of: gives all captions of a plan again. Raises StoreError if they are others now, and as `texts_of`.
    """
    plan, checksums = _require_plan(path)
    files, bad = plan.texts(path), []
    for chunk, checksum in enumerate(checksums):
        try:
            files.read(chunk, checksum)
        except StoreError:
            bad.append(chunk)
    stream = iter(texts_of(plan)) if bad else iter(())
    for chunk in range(bad[-1] + 1 if bad else 0):
        rows = plan.rows_of(chunk)
        block = list(itertools.islice(stream, rows.stop - rows.start))
        if chunk in bad and files.write(chunk, block) != checksums[chunk]:
            raise StoreError(f"{path}: captions of chunk {chunk} are lost: their source has others now; embed it anew")


def begin_repair(path: Path) -> bool:
    """Plans to write again what is damaged or missing in the finished store at `path`, and reports it in one line.
    Returns whether anything is. The caller holds the lock. Raises OSError."""
    store = Store.open(path)
    if damage := list(store.damage()):
        some = ", ".join(f"{part} {'zarr.json' if chunk is None else chunk}" for part, chunk, _ in damage[:10])
        more = ", …" if len(damage) > 10 else ""
        console.print(f"{path}: making {len(damage):,} damaged or missing chunks again: {some}{more}")
        StoreWriter.begin(path, store.plan, store.checksums["captions"])
    return bool(damage)


def _require_plan(path: Path) -> tuple[Plan, list[str]]:
    if (planned := read_plan(path)) is None:
        raise StoreError(f"{path} holds no unfinished embedding store (no plan.json)")
    return planned


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Progress:
    """A line of progress: a chunk that was written, with the checksums of its vectors."""

    chunk: Annotated[int, msgspec.Meta(ge=0)]
    source: Sha256
    target: Sha256


class StoreWriter:
    """Writes the chunks of a planned store in any order, from one process or several, and resumes an unfinished one.

    The first process calls `begin` before any process makes a writer. finished: chunk → checksums of its vectors.
    """

    def __init__(self, path: Path, process: int = 0):
        self.path = path
        self.plan, self._text_checksums = _require_plan(path)
        self._read_old()
        self.finished = self._read_progress()
        # An interrupted process may leave half a line: a new file for each start keeps the other lines whole.
        starts = len(list(path.glob(f"progress-{process}-*.jsonl")))
        self._progress = path / f"progress-{process}-{starts}.jsonl"

    @staticmethod
    def begin(path: Path, plan: Plan, text_checksums: list[str], texts: Path | None = None) -> None:
        """Writes the plan of a new store, or of a finished one that grows or is repaired.

        texts: a folder of text chunks that are moved to the store's captions. Raises OSError.
        """
        _remove_progress(path)
        write_json(path / "plan.json", {**dataclasses.asdict(plan), "captions_checksums": text_checksums})
        if texts:
            (path / "captions").mkdir(exist_ok=True)
            for file in texts.glob("*.txt"):
                os.replace(file, path / "captions" / file.name)

    def _read_old(self) -> None:
        """Finds what a store that grows or is repaired has already: the undamaged chunks, and in the one that it grows
        in the vectors of both sides."""
        self._old_chunks: dict[int, dict[str, str]] = {}
        self._grown_chunk, self._old_rows = -1, [np.empty(0)]
        if not Store.exists(self.path):
            return
        old = Store.open(self.path)
        for chunk in range(old.plan.chunks):
            sweep(*(old.array(side).file(chunk).parent for side in SIDES))
            with contextlib.suppress(StoreError):
                vectors = [old.read_chunk(side, chunk) for side in SIDES]
                if old.plan.rows_of(chunk) == self.plan.rows_of(chunk):
                    self._old_chunks[chunk] = {side: old.checksums[side][chunk] for side in SIDES}
                else:
                    self._grown_chunk, self._old_rows = chunk, vectors

    def _read_progress(self) -> dict[int, dict[str, str]]:
        """The finished chunks of all processes; one whose line is damaged is not among them, and is written again."""
        finished = dict(self._old_chunks)
        for path in sorted(self.path.glob("progress-*.jsonl")):
            for _, line in read_json_lines(path, _Progress, StoreError, f"delete {path}: its chunks are made again"):
                if isinstance(line, _Progress) and line.chunk < self.plan.chunks:
                    finished[line.chunk] = {"source": line.source, "target": line.target}
        return finished

    def new_rows(self, chunk: int) -> slice:
        """The rows of a chunk that are to be written: all, except those that a growing store has already."""
        rows = self.plan.rows_of(chunk)
        return slice(rows.start + len(self._old_rows[0]) if chunk == self._grown_chunk else rows.start, rows.stop)

    def texts(self, chunk: int) -> list[str]:
        """The captions of `new_rows(chunk)`. Raises StoreError if they are damaged."""
        texts = self.plan.texts(self.path).read(chunk, self._text_checksums[chunk])
        return texts[self.new_rows(chunk).start - self.plan.rows_of(chunk).start :]

    def write(self, chunk: int, source_NS: Shaped[np.ndarray, "N S"], target_NE: Shaped[np.ndarray, "N E"]) -> None:
        """Writes the vectors of `new_rows(chunk)` and records the chunk as finished, with its checksums.

        Raises StoreError for a vector that the store's dtype cannot represent, and if the chunk cannot be written.
        """
        new = self.new_rows(chunk)
        stored = [self._stored(*side, new.start) for side in zip(SIDES, (source_NS, target_NE), strict=True)]
        if new.start > self.plan.rows_of(chunk).start:
            stored = [np.concatenate(parts) for parts in zip(self._old_rows, stored, strict=True)]
        try:
            checksums = {
                side: self.plan.array(self.path, side).write(chunk, vectors)
                for side, vectors in zip(SIDES, stored, strict=True)
            }
            with open(self._progress, "a", encoding="utf-8") as file:
                file.write(json.dumps({"chunk": chunk, **checksums}) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreError(
                f"{self.path}: chunk {chunk} could not be written: {error.strerror}; free disk space and start "
                "again: finished chunks are kept"
            ) from error
        self.finished[chunk] = checksums

    def _stored(self, side: str, vectors_NE: Shaped[np.ndarray, "N E"], first_row: int) -> np.ndarray:
        stored_NE, is_held_N = cast_vectors(vectors_NE, self.plan.dtype)
        if not is_held_N.all():
            row = int(np.argmin(is_held_N))
            why = cast_problem(vectors_NE[row], self.plan.dtype)
            what, advice = "row", "leave it out"
            if self.plan.captions:
                what, advice = "caption", "check the tower, or pass --config.embed.store_dtype=float32"
            raise StoreError(f"the {side} vector of {what} {first_row + row} {why}; {advice}")
        return stored_NE

    def finish(self) -> None:
        """Turns the finished chunks of all processes into a manifest. Call it in one process, after the others."""
        self.finished = self._read_progress()
        if missing := self.plan.chunks - len(self.finished):
            raise StoreError(f"{self.path}: {missing} of {self.plan.chunks} chunks were not written; run again")
        checksums = {side: [self.finished[chunk][side] for chunk in range(self.plan.chunks)] for side in SIDES}
        store = Store(self.path, self.plan, {**checksums, "captions": self._text_checksums})
        for side in SIDES:
            store.array(side).describe()
        store.write_manifest()
        _remove_progress(self.path)
        (self.path / "plan.json").unlink()


def _remove_progress(path: Path) -> None:
    for file in path.glob("progress-*.jsonl"):
        file.unlink(missing_ok=True)

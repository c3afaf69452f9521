"""Writes an embedding store, by one process at a time; a write killed at any moment can be resumed.

All files are written atomically (`io.atomic`), except `progress-*.jsonl`, whose last line may be cut short.
A store's folder is in one of these states:

    planned      plan.json, no manifest.json: chunks are written in any order, each before its line of progress
    finished     manifest.json, no plan.json
    growing      manifest.json and a plan.json of more rows: what the manifest describes stays as it is
    interrupted  manifest.json and a plan.json of the same: finishing was stopped, or a repair had not started

and otherwise is new. The steps, between any two of which a process may be killed:

    plan    captions; progress of earlier plans removed; plan.json      before the last step nothing is planned
    write   chunk of both sides; line of progress                       a chunk without its line is written again
    finish  manifest.json; progress removed; plan.json removed          after the first step `recover` does the others
    reopen  plan.json; progress of the good chunks; manifest.json       before the last step `recover` undoes the others
            removed

Progress goes before the plan that it belongs to, so that none is ever taken for that of another plan.
"""

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from jaxtyping import Shaped

from c2c_jax.data.chunks import ChunkedArray, stored_as, why_not_stored
from c2c_jax.data.store import (
    SIDES,
    Plan,
    Sha256,
    Store,
    read_captions,
    read_plan,
    text_file,
    write_json,
    write_text_chunk,
)
from c2c_jax.errors import StoreError
from c2c_jax.io.atomic import atomic_write, exclusive_lock
from c2c_jax.io.json import read_json_lines


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Finished:
    """A line of progress: a chunk and the checksums of its vectors."""

    chunk: Annotated[int, msgspec.Meta(ge=0)]
    source: Sha256
    target: Sha256


@contextlib.contextmanager
def store_lock(path: Path) -> Iterator[None]:
    """Locks the store at `path` against other writers, and recovers what a killed one left. Raises StoreError where
    another process writes it. One process holds it for all of its job."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive_lock(path))
        except BlockingIOError:
            raise StoreError(f"another process is writing the store {path}: wait until it is done") from None
        recover(path)
        yield


def recover(path: Path) -> None:
    """Ends what was interrupted in the store at `path`, and removes what belongs to no plan. The caller holds the
    lock."""
    store = Store.open(path) if Store.exists(path) else None
    planned = read_plan(path)
    if store and planned == (store.plan, store.checksums["captions"]):
        forget_plan(path)
        planned = None
    if not planned:
        _remove_progress(path)
    if store and not planned:
        _remove_beyond(path, store.plan)
        if _has_longer_text(store):
            last = store.plan.chunks - 1
            write_text_chunk(path, last, store.read_captions(last))
        for side in SIDES:
            if _has_longer_array(store, side):
                store.array(side).describe()


def tidy(store: Store) -> None:
    """Removes what a killed process left in a finished store, unless it may not be written or somebody writes it."""
    if _has_leftovers(store):
        with contextlib.suppress(StoreError, OSError), store_lock(store.path):
            pass


def _has_leftovers(store: Store) -> bool:
    plan = read_plan(store.path)
    if plan is not None and plan[0] != store.plan:
        return False  # it is growing
    beyond = [text_file(store.path, store.plan.text_chunks), *(store.array(s).file(store.plan.chunks) for s in SIDES)]
    return (
        plan is not None
        or any(store.path.glob("progress-*.jsonl"))
        or any(file.exists() for file in beyond)
        or _has_longer_text(store)
        or any(_has_longer_array(store, side) for side in SIDES)
    )


def forget_plan(path: Path) -> None:
    """Leaves of a finished store that is growing, or was being finished, the finished store."""
    _remove_progress(path)
    (path / "plan.json").unlink(missing_ok=True)


def _remove_progress(path: Path) -> None:
    for file in path.glob("progress-*.jsonl"):
        file.unlink(missing_ok=True)


def _remove_beyond(path: Path, plan: Plan) -> None:
    """Removes chunks of captions and vectors that a plan does not have: of a larger one that came to nothing."""
    for file in (path / "captions").glob("*.txt"):
        if file.stem.isdecimal() and int(file.stem) >= plan.text_chunks:
            file.unlink()
    for side in SIDES:
        for folder in (path / side / "c").glob("*"):
            if folder.name.isdecimal() and int(folder.name) >= plan.chunks:
                shutil.rmtree(folder)


def _has_longer_text(store: Store) -> bool:
    """Whether the last chunk of captions has lines of a growth that came to nothing."""
    if not store.plan.text_chunks:
        return False
    last = store.plan.chunks - 1
    try:
        size = sum(len(text.encode("utf-8")) + 1 for text in store.read_captions(last))
    except StoreError:  # damaged: for a repair
        return False
    return text_file(store.path, last).stat().st_size > size


def _has_longer_array(store: Store, side: str) -> bool:
    """Whether an array is described with rows of a growth that came to nothing."""
    try:
        return store.array(side).check() > store.plan.rows
    except StoreError:  # damaged: for a repair
        return False


class StoreWriter:
    """Writes the chunks of a planned store in any order, from one process or several, and takes up an unfinished one.

    The first process calls `begin` before any process makes a writer. finished: chunk → checksums of its vectors.
    """

    def __init__(self, path: Path, process: int = 0):
        if (planned := read_plan(path)) is None:
            raise StoreError(f"{path} holds no unfinished embedding store (no plan.json)")
        self.path = path
        self.plan, self._text_checksums = planned
        self._grown_from = Store.open(path) if Store.exists(path) else None
        self.arrays: dict[str, ChunkedArray] = {side: self.plan.array(path, side) for side in SIDES}
        if process == 0:
            self._describe_arrays()
        self.finished = self._read_progress()
        # A process killed in the middle of a line leaves half of one: a new file a start keeps every line whole.
        starts = len(list(path.glob(f"progress-{process}-*.jsonl")))
        self._progress = path / f"progress-{process}-{starts}.jsonl"

    @staticmethod
    def begin(path: Path, plan: Plan, text_checksums: list[str]) -> None:
        """Writes the plan of a store whose captions are written."""
        _remove_progress(path)
        _remove_beyond(path, plan)
        write_json(path / "plan.json", {**dataclasses.asdict(plan), "captions_checksums": text_checksums})

    @staticmethod
    def planned(path: Path) -> Plan | None:
        """The plan of an unfinished or growing store at `path`. Raises StoreError where it is damaged."""
        found = read_plan(path)
        return found[0] if found else None

    @staticmethod
    def reopen(store: Store, bad: set[int]) -> None:
        """Makes a finished store an unfinished one in which the chunks in `bad` are still to be written."""
        StoreWriter.begin(store.path, store.plan, store.checksums["captions"])
        good = [chunk for chunk in range(store.plan.chunks) if chunk not in bad]
        with atomic_write(store.path / "progress-repair.jsonl") as temporary:
            lines = (json.dumps({"chunk": c, **{side: store.checksums[side][c] for side in SIDES}}) for c in good)
            temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        (store.path / "manifest.json").unlink()

    def _describe_arrays(self) -> None:
        try:
            for array in self.arrays.values():
                array.describe()
        except OSError as error:
            raise StoreError(
                f"{error.filename} could not be written: {error.strerror}; free disk space and start again"
            ) from error

    def _read_progress(self) -> dict[int, dict[str, str]]:
        """The finished chunks; one whose line is damaged is not among them, and will be written again."""
        finished = {}
        if self._grown_from:
            whole = self._grown_from.plan.rows // self.plan.chunk_rows
            checksums = self._grown_from.checksums
            finished = {chunk: {side: checksums[side][chunk] for side in SIDES} for chunk in range(whole)}
        for path in sorted(self.path.glob("progress-*.jsonl")):
            for _, entry in read_json_lines(path, _Finished, StoreError, f"delete {path}: its chunks are made again"):
                if isinstance(entry, _Finished) and entry.chunk < self.plan.chunks:
                    finished[entry.chunk] = {"source": entry.source, "target": entry.target}
        return finished

    def new_rows(self, chunk: int) -> slice:
        """The rows of a chunk that are to be written: all, but for those of the store that is growing."""
        rows = self.plan.rows_of(chunk)
        return slice(max(rows.start, self._grown_from.plan.rows if self._grown_from else 0), rows.stop)

    def texts(self, chunk: int) -> list[str]:
        """The captions of `new_rows(chunk)`. Raises StoreError where they are damaged."""
        texts = read_captions(self.path, self.plan, chunk, self._text_checksums[chunk])
        return texts[self.new_rows(chunk).start - self.plan.rows_of(chunk).start :]

    def write(self, chunk: int, source_NS: Shaped[np.ndarray, "N S"], target_NE: Shaped[np.ndarray, "N E"]) -> None:
        """Writes the vectors of `new_rows(chunk)` and notes the chunk as finished, with its checksums.

        Raises StoreError for a vector that the store's dtype does not hold, naming its row, and where the disk does
        not take the chunk.
        """
        rows, new = self.plan.rows_of(chunk), self.new_rows(chunk)
        stored = [self._stored(*side, new.start) for side in zip(SIDES, (source_NS, target_NE), strict=True)]
        if new.start > rows.start and self._grown_from:
            kept = [self._grown_from.read_chunk(side, chunk) for side in SIDES]
            stored = [np.concatenate(parts) for parts in zip(kept, stored, strict=True)]
        try:
            checksums = {s: self.arrays[s].write(chunk, vectors) for s, vectors in zip(SIDES, stored, strict=True)}
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
        stored_NE, is_held_N = stored_as(vectors_NE, self.plan.dtype)
        if not is_held_N.all():
            row = int(np.argmin(is_held_N))
            why = why_not_stored(vectors_NE[row], self.plan.dtype)
            advice = (
                "check the tower, or pass --config.embed.store_dtype=float32" if self.plan.captions else "leave it out"
            )
            what = "caption" if self.plan.captions else "row"
            raise StoreError(f"the {side} vector of {what} {first_row + row} {why}; {advice}")
        return stored_NE

    def finish(self) -> None:
        """Turns the finished chunks of all processes into a manifest. Call it in one process, after the others."""
        self.finished = self._read_progress()
        if missing := set(range(self.plan.chunks)) - self.finished.keys():
            raise StoreError(f"{self.path}: {len(missing)} of {self.plan.chunks} chunks were not written; run again")
        checksums = {side: [self.finished[chunk][side] for chunk in range(self.plan.chunks)] for side in SIDES}
        Store(self.path, self.plan, {**checksums, "captions": self._text_checksums}).write_manifest()
        forget_plan(self.path)

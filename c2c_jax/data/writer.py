"""Writes an embedding store. Interrupted writes resume; only one job writes a store at a time.

Files are written atomically (`io.atomic`), except `progress-*.jsonl`, whose last line may be truncated. A store's
folder is new or in one of these states:

    planned      plan.json without manifest.json: chunks are written in any order, each before its line of progress
    finished     manifest.json without plan.json
    growing      manifest.json, and a plan.json with more rows: the rows of the manifest do not change
    repaired     manifest.json, and a plan.json with the same rows: damaged chunks are written again

These are the steps. A process may be killed between any two:

    plan    remove old progress; write plan.json, captions              `restore_captions` writes missing captions
    write   write both sides of a chunk, its line of progress           a chunk without its line is written again
    finish  write zarr.json, manifest.json; remove progress, plan.json  with manifest.json the store is finished

Progress is removed before its plan, so that it cannot be mistaken for progress of another plan.
"""

import contextlib
import dataclasses
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from jaxtyping import Shaped

from c2c_jax.data.chunks import cast_vectors, why_not_castable
from c2c_jax.data.store import SIDES, Plan, Sha256, Store, read_plan, write_json
from c2c_jax.errors import StoreError
from c2c_jax.io.atomic import exclusive_lock, replace, sweep
from c2c_jax.io.json import read_json_lines

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def store_lock(path: Path) -> Iterator[None]:
    """Context manager that locks the store at `path` against other jobs, and makes its folder. Raises StoreError if
    another process is writing it. One process holds the lock for all processes of its job."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive_lock(path))
        except BlockingIOError:
            raise StoreError(f"another process is writing the store {path}: wait until it is done") from None
        yield


def restore_captions(path: Path, texts_of: Callable[[Plan], Iterable[str]]) -> None:
    """Writes the damaged or missing chunks of captions of a planned store.

    texts_of: returns all captions of a plan. Raises StoreError if these have changed, and as `texts_of`.
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
            raise StoreError(f"{path}: captions of chunk {chunk} are lost and their source has changed: embed it again")


def begin_repair(path: Path) -> bool:
    """Makes a plan that repairs the damaged or missing chunks of the finished store at `path`, and logs them in one
    line. Returns whether there are any. The caller holds the lock. Raises OSError."""
    store = Store.open(path)
    if damage := list(store.damage()):
        listed = ", ".join(f"{part} {'zarr.json' if chunk is None else chunk}" for part, chunk, _ in damage[:10])
        more = ", …" if len(damage) > 10 else ""
        logger.warning("%s: rebuilding %s damaged or missing chunks: %s%s", path, f"{len(damage):,}", listed, more)
        StoreWriter.begin(path, store.plan, store.checksums["captions"])
    return bool(damage)


def _require_plan(path: Path) -> tuple[Plan, list[str]]:
    if (planned := read_plan(path)) is None:
        raise StoreError(f"{path} holds no unfinished embedding store (no plan.json)")
    return planned


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Progress:
    """A line of progress: a written chunk and the checksums of its vectors."""

    chunk: Annotated[int, msgspec.Meta(ge=0)]
    source: Sha256
    target: Sha256


class StoreWriter:
    """Writes the chunks of a planned store in any order, from one process or several, and resumes an unfinished one.

    The first process calls `begin` before any process creates a writer. finished: chunk → checksums of its vectors.
    """

    def __init__(self, path: Path, process: int = 0):
        self.path = path
        self.plan, self._text_checksums = _require_plan(path)
        self._read_old()
        self.finished = self._read_progress()
        # An interrupted process may leave an incomplete line, so each start writes a new file.
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
                replace(file, path / "captions" / file.name)

    def _read_old(self) -> None:
        """Reads what a growing or repaired store already has: its undamaged chunks, and the vectors of the chunk that
        grows."""
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
        """Reads the finished chunks of all processes. A chunk whose line is damaged is left out, and written again."""
        finished = dict(self._old_chunks)
        for path in sorted(self.path.glob("progress-*.jsonl")):
            for _, line in read_json_lines(path, _Progress, StoreError, f"delete {path}: its chunks are made again"):
                if isinstance(line, _Progress) and line.chunk < self.plan.chunks:
                    finished[line.chunk] = {"source": line.source, "target": line.target}
        return finished

    def new_rows(self, chunk: int) -> slice:
        """The rows of a chunk to write: all, without those that a growing store already has."""
        rows = self.plan.rows_of(chunk)
        return slice(rows.start + len(self._old_rows[0]) if chunk == self._grown_chunk else rows.start, rows.stop)

    def texts(self, chunk: int) -> list[str]:
        """Reads the captions of `new_rows(chunk)`. Raises StoreError if they are damaged."""
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
            with open(self._progress, "a", encoding="utf-8", newline="\n") as file:
                file.write(json.dumps({"chunk": chunk, **checksums}) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreError(
                f"{self.path}: chunk {chunk} could not be written: {error.strerror}; free disk space and run "
                "again: finished chunks are kept"
            ) from error
        self.finished[chunk] = checksums

    def _stored(self, side: str, vectors_NE: Shaped[np.ndarray, "N E"], first_row: int) -> np.ndarray:
        stored_NE, is_held_N = cast_vectors(vectors_NE, self.plan.dtype)
        if not is_held_N.all():
            row = int(np.argmin(is_held_N))
            why = why_not_castable(vectors_NE[row], self.plan.dtype)
            item, advice = "row", "leave it out"
            if self.plan.captions:
                item, advice = "caption", "check the encoder, or pass --config.embed.store_dtype=float32"
            raise StoreError(f"the {side} vector of {item} {first_row + row} {why}; {advice}")
        return stored_NE

    def finish(self) -> None:
        """Writes the manifest from the finished chunks of all processes. Call it in one process, after the others."""
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

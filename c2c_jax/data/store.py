"""The embedding store: the raw source and target vectors of N captions, and the captions, on disk.

A folder with two zarr arrays `source` and `target` [N, E], chunked by rows and uncompressed, `captions/CHUNK.txt` with
a caption a line, and `manifest.json` with what was embedded by what and a checksum for every chunk. While it is being
written there is `plan.json`, and `progress-*.jsonl` with a line for every finished chunk; a store without a manifest is
unfinished. A manifest beside a plan is a whole store that is growing: what it speaks of stays as it is.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore
from jaxtyping import Float

from c2c_jax.errors import StoreError
from c2c_jax.io.atomic import atomic_write
from c2c_jax.spaces import SpaceId

SIDES = ("source", "target")
DTYPES = ("float16", "float32")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceRecord:
    """What a caption source gave to a store.

    spec, weight, stamp: see `captions.Source`. rows: captions in the store. duplicates: equal to an earlier caption,
    so dropped. left_out: malformed rows by reason.
    """

    spec: str
    weight: float | None
    stamp: str
    rows: int
    duplicates: int
    left_out: dict[str, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What a store holds, known before the first vector is written.

    captions: whether the store has the captions' texts; vectors given as arrays have none. compute: dtype of the
    towers' arithmetic, "given" for arrays. dtype: of the stored vectors.
    """

    source: SpaceId
    target: SpaceId
    sources: tuple[SourceRecord, ...]
    drop_duplicates: bool
    captions: bool
    rows: int
    chunk_rows: int
    compute: str
    dtype: str
    format: int = 2

    @property
    def chunks(self) -> int:
        return -(-self.rows // self.chunk_rows)

    def rows_of(self, chunk: int) -> slice:
        return slice(chunk * self.chunk_rows, min((chunk + 1) * self.chunk_rows, self.rows))

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Plan":
        if fields.get("format") != 2:
            raise KeyError(f"format {fields.get('format')}, expected 2")
        spaces = {side: SpaceId(**fields[side]) for side in SIDES}
        sources = tuple(SourceRecord(**record) for record in fields["sources"])
        return cls(**{**fields, **spaces, "sources": sources})


def open_array(
    path: Path, shape: tuple[int, int], chunk_rows: int, dtype: str, *, create: bool
) -> tensorstore.TensorStore:
    """The array [N, E] in a folder, chunked by rows, uncompressed. create: it is made where there is none, and given
    more rows where it has fewer. Raises StoreError for another array than that."""
    metadata: dict[str, Any] = {
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [chunk_rows, shape[1]]}},
    }
    exists = (path / "zarr.json").is_file()  # its shape may be another while the store grows
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str(path.absolute())},
        "metadata": metadata if exists else {**metadata, "shape": list(shape)},
    }
    try:
        array = tensorstore.open(spec, open=True, create=create and not exists).result()
    except ValueError as error:
        raise StoreError(f"{path} is not the array its manifest speaks of: {cause_of(error)}") from None
    if array.shape[1] != shape[1] or (array.shape[0] < shape[0] and not create):
        raise StoreError(f"{path} is not the array its manifest speaks of: its shape is {array.shape}")
    if array.shape[0] < shape[0]:
        array = array.resize(exclusive_max=list(shape)).result()
    return array


def _open_side(path: Path, side: str, plan: Plan, *, create: bool) -> tensorstore.TensorStore:
    return open_array(path / side, (plan.rows, getattr(plan, side).dim), plan.chunk_rows, plan.dtype, create=create)


def cause_of(error: Exception) -> str:
    """The system's own words within one of tensorstore's long messages, or its first line."""
    found = re.search(r"\[(?:OS )?error \d+: ([^\]]+)\]|(No space left on device|File too large)", str(error))
    return (found[1] or found[2]) if found else str(error).splitlines()[0]


def checksum_of(rows: np.ndarray) -> str:
    """SHA-256 of a chunk's bytes."""
    return hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest()


def text_checksum(texts: Iterable[str]) -> str:
    """SHA-256 of a text chunk's bytes."""
    return hashlib.sha256("".join(f"{text}\n" for text in texts).encode("utf-8")).hexdigest()


def text_file(path: Path, chunk: int) -> Path:
    """Where the captions of a chunk lie, one a line."""
    return path / "captions" / f"{chunk}.txt"


def read_json(path: Path) -> dict[str, Any]:
    """A manifest or plan. Raises StoreError where it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} is damaged ({error}); delete the store {path.parent} to embed again") from None


def write_json(path: Path, fields: dict[str, Any]) -> None:
    """Writes a manifest or plan, whole."""
    with atomic_write(path) as beside:
        beside.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def write_captions(path: Path, texts: Iterable[str], chunk_rows: int, kept: list[str]) -> tuple[int, list[str]]:
    """Writes captions as the text chunks of a store; gives the number of rows and each chunk's checksum.

    kept: checksums of the whole chunks that the store at `path` has already; `texts` go on after them.
    """
    checksums, rows = list(kept), len(kept) * chunk_rows
    block: list[str] = []

    def write() -> None:
        with atomic_write(text_file(path, len(checksums))) as beside:
            beside.write_text("".join(f"{text}\n" for text in block), encoding="utf-8", newline="\n")
        checksums.append(text_checksum(block))
        block.clear()

    for text in texts:
        block.append(text)
        rows += 1
        if len(block) == chunk_rows:
            write()
    if block:
        write()
    return rows, checksums


def read_captions(path: Path, plan: Plan, chunk: int) -> list[str]:
    """The captions of a chunk. Raises StoreError where the file is missing, too short or no UTF-8."""
    rows = plan.rows_of(chunk)
    try:
        texts = text_file(path, chunk).read_bytes().decode("utf-8").split("\n")[: rows.stop - rows.start]
    except (FileNotFoundError, UnicodeDecodeError):
        texts = []
    if len(texts) < rows.stop - rows.start:
        raise StoreError(f"{text_file(path, chunk)} is damaged or missing; mend it with c2c embed --repair {path}")
    return texts


class StoreWriter:
    """Writes the chunks of a store in any order, from one process or several, and takes up an unfinished store.

    The first process calls `begin` before any process makes a writer. finished: chunk → checksums of its vectors.
    """

    def __init__(self, path: Path, process: int = 0):
        self.path = path
        fields = read_json(path / "plan.json")
        self._text_checksums = fields.pop("captions_checksums")
        self.plan = Plan.from_json(fields)
        self._grown_from = Store.open(path) if Store.exists(path) else None
        self.arrays = {side: _open_side(path, side, self.plan, create=True) for side in SIDES}
        self.finished = self._read_progress()
        # A process killed in the middle of a line leaves half of one: a new file a start keeps every line whole.
        starts = len(list(path.glob(f"progress-{process}-*.jsonl")))
        self._progress = path / f"progress-{process}-{starts}.jsonl"

    @staticmethod
    def begin(path: Path, plan: Plan, text_checksums: list[str]) -> None:
        """Lays down the plan of a store whose captions are written."""
        write_json(path / "plan.json", {**dataclasses.asdict(plan), "captions_checksums": text_checksums})

    @staticmethod
    def begun(path: Path) -> Plan | None:
        """The plan of an unfinished or growing store at `path`. Raises StoreError where it is damaged."""
        if not (path / "plan.json").is_file():
            return None
        fields = read_json(path / "plan.json")
        fields.pop("captions_checksums", None)
        try:
            return Plan.from_json(fields)
        except (KeyError, TypeError) as error:
            raise StoreError(f"{path / 'plan.json'} is of another format ({error}); delete {path}") from None

    def _read_progress(self) -> dict[int, dict[str, str]]:
        finished = {}
        if self._grown_from:
            whole = self._grown_from.plan.rows // self.plan.chunk_rows
            checksums = self._grown_from.checksums
            finished = {chunk: {side: checksums[side][chunk] for side in SIDES} for chunk in range(whole)}
        for path in self.path.glob("progress-*.jsonl"):
            for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
                if line.endswith("\n"):
                    entry = json.loads(line)
                    finished[entry.pop("chunk")] = entry
        return finished

    def new_rows(self, chunk: int) -> slice:
        """The rows of a chunk that are to be written: all, but for those of the store that is growing."""
        rows = self.plan.rows_of(chunk)
        return slice(max(rows.start, self._grown_from.plan.rows if self._grown_from else 0), rows.stop)

    def texts(self, chunk: int) -> list[str]:
        """The captions of `new_rows(chunk)`."""
        return read_captions(self.path, self.plan, chunk)[self.new_rows(chunk).start - self.plan.rows_of(chunk).start :]

    def write(self, chunk: int, source_NE: Float[np.ndarray, "N S"], target_NE: Float[np.ndarray, "N E"]) -> None:
        """Writes the vectors of `new_rows(chunk)` and notes the chunk as finished, with its checksums.

        Raises StoreError for a vector that is not finite in the store's dtype, naming its row, and where the disk
        does not take the chunk.
        """
        rows, new = self.plan.rows_of(chunk), self.new_rows(chunk)
        checksums = {}
        try:
            for side, vectors in zip(SIDES, (source_NE, target_NE), strict=True):
                stored = _as_stored(vectors, self.plan.dtype, side, new.start)
                if new.start > rows.start and self._grown_from:
                    kept = self._grown_from.read_chunk(side, rows.start // self.plan.chunk_rows)
                    stored = np.concatenate([kept, stored])
                self.arrays[side][rows].write(stored).result()
                checksums[side] = checksum_of(stored)
            with open(self._progress, "a", encoding="utf-8") as file:
                file.write(json.dumps({"chunk": chunk, **checksums}) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except (ValueError, OSError) as error:  # tensorstore tells of a full disk by a ValueError
            cause = error.strerror if isinstance(error, OSError) else cause_of(error)
            raise StoreError(
                f"{self.path}: chunk {chunk} could not be written: {cause}; make room, then start again: "
                "the pass goes on at the last finished chunk"
            ) from error
        self.finished[chunk] = checksums

    def finish(self) -> None:
        """Turns the finished chunks of all processes into a manifest. Call it in one process, after the others."""
        self.finished = self._read_progress()
        if missing := set(range(self.plan.chunks)) - self.finished.keys():
            raise StoreError(f"{self.path}: {len(missing)} of {self.plan.chunks} chunks were not written; run again")
        checksums = {side: [self.finished[chunk][side] for chunk in range(self.plan.chunks)] for side in SIDES}
        Store(self.path, self.plan, {**checksums, "captions": self._text_checksums}).write_manifest()
        (self.path / "plan.json").unlink()
        for path in self.path.glob("progress-*.jsonl"):
            path.unlink()


def _as_stored(vectors: np.ndarray, dtype: str, side: str, first_row: int) -> np.ndarray:
    with np.errstate(over="ignore"):  # an overflow is found and told in the next lines
        stored = vectors.astype(dtype)
    if not np.isfinite(stored).all():
        row = first_row + int(np.argmin(np.isfinite(stored).all(axis=1)))
        raise StoreError(f"the {side} vector of caption {row} is not finite in {dtype}; check the tower")
    return stored


@dataclasses.dataclass(frozen=True)
class Store:
    """A finished store, open for reading. checksums: "source", "target" and "captions" → one for each chunk."""

    path: Path
    plan: Plan
    checksums: dict[str, list[str]]

    @classmethod
    def exists(cls, path: Path) -> bool:
        return (path / "manifest.json").is_file()

    @classmethod
    def open(cls, path: Path) -> "Store":
        """Raises StoreError where there is no finished store."""
        if not cls.exists(path):
            raise StoreError(f"{path} holds no finished embedding store (no manifest.json)")
        manifest = read_json(path / "manifest.json")
        try:
            checksums = manifest.pop("checksums")
            return cls(path, Plan.from_json(manifest), checksums)
        except (KeyError, TypeError) as error:
            raise StoreError(f"{path / 'manifest.json'} is of another format ({error}); embed again") from None

    def write_manifest(self) -> None:
        write_json(self.path / "manifest.json", {**dataclasses.asdict(self.plan), "checksums": self.checksums})

    def array(self, side: str) -> tensorstore.TensorStore:
        """The "source" or "target" array [N, E] as it lies on disk, unchecked. Raises StoreError where it is not."""
        return _open_side(self.path, side, self.plan, create=False)[: self.plan.rows]

    def read(self, side: str) -> Float[np.ndarray, "N E"]:
        """All rows of "source" or "target" [N, E] in memory, in the store's dtype, checked against the checksums.

        Raises StoreError naming the first chunk that is missing or damaged.
        """
        vectors = np.asarray(self.array(side).read().result())
        for chunk, checksum in enumerate(self.checksums[side]):
            if checksum_of(vectors[self.plan.rows_of(chunk)]) != checksum:
                raise StoreError(self._told(side, chunk))
        return vectors

    def read_chunk(self, side: str, chunk: int) -> Float[np.ndarray, "N E"]:
        """The rows of one chunk, checked. Raises StoreError where it is missing or damaged."""
        vectors = np.asarray(self.array(side)[self.plan.rows_of(chunk)].read().result())
        if checksum_of(vectors) != self.checksums[side][chunk]:
            raise StoreError(self._told(side, chunk))
        return vectors

    def captions(self) -> Iterator[str]:
        """All captions in the order of the rows; none where the store was made of arrays."""
        for chunk in range(self.plan.chunks if self.plan.captions else 0):
            yield from read_captions(self.path, self.plan, chunk)

    def damage(self) -> Iterator[tuple[str, int | None, str]]:
        """(what, chunk, "missing" or "damaged") of each chunk of vectors or captions that is not as its checksum says.

        An array that cannot be opened at all comes once, with no chunk.
        """
        for chunk in range(self.plan.chunks if self.plan.captions else 0):
            try:
                whole = text_checksum(read_captions(self.path, self.plan, chunk)) == self.checksums["captions"][chunk]
            except StoreError:
                whole = False
            if not whole:
                yield "captions", chunk, "damaged" if text_file(self.path, chunk).exists() else "missing"
        for side in SIDES:
            try:
                self.array(side)
            except StoreError:
                yield side, None, "damaged" if (self.path / side / "zarr.json").exists() else "missing"
                continue
            for chunk in range(self.plan.chunks):
                try:
                    self.read_chunk(side, chunk)
                except (StoreError, ValueError):
                    there = (self.path / side / "c" / str(chunk) / "0").exists()
                    yield side, chunk, "damaged" if there else "missing"

    def describe_arrays(self) -> None:
        """Writes anew the zarr.json of an array that cannot be opened; its chunks stay as they are."""
        for side in SIDES:
            try:
                self.array(side)
            except StoreError:
                (self.path / side / "zarr.json").unlink(missing_ok=True)
                _open_side(self.path, side, self.plan, create=True)

    def reopen(self, bad: set[int]) -> None:
        """Makes the store an unfinished one in which the chunks in `bad` are still to be written."""
        StoreWriter.begin(self.path, self.plan, self.checksums["captions"])
        good = [chunk for chunk in range(self.plan.chunks) if chunk not in bad]
        with atomic_write(self.path / "progress-repair.jsonl") as beside:
            lines = (json.dumps({"chunk": chunk, **{s: self.checksums[s][chunk] for s in SIDES}}) for chunk in good)
            beside.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        (self.path / "manifest.json").unlink()

    def _told(self, side: str, chunk: int) -> str:
        return f"{self.path / side}: chunk {chunk} is damaged or missing; mend it with c2c embed --repair {self.path}"

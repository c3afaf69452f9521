"""The embedding store: N captions on disk, with their source and target vectors (not normalised).

It is a folder with two arrays `source` and `target` [N, E], `captions/CHUNK.txt`, and `manifest.json`, which states the
spaces, the caption sources and a checksum for each chunk. A store without a manifest is unfinished; see `writer`.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
from jaxtyping import Float, Int

from c2c_jax.data.chunks import MAX_CHUNK_ROWS, Chunked, ChunkedArray, ChunkedTexts, Dtype
from c2c_jax.errors import StoreError
from c2c_jax.io.atomic import atomic_write, sweep
from c2c_jax.io.files import describe_path, path_exists
from c2c_jax.io.json import MAX_RECORD_BYTES, format_json, read_json_as
from c2c_jax.spaces.space_id import SpaceId

SIDES = ("source", "target")
FORMAT = 2
MAX_ROWS = 2**40

Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_ROWS)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceRecord:
    """What a store contains from one caption source.

    spec, weight, stamp: see `sources.Source`. rows: captions in the store. duplicates: dropped captions that equal an
    earlier one. left_out: skipped rows by reason.
    """

    spec: str
    weight: float | None
    stamp: str
    rows: Count
    duplicates: Count
    left_out: dict[str, Count]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan(Chunked):
    """The contents of a store, fixed before the first vector is written.

    captions: whether the store has texts; stores made from arrays have none. compute: dtype in which the encoders
    compute, "given" for arrays. dtype: of the stored vectors.
    """

    rows: Annotated[int, msgspec.Meta(ge=1, le=MAX_ROWS)]
    chunk_rows: Annotated[int, msgspec.Meta(ge=1, le=MAX_CHUNK_ROWS)]
    source: SpaceId
    target: SpaceId
    sources: tuple[SourceRecord, ...]
    drop_duplicates: bool
    captions: bool
    compute: str
    dtype: Dtype
    format: int = FORMAT

    @property
    def text_chunks(self) -> int:
        """The number of chunks of captions."""
        return self.chunks if self.captions else 0

    def array(self, path: Path, side: str) -> ChunkedArray:
        """The "source" or "target" array of the store at `path`."""
        dim = getattr(self, side).dim
        return ChunkedArray(self.rows, self.chunk_rows, path / side, dim, self.dtype, self.repair_advice(path))

    def texts(self, path: Path) -> ChunkedTexts:
        """The captions of the store at `path`."""
        return ChunkedTexts(self.rows, self.chunk_rows, path / "captions", self.repair_advice(path))

    def repair_advice(self, path: Path) -> str:
        """Advice about a damaged chunk of the store at `path`, for the end of error messages."""
        how = "--config" if self.captions else "--from-arrays"
        return f"to repair it, run c2c embed again with the same {how} and --out {path}"


@dataclasses.dataclass(frozen=True)
class _Checksums:
    checksums: dict[str, list[Sha256]]


@dataclasses.dataclass(frozen=True)
class _TextChecksums:
    captions_checksums: list[Sha256]


@dataclasses.dataclass(frozen=True)
class _Format:
    format: Any = None


def read_record(kind: type[T], path: Path, format: int, advice: str) -> T:
    """Reads a manifest or plan as a dataclass. Raises StoreError, with `advice` at the end of the message, if it is
    damaged or has another format version."""
    version = read_json_as(_Format, path, StoreError, advice, MAX_RECORD_BYTES).format
    if type(version) is not int or version != format:
        raise StoreError(f"{path} is of format {version!r:.20}, expected {format}; {advice}")
    return read_json_as(kind, path, StoreError, advice, MAX_RECORD_BYTES)


def write_json(path: Path, fields: dict[str, Any]) -> None:
    """Writes a manifest or plan atomically. Raises OSError."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(format_json(fields))


def read_plan(path: Path) -> tuple[Plan, list[str]] | None:
    """Reads the plan of an unfinished or growing store at `path` and the checksums of its captions; None if there is
    none. Raises StoreError if it is damaged."""
    file = path / "plan.json"
    if describe_path(file) == "no file":
        return None
    is_finished = path_exists(path / "manifest.json")  # deleting the plan keeps the finished part
    advice = f"delete {file if is_finished else path} to embed the captions again"
    plan = read_record(Plan, file, FORMAT, advice)
    checksums = read_record(_TextChecksums, file, FORMAT, advice).captions_checksums
    if len(checksums) != plan.text_chunks:
        raise StoreError(f"{file} is damaged (expected one checksum per chunk of captions); {advice}")
    return plan, checksums


@dataclasses.dataclass(frozen=True)
class Store:
    """A finished store, open for reading. checksums: "source", "target" and "captions" → checksum of each chunk."""

    path: Path
    plan: Plan
    checksums: dict[str, list[str]]

    @classmethod
    def exists(cls, path: Path) -> bool:
        """Whether there is a finished store at `path`."""
        return path_exists(path / "manifest.json")

    @classmethod
    def open(cls, path: Path) -> "Store":
        """Opens the store at `path`. Raises StoreError if there is no finished store or its manifest is damaged."""
        sweep(path, path / "captions", *(path / side for side in SIDES))
        if not cls.exists(path):
            raise StoreError(f"{path} holds no finished embedding store (no manifest.json): make it with c2c embed")
        file, advice = path / "manifest.json", f"delete {path} to embed the captions again"
        plan = read_record(Plan, file, FORMAT, advice)
        checksums = read_record(_Checksums, file, FORMAT, advice).checksums
        expected = {**dict.fromkeys(SIDES, plan.chunks), "captions": plan.text_chunks}
        if {name: len(of_chunks) for name, of_chunks in checksums.items()} != expected:
            raise StoreError(f"{file} is damaged (expected one checksum per chunk); {advice}")
        return cls(path, plan, checksums)

    def write_manifest(self) -> None:
        """Writes `manifest.json`, which finishes the store. Raises OSError."""
        write_json(self.path / "manifest.json", {**dataclasses.asdict(self.plan), "checksums": self.checksums})

    def array(self, side: str) -> ChunkedArray:
        """The "source" or "target" array [N, E] on disk."""
        return self.plan.array(self.path, side)

    def check_files(self) -> None:
        """Raises StoreError if a chunk of vectors is missing or of another size."""
        for side in SIDES:
            self.array(side).check_files()

    def read(self, side: str) -> Float[np.ndarray, "N E"]:
        """Reads all rows of "source" or "target" [N, E] into memory, in the store's dtype, and checks their checksums.

        Raises StoreError, naming the first chunk that is missing or damaged.
        """
        self.check_files()
        array = self.array(side)
        vectors_NE = np.empty((array.rows, array.dim), array.dtype)
        for chunk in range(array.chunks):
            vectors_NE[array.rows_of(chunk)] = self.read_chunk(side, chunk)
        return vectors_NE

    def read_chunk(self, side: str, chunk: int) -> Float[np.ndarray, "n E"]:
        """Reads and checks the rows of one chunk. Raises StoreError if it is missing or damaged."""
        return self.array(side).read(chunk, self.checksums[side][chunk])

    def read_rows(self, side: str, rows_N: Int[np.ndarray, "N"]) -> Float[np.ndarray, "N E"]:
        """Reads the given rows in order, and checks their chunks. Raises StoreError as `read`."""
        array = self.array(side)
        vectors_NE = np.empty((len(rows_N), array.dim), array.dtype)
        order_N = np.argsort(rows_N, kind="stable")
        chunk_N = rows_N[order_N] // array.chunk_rows
        for positions in np.split(order_N, np.flatnonzero(np.diff(chunk_N)) + 1):
            if len(positions):
                chunk = int(rows_N[positions[0]]) // array.chunk_rows
                vectors_NE[positions] = self.read_chunk(side, chunk)[rows_N[positions] - chunk * array.chunk_rows]
        return vectors_NE

    def read_captions(self, chunk: int) -> list[str]:
        """Reads and checks the captions of one chunk. Raises StoreError if they are missing or damaged."""
        return self.plan.texts(self.path).read(chunk, self.checksums["captions"][chunk])

    def captions(self) -> Iterator[str]:
        """Reads and checks all captions in row order; yields none if the store was made from arrays."""
        for chunk in range(self.plan.text_chunks):
            yield from self.read_captions(chunk)

    def damage(self) -> Iterator[tuple[str, int | None, str]]:
        """Yields the damaged chunks: the part ("captions", "source" or "target"), the chunk, and "missing" or
        "damaged". If an array's zarr.json is wrong, the chunk is None."""
        for part in ("captions", *SIDES):
            files = self.plan.texts(self.path) if part == "captions" else self.array(part)
            if isinstance(files, ChunkedArray) and not files.is_described:
                yield part, None, _damage_kind(files.path / "zarr.json")
            for chunk, checksum in enumerate(self.checksums[part]):
                try:
                    files.read(chunk, checksum)
                except StoreError:
                    yield part, chunk, _damage_kind(files.file(chunk))


def _damage_kind(file: Path) -> str:
    return "missing" if describe_path(file) == "no file" else "damaged"

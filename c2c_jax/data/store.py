"""The embedding store: the raw source and target vectors of N captions, and the captions, on disk.

A folder with two arrays `source` and `target` [N, E] (see `chunks`), `captions/CHUNK.txt` with a caption a line, and
`manifest.json` with what was embedded by what and a checksum for every chunk. A store without a manifest is unfinished;
how one is written and grown is in `writer`.
"""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
from jaxtyping import Float, Int

from c2c_jax.data.chunks import MAX_CHUNK_ROWS, ChunkedArray, Dtype
from c2c_jax.errors import StoreError
from c2c_jax.io.atomic import atomic_write, sweep
from c2c_jax.io.files import found_at, is_there, open_regular
from c2c_jax.io.json import MAX_RECORD_BYTES, read_json_as
from c2c_jax.spaces.space import SpaceId

SIDES = ("source", "target")
FORMAT = 2
MAX_ROWS = 2**40
MAX_DIM = 2**20
MAX_TEXT_BYTES = 2**24  # of a caption

Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_ROWS)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceRecord:
    """What a caption source gave to a store.

    spec, weight, stamp: see `captions.Source`. rows: captions in the store. duplicates: equal to an earlier caption,
    so dropped. left_out: malformed rows by reason.
    """

    spec: str
    weight: float | None
    stamp: str
    rows: Count
    duplicates: Count
    left_out: dict[str, Count]


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
    rows: Annotated[int, msgspec.Meta(ge=1, le=MAX_ROWS)]
    chunk_rows: Annotated[int, msgspec.Meta(ge=1, le=MAX_CHUNK_ROWS)]
    compute: str
    dtype: Dtype
    format: int = FORMAT

    @property
    def chunks(self) -> int:
        return -(-self.rows // self.chunk_rows)

    @property
    def text_chunks(self) -> int:
        return self.chunks if self.captions else 0

    def rows_of(self, chunk: int) -> slice:
        return slice(chunk * self.chunk_rows, min((chunk + 1) * self.chunk_rows, self.rows))

    def array(self, path: Path, side: str) -> ChunkedArray:
        """The "source" or "target" array of the store at `path`."""
        shape, advice = (self.rows, getattr(self, side).dim), f"repair it with c2c embed --repair {path}"
        return ChunkedArray(path / side, shape, self.chunk_rows, self.dtype, advice)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Checksums:
    source: list[Sha256]
    target: list[Sha256]
    captions: list[Sha256]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Manifest(Plan):
    checksums: _Checksums


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Planned(Plan):
    captions_checksums: list[Sha256]


class _Format(msgspec.Struct):
    format: msgspec.Raw = msgspec.Raw(b"null")


def read_record(kind: type[T], path: Path, format: int, advice: str) -> T:
    """A manifest or plan as a dataclass. Raises StoreError, `advice` at its end, where it is damaged or of another
    format."""
    found = read_json_as(_Format, path, StoreError, advice, MAX_RECORD_BYTES).format
    if bytes(found) != str(format).encode():
        raise StoreError(
            f"{path} is of format {bytes(found)[:20].decode(errors='replace')}, expected {format}; {advice}"
        )
    return read_json_as(kind, path, StoreError, advice, MAX_RECORD_BYTES)


def _plan_in(record: Plan, path: Path) -> Plan:
    if max(record.source.dim, record.target.dim) > MAX_DIM or min(record.source.dim, record.target.dim) < 1:
        advice = f"delete {path.parent} to embed the captions again"
        raise StoreError(f"{path} is damaged (widths of vectors are from 1 to {MAX_DIM:,}); {advice}")
    return Plan(**{field.name: getattr(record, field.name) for field in dataclasses.fields(Plan)})


def read_plan(path: Path) -> tuple[Plan, list[str]] | None:
    """The plan of an unfinished or growing store at `path` and its captions' checksums; None where there is no plan.
    Raises StoreError where it is damaged."""
    file = path / "plan.json"
    if found_at(file) == "no file":
        return None
    is_finished = is_there(path / "manifest.json")  # and stays so without the plan of its growing
    advice = f"delete {file if is_finished else path} to embed the captions again"
    record = read_record(_Planned, file, FORMAT, advice)
    plan = _plan_in(record, file)
    if len(record.captions_checksums) != plan.text_chunks:
        raise StoreError(f"{file} is damaged (its checksums are not one for each chunk of captions); {advice}")
    return plan, record.captions_checksums


def write_json(path: Path, fields: dict[str, Any]) -> None:
    """Writes a manifest or plan, whole."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def text_checksum(texts: Iterable[str]) -> str:
    """SHA-256 of a text chunk's bytes."""
    return hashlib.sha256("".join(f"{text}\n" for text in texts).encode("utf-8")).hexdigest()


def text_file(path: Path, chunk: int) -> Path:
    """Where the captions of a chunk lie, one a line."""
    return path / "captions" / f"{chunk}.txt"


def write_captions(path: Path, texts: Iterable[str], chunk_rows: int, kept: list[str]) -> tuple[int, list[str]]:
    """Writes captions as the text chunks of a store; gives the number of rows and each chunk's checksum.

    kept: checksums of the whole chunks that the store at `path` has already; `texts` go on after them.
    """
    checksums, rows = list(kept), len(kept) * chunk_rows
    block: list[str] = []

    def write() -> None:
        write_text_chunk(path, len(checksums), block)
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


def write_text_chunk(path: Path, chunk: int, texts: Iterable[str]) -> None:
    """Writes one text chunk of a store, whole."""
    with atomic_write(text_file(path, chunk)) as temporary:
        temporary.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8", newline="\n")


def read_texts(path: Path, chunk: int, rows: int, checksum: str, advice: str) -> list[str]:
    r"""The first lines of a text chunk, of which the checksum is; only \n ends one. Raises StoreError where the file is
    missing or holds other lines."""
    with open_regular(text_file(path, chunk), f"chunk {chunk} of a store's texts", StoreError, advice) as file:
        lines = list(itertools.islice(iter(lambda: file.readline(MAX_TEXT_BYTES), b""), rows))
    try:
        texts = [line.decode("utf-8").removesuffix("\n") for line in lines]
    except UnicodeDecodeError:
        texts = []
    if text_checksum(texts) != checksum:
        raise StoreError(f"{text_file(path, chunk)} is damaged (its lines are not those of its checksum); {advice}")
    return texts


def read_captions(path: Path, plan: Plan, chunk: int, checksum: str) -> list[str]:
    """The captions of a chunk. Raises StoreError as `read_texts`."""
    rows = plan.rows_of(chunk)
    return read_texts(path, chunk, rows.stop - rows.start, checksum, f"repair it with c2c embed --repair {path}")


@dataclasses.dataclass(frozen=True)
class Store:
    """A finished store, open for reading. checksums: "source", "target" and "captions" → one for each chunk."""

    path: Path
    plan: Plan
    checksums: dict[str, list[str]]

    @classmethod
    def exists(cls, path: Path) -> bool:
        return is_there(path / "manifest.json")

    @classmethod
    def open(cls, path: Path) -> "Store":
        """Raises StoreError where there is no finished store, or its manifest is damaged."""
        sweep(path, path / "captions", *(path / side for side in SIDES))
        if not cls.exists(path):
            raise StoreError(f"{path} holds no finished embedding store (no manifest.json): make it with c2c embed")
        file, advice = path / "manifest.json", f"delete {path} to embed the captions again"
        manifest = read_record(_Manifest, file, FORMAT, advice)
        plan, checksums = _plan_in(manifest, file), dataclasses.asdict(manifest.checksums)
        counts = {**dict.fromkeys(SIDES, plan.chunks), "captions": plan.text_chunks}
        if {name: len(of_chunks) for name, of_chunks in checksums.items()} != counts:
            raise StoreError(f"{file} is damaged (its checksums are not one for each chunk); {advice}")
        return cls(path, plan, checksums)

    def write_manifest(self) -> None:
        write_json(self.path / "manifest.json", {**dataclasses.asdict(self.plan), "checksums": self.checksums})

    def array(self, side: str) -> ChunkedArray:
        """The "source" or "target" array [N, E] as it lies on disk."""
        return self.plan.array(self.path, side)

    def check_files(self) -> None:
        """Raises StoreError where a chunk of vectors is missing or of another size, see `ChunkedArray.check_files`."""
        for side in SIDES:
            self.array(side).check_files()

    def read(self, side: str) -> Float[np.ndarray, "N E"]:
        """All rows of "source" or "target" [N, E] in memory, in the store's dtype, checked against the checksums.

        Raises StoreError naming the first chunk that is missing or damaged.
        """
        array = self.array(side)
        array.check_files()
        vectors_NE = np.empty(array.shape, array.dtype)
        for chunk, checksum in enumerate(self.checksums[side]):
            vectors_NE[array.rows_of(chunk)] = array.read(chunk, checksum)
        return vectors_NE

    def read_chunk(self, side: str, chunk: int) -> Float[np.ndarray, "n E"]:
        """The rows of one chunk, checked. Raises StoreError where it is missing or damaged."""
        array = self.array(side)
        array.check()
        return array.read(chunk, self.checksums[side][chunk])

    def read_rows(self, side: str, rows_N: Int[np.ndarray, "N"]) -> Float[np.ndarray, "N E"]:
        """Some rows, in their order; the chunks that they lie in are checked. Raises StoreError as `read` does."""
        array = self.array(side)
        array.check()
        vectors_NE = np.empty((len(rows_N), array.shape[1]), array.dtype)
        order_N = np.argsort(rows_N, kind="stable")
        chunk_N = rows_N[order_N] // array.chunk_rows
        for places in np.split(order_N, np.flatnonzero(np.diff(chunk_N)) + 1):
            if len(places):
                chunk = int(rows_N[places[0]]) // array.chunk_rows
                rows = array.read(chunk, self.checksums[side][chunk])
                vectors_NE[places] = rows[rows_N[places] - chunk * array.chunk_rows]
        return vectors_NE

    def read_captions(self, chunk: int) -> list[str]:
        """The captions of one chunk, checked. Raises StoreError where they are missing or damaged."""
        return read_captions(self.path, self.plan, chunk, self.checksums["captions"][chunk])

    def captions(self) -> Iterator[str]:
        """All captions in the order of the rows, checked; none where the store was made of arrays."""
        for chunk in range(self.plan.text_chunks):
            yield from self.read_captions(chunk)

    def damage(self) -> Iterator[tuple[str, int | None, str]]:
        """(what, chunk, "missing" or "damaged") of each chunk of vectors or captions that is not as its checksum says.

        An array whose zarr.json is not right comes once, with no chunk.
        """
        for chunk in range(self.plan.text_chunks):
            try:
                self.read_captions(chunk)
            except StoreError:
                yield "captions", chunk, _how(text_file(self.path, chunk))
        for side in SIDES:
            array = self.array(side)
            try:
                array.check()
            except StoreError:
                yield side, None, _how(array.path / "zarr.json")
                continue
            for chunk in range(self.plan.chunks):
                try:
                    array.read(chunk, self.checksums[side][chunk])
                except StoreError:
                    yield side, chunk, _how(array.file(chunk))

    def describe_arrays(self) -> None:
        """Writes anew the zarr.json of an array that it does not describe; its chunks stay as they are."""
        for side in SIDES:
            self.array(side).describe()


def _how(file: Path) -> str:
    return "missing" if found_at(file) == "no file" else "damaged"

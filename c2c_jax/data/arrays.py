"""Makes stores from arrays of paired vectors, in memory or on disk, to train a translator between any two spaces."""

import dataclasses
import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped

from c2c_jax.data.chunks import LENGTHS, Dtype, cast_vectors, why_not_castable
from c2c_jax.data.store import SIDES, Plan, SourceRecord, Store, read_plan
from c2c_jax.data.writer import StoreWriter, begin_repair, store_lock
from c2c_jax.errors import StoreError
from c2c_jax.io.arrays import map_npy
from c2c_jax.spaces.space_id import SpaceId

BLOCK = 65_536  # rows processed at a time
CHUNK_ROWS = 4096


def read_array(path: Path) -> np.ndarray:
    """Memory-maps an .npy file. Raises StoreError if it is missing, damaged, or not an array [N, E] of numbers."""
    array = map_npy(path, StoreError, "pass an .npy file of vectors")
    if array.ndim != 2 or array.dtype.kind not in "fiu" or not array.shape[1]:
        raise StoreError(f"{path} holds {array.dtype} of shape {array.shape}; expected numbers [N, E]")
    return array


def space_of_array(name: str, vectors_NE: Shaped[np.ndarray, "N E"]) -> SpaceId:
    """Identifies a space by its vectors: the fingerprint is the SHA-256 of their shape, dtype and bytes."""
    digest = hashlib.sha256(f"{vectors_NE.shape} {vectors_NE.dtype}".encode())
    for start in range(0, len(vectors_NE), BLOCK):
        digest.update(np.ascontiguousarray(vectors_NE[start : start + BLOCK]).tobytes())
    return SpaceId(name=name, dim=vectors_NE.shape[1], fingerprint=digest.hexdigest())


def store_of_arrays(
    path: Path,
    source_NS: Shaped[np.ndarray, "N S"],
    target_NE: Shaped[np.ndarray, "M E"],
    spaces: tuple[SpaceId, SpaceId],
    *,
    chunk_rows: int = CHUNK_ROWS,
    dtype: Dtype | None = None,
) -> Store:
    """Writes row i of both arrays as row i of a store at `path`. An interrupted write is resumed, and damaged chunks of
    a finished store of the same arrays are written again.

    spaces: source and target. dtype: of the stored vectors; None: float16 if it can represent all of them, else
    float32. Raises StoreError if the arrays differ in length or their widths differ from their spaces, if a vector is
    zero or `dtype` cannot represent it, and if `path` holds another store or another process is writing it.
    """
    stamp = _hash(space.fingerprint for space in spaces)
    plan = _plan((source_NS, target_NE), spaces, chunk_rows, dtype, stamp)
    if _is_finished(path, plan) and not any(Store.open(path).damage()):
        return Store.open(path)
    with store_lock(path):
        if _is_finished(path, plan) and not begin_repair(path):
            return Store.open(path)
        if read_plan(path) is None:
            StoreWriter.begin(path, plan, [])
        writer = StoreWriter(path)
        for chunk in range(plan.chunks):
            if chunk not in writer.finished:
                writer.write(chunk, source_NS[plan.rows_of(chunk)], target_NE[plan.rows_of(chunk)])
        writer.finish()
    return Store.open(path)


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayStore(Store):
    """A store of two arrays [N, S] and [N, E], which are not copied: they stay in memory or in memory-mapped files.

    Chunks are converted to float32 when they are read; if both arrays are float16, they stay float16. Create it with
    `of`.
    """

    arrays: dict[str, Shaped[np.ndarray, "N _"]]

    @classmethod
    def of(
        cls,
        source_NS: Shaped[np.ndarray, "N S"],
        target_NE: Shaped[np.ndarray, "M E"],
        spaces: tuple[SpaceId, SpaceId],
        *,
        hashes: bool = False,
    ) -> "ArrayStore":
        """Makes a store in which row i of both arrays belongs together.

        hashes: whether the plan contains a hash of the arrays, by which a resumed run recognises them. Raises
        StoreError if the arrays differ in length or their widths differ from those of their spaces.
        """
        arrays = source_NS, target_NE
        dtype = "float16" if all(array.dtype == np.float16 for array in arrays) else "float32"
        stamp = _hash(space_of_array("", array).fingerprint for array in arrays) if hashes else ""
        plan = _plan(arrays, spaces, CHUNK_ROWS, dtype, stamp)
        return cls(Path("the arrays"), plan, {}, dict(zip(SIDES, arrays, strict=True)))

    def check_files(self) -> None:
        """Does nothing: there are no files."""

    def read_chunk(self, side: str, chunk: int) -> Float[np.ndarray, "n E"]:
        """Reads and converts the rows of one chunk. Raises StoreError for a vector that is zero or not finite."""
        rows = self.plan.rows_of(chunk)
        with np.errstate(over="ignore"):
            vectors_NE = self.arrays[side][rows].astype(self.plan.dtype)
        lengths_N = np.linalg.norm(vectors_NE.astype(np.float32, copy=False), axis=1)
        is_valid_N = (lengths_N >= LENGTHS[0]) & (lengths_N <= LENGTHS[1])
        if not is_valid_N.all():
            row = rows.start + int(np.argmin(is_valid_N))
            why = why_not_castable(self.arrays[side][row], self.plan.dtype)
            raise StoreError(f"{side} vector {row:,} {why}; leave such rows out of both arrays")
        return vectors_NE


def _plan(
    arrays: tuple[Shaped[np.ndarray, "N S"], Shaped[np.ndarray, "M E"]],
    spaces: tuple[SpaceId, SpaceId],
    chunk_rows: int,
    dtype: Dtype | None,
    stamp: str,
) -> Plan:
    """The plan of a store of arrays. Raises StoreError if the arrays differ in length or their widths differ from those
    of their spaces."""
    rows, other_rows = map(len, arrays)
    if rows != other_rows or not rows:
        raise StoreError(f"{rows} source and {other_rows} target vectors; expected equal numbers above 0")
    for side, vectors, space in zip(SIDES, arrays, spaces, strict=True):
        if vectors.shape[1] != space.dim:
            raise StoreError(f"{side} vectors are {vectors.shape[1]} wide; those of {space.name} are {space.dim}")
    record = SourceRecord(spec="arrays", weight=None, stamp=stamp, rows=rows, duplicates=0, left_out={})
    return Plan(
        source=spaces[0],
        target=spaces[1],
        sources=(record,),
        drop_duplicates=False,
        captions=False,
        rows=rows,
        chunk_rows=min(chunk_rows, rows),
        compute="given",
        dtype=dtype or _dtype_for(*arrays),
    )


def _hash(fingerprints: Iterable[str]) -> str:
    return hashlib.sha256("".join(fingerprints).encode()).hexdigest()


def _is_finished(path: Path, plan: Plan) -> bool:
    """Whether `path` holds a finished store of this plan that is not being repaired. Raises StoreError for another
    plan."""
    planned = read_plan(path)
    existing = planned[0] if planned else Store.open(path).plan if Store.exists(path) else None
    if existing not in (None, plan):
        names = f"{existing.source.name} and {existing.target.name}"
        raise StoreError(
            f"{path} holds a store of {existing.rows:,} {existing.dtype} vectors of {names}; delete it or pass another "
            "--out"
        )
    return existing is not None and planned is None


def _dtype_for(*arrays: Shaped[np.ndarray, "_ _"]) -> Dtype:
    parts = (array[start : start + BLOCK] for array in arrays for start in range(0, len(array), BLOCK))
    return "float16" if all(cast_vectors(part, "float16")[1].all() for part in parts) else "float32"

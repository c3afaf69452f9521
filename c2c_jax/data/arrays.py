"""Makes a store from arrays of paired vectors, to train a translator between any two spaces."""

import hashlib
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from c2c_jax.data.chunks import Dtype, cast_vectors
from c2c_jax.data.store import SIDES, Plan, SourceRecord, Store, read_plan
from c2c_jax.data.writer import StoreWriter, begin_repair, store_lock
from c2c_jax.errors import StoreError
from c2c_jax.io.arrays import map_npy
from c2c_jax.spaces.space_id import SpaceId

BLOCK = 65_536  # rows processed at a time


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
    chunk_rows: int = 4096,
    dtype: Dtype | None = None,
) -> Store:
    """Writes row i of both arrays as row i of a store at `path`. An interrupted write is resumed, and damaged chunks of
    a finished store of the same arrays are written again.

    spaces: source and target. dtype: of the stored vectors; None: float16 if it can represent all of them, else
    float32. Raises StoreError if the arrays differ in length or their widths differ from their spaces, if a vector is
    zero or `dtype` cannot represent it, and if `path` holds another store or another process is writing it.
    """
    if len(source_NS) != len(target_NE) or not len(source_NS):
        raise StoreError(f"{len(source_NS)} source and {len(target_NE)} target vectors; expected equal numbers above 0")
    for side, vectors, space in zip(SIDES, (source_NS, target_NE), spaces, strict=True):
        if vectors.shape[1] != space.dim:
            raise StoreError(f"{side} vectors are {vectors.shape[1]} wide; those of {space.name} are {space.dim}")
    stamp = hashlib.sha256("".join(space.fingerprint for space in spaces).encode()).hexdigest()
    record = SourceRecord(spec="arrays", weight=None, stamp=stamp, rows=len(source_NS), duplicates=0, left_out={})
    plan = Plan(
        source=spaces[0],
        target=spaces[1],
        sources=(record,),
        drop_duplicates=False,
        captions=False,
        rows=len(source_NS),
        chunk_rows=min(chunk_rows, len(source_NS)),
        compute="given",
        dtype=dtype or _dtype_for(source_NS, target_NE),
    )
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

"""A store of a user's own paired vectors, so that a translator can be trained between any two spaces."""

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from c2c_jax.data.chunks import Dtype, stored_as
from c2c_jax.data.store import SIDES, Plan, SourceRecord, Store
from c2c_jax.data.writer import StoreWriter, store_lock, tidy
from c2c_jax.errors import StoreError
from c2c_jax.io.arrays import map_npy
from c2c_jax.spaces.space import SpaceId


def read_array(path: Path) -> np.ndarray:
    """An .npy file as a memory map. Raises StoreError where it is missing, damaged, or no array [N, E] of numbers."""
    array = map_npy(path, StoreError, "give an .npy file of vectors")
    if array.ndim != 2 or array.dtype.kind not in "fiu" or not array.shape[1]:
        raise StoreError(f"{path} holds {array.dtype} of shape {array.shape}; expected numbers [N, E]")
    return array


def space_of_array(name: str, vectors_NE: Shaped[np.ndarray, "N E"], block: int = 65_536) -> SpaceId:
    """A space known by its vectors alone: its fingerprint is the SHA-256 of their shape, dtype and bytes."""
    digest = hashlib.sha256(f"{vectors_NE.shape} {vectors_NE.dtype}".encode())
    for start in range(0, len(vectors_NE), block):
        digest.update(np.ascontiguousarray(vectors_NE[start : start + block]).tobytes())
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
    """Writes row i of both arrays as row i of a store at `path`; a stopped write is taken up.

    spaces: of the source and of the target. dtype: of the stored vectors; None: float16 where it holds all of them to
    its precision, else float32. Raises StoreError for arrays of different lengths or other widths than their spaces',
    for vectors that are zero or that `dtype` does not hold, and where `path` holds another store or another process
    writes it.
    """
    if len(source_NS) != len(target_NE) or not len(source_NS):
        raise StoreError(f"{len(source_NS)} source and {len(target_NE)} target vectors; expected as many, and some")
    for side, vectors, space in zip(SIDES, (source_NS, target_NE), spaces, strict=True):
        if vectors.shape[1] != space.dim:
            raise StoreError(f"{side} vectors are {vectors.shape[1]} wide, those of {space.name} {space.dim}")
    dtype = dtype or _dtype_for((source_NS, target_NE))
    record = SourceRecord(
        spec="arrays",
        weight=None,
        stamp=hashlib.sha256("".join(space.fingerprint for space in spaces).encode()).hexdigest(),
        rows=len(source_NS),
        duplicates=0,
        left_out={},
    )
    plan = Plan(
        source=spaces[0],
        target=spaces[1],
        sources=(record,),
        drop_duplicates=False,
        captions=False,
        rows=len(source_NS),
        chunk_rows=min(chunk_rows, len(source_NS)),
        compute="given",
        dtype=dtype,
    )
    if Store.exists(path):
        tidy(Store.open(path))
    with contextlib.nullcontext() if Store.exists(path) else store_lock(path):
        found = Store.open(path).plan if Store.exists(path) else StoreWriter.planned(path)
        if found and found != plan:
            raise StoreError(f"{path} holds a store of {_vectors_of(found)}; delete it or pass another --out")
        if not Store.exists(path):
            if not found:
                StoreWriter.begin(path, plan, [])
            writer = StoreWriter(path)
            for chunk in range(plan.chunks):
                if chunk not in writer.finished:
                    writer.write(chunk, source_NS[plan.rows_of(chunk)], target_NE[plan.rows_of(chunk)])
            writer.finish()
    return Store.open(path)


def _dtype_for(arrays: Sequence[Shaped[np.ndarray, "_ _"]], block: int = 65_536) -> Dtype:
    for array in arrays:
        for start in range(0, len(array), block):
            if not stored_as(array[start : start + block], "float16")[1].all():
                return "float32"
    return "float16"


def _vectors_of(plan: Plan) -> str:
    return f"{plan.rows:,} {plan.dtype} vectors of {plan.source.name} and {plan.target.name}"

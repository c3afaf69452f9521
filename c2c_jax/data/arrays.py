"""A store of a user's own paired vectors, so that a translator can be trained between any two spaces."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from c2c_jax.data.store import SIDES, Plan, SourceRecord, Store, StoreWriter
from c2c_jax.errors import StoreError
from c2c_jax.spaces import SpaceId


def read_array(path: Path) -> np.ndarray:
    """An .npy file as a memory map. Raises StoreError where it is missing or no array [N, E] of numbers."""
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read {path}: {str(error).splitlines()[0]}; give an .npy file of vectors") from None
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "fiu":
        shape = getattr(array, "shape", None)
        raise StoreError(f"{path} holds {getattr(array, 'dtype', 'no array')} {shape}; expected numbers [N, E]")
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
    dtype: str = "float16",
) -> Store:
    """Writes row i of both arrays as row i of a store at `path`; a stopped write is taken up.

    spaces: of the source and of the target. Raises StoreError for arrays of different lengths or other widths than
    their spaces', for vectors that are not finite in `dtype`, and where `path` holds another store.
    """
    if len(source_NS) != len(target_NE) or not len(source_NS):
        raise StoreError(f"{len(source_NS)} source and {len(target_NE)} target vectors; expected as many, and some")
    for side, vectors, space in zip(SIDES, (source_NS, target_NE), spaces, strict=True):
        if vectors.shape[1] != space.dim:
            raise StoreError(f"{side} vectors are {vectors.shape[1]} wide, those of {space.name} {space.dim}")
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
    found = Store.open(path).plan if Store.exists(path) else StoreWriter.begun(path)
    if found and found != plan:
        raise StoreError(f"{path} holds a store of {_told(found)}; delete it or pass another --out")
    if Store.exists(path):
        return Store.open(path)
    if not found:
        StoreWriter.begin(path, plan, [])
    writer = StoreWriter(path)
    for chunk in range(plan.chunks):
        if chunk not in writer.finished:
            rows = plan.rows_of(chunk)
            writer.write(chunk, *(np.asarray(array[rows], np.float32) for array in (source_NS, target_NE)))
    writer.finish()
    return Store.open(path)


def _told(plan: Plan) -> str:
    named = " and ".join(dataclasses.asdict(plan)[side]["name"] for side in SIDES)
    return f"{plan.rows:,} vectors of {named}"

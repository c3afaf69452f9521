"""An array of vectors on disk, in zarr 3's layout: a file for every chunk of rows, uncompressed, written whole.

The folder holds `zarr.json`, so that zarr and tensorstore can read the array too, and `c/CHUNK/0`, the bytes of each
chunk (the last one padded with zeros). Before a chunk is read, its file is checked to be regular and of the right
size; its checksum, kept in a manifest, is checked when it is read.
"""

import dataclasses
import hashlib
import json
import os
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from jaxtyping import Bool, Float, Shaped

from c2c_jax.errors import StoreError
from c2c_jax.io.atomic import atomic_write, sweep
from c2c_jax.io.files import open_regular
from c2c_jax.io.json import read_json

DTYPES = ("float16", "float32")
Dtype = Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(DTYPES)})$")]
MAX_CHUNK_ROWS = 2**20
MAX_ERROR = 2**-10  # of what storing may change in a vector, relative to its length; float16 rounds to 2^-11
LENGTHS = (1e-15, 1e15)  # of vectors whose squares float32 holds


@dataclasses.dataclass(frozen=True)
class ChunkedArray:
    """An array [N, E] in the folder `path`. advice: what to do where it is damaged, for the end of an error's line."""

    path: Path
    shape: tuple[int, int]
    chunk_rows: int
    dtype: Dtype
    advice: str

    @property
    def chunks(self) -> int:
        return -(-self.shape[0] // self.chunk_rows)

    def rows_of(self, chunk: int) -> slice:
        """The rows of a chunk."""
        return slice(chunk * self.chunk_rows, min((chunk + 1) * self.chunk_rows, self.shape[0]))

    def file(self, chunk: int) -> Path:
        """Where the bytes of a chunk lie."""
        return self.path / "c" / str(chunk) / "0"

    def check(self) -> int:
        """The number of rows that `zarr.json` says the array has, which is greater while a store grows. Raises
        StoreError where it is missing, damaged, or describes another array."""
        found, expected = read_json(self.path / "zarr.json", StoreError, self.advice), self._description
        rows, shape = expected.pop("shape")[0], found.get("shape")
        if not isinstance(shape, list) or shape[1:] != [self.shape[1]] or type(shape[0]) is not int or shape[0] < rows:
            raise StoreError(f"{self.path} has the shape {shape!s:.40}, expected {list(self.shape)}; {self.advice}")
        for name, value in expected.items():
            if found.get(name) != value:
                reason = f"{name} {json.dumps(found.get(name)):.60}, expected {json.dumps(value)}"
                raise StoreError(f"{self.path / 'zarr.json'} describes another array ({reason}); {self.advice}")
        return shape[0]

    def describe(self) -> None:
        """Writes `zarr.json` where it does not describe this very array; the chunks stay as they are."""
        sweep(self.path)
        try:
            is_described = self.check() == self.shape[0]
        except StoreError:
            is_described = False
        if not is_described:
            with atomic_write(self.path / "zarr.json") as temporary:
                temporary.write_text(json.dumps(self._description, sort_keys=True, separators=(",", ":")))

    def write(self, chunk: int, rows: Shaped[np.ndarray, "n E"]) -> str:
        """Writes the rows of a chunk; gives their checksum. Raises OSError."""
        content = np.ascontiguousarray(rows, f"<f{np.dtype(self.dtype).itemsize}").tobytes()
        with atomic_write(self.file(chunk)) as temporary, open(temporary, "wb") as file:
            file.write(content)
            file.write(bytes(self._chunk_bytes - len(content)))
        return hashlib.sha256(content).hexdigest()

    def read(self, chunk: int, checksum: str) -> Float[np.ndarray, "n E"]:
        """The rows of a chunk. Raises StoreError where they are missing, or not those that the checksum is of."""
        rows = self.rows_of(chunk)
        with self._open(chunk) as file:
            content = file.read((rows.stop - rows.start) * self._row_bytes)
        if hashlib.sha256(content).hexdigest() != checksum:
            raise self._damaged(chunk, "checksum mismatch")
        return np.frombuffer(content, f"<f{np.dtype(self.dtype).itemsize}").reshape(-1, self.shape[1])

    def check_files(self) -> None:
        """As `check`, and raises StoreError where the file of a chunk is missing or of another size: asked before any
        memory is taken by the number of rows, which a manifest may say to be any."""
        self.check()
        for chunk in range(self.chunks):
            self._open(chunk).close()

    def _open(self, chunk: int) -> BufferedReader:
        file = open_regular(self.file(chunk), f"chunk {chunk} of an array of vectors", StoreError, self.advice)
        if (size := os.fstat(file.fileno()).st_size) != self._chunk_bytes:
            file.close()
            raise self._damaged(chunk, f"{size:,} bytes, expected {self._chunk_bytes:,}")
        return file

    def _damaged(self, chunk: int, why: str) -> StoreError:
        return StoreError(f"{self.path}: chunk {chunk} is damaged ({why}); {self.advice}")

    @property
    def _row_bytes(self) -> int:
        return self.shape[1] * np.dtype(self.dtype).itemsize

    @property
    def _chunk_bytes(self) -> int:
        return self.chunk_rows * self._row_bytes

    @property
    def _description(self) -> dict[str, Any]:
        grid = {"name": "regular", "configuration": {"chunk_shape": [self.chunk_rows, self.shape[1]]}}
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": self.dtype,
            "chunk_grid": grid,
            "chunk_key_encoding": {"name": "default"},
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
            "fill_value": 0.0,
        }


def stored_as(
    vectors_NE: Shaped[np.ndarray, "N E"], dtype: str
) -> tuple[Float[np.ndarray, "N E"], Bool[np.ndarray, "N"]]:
    """Casts vectors to a dtype. Also returns which of them it can represent: finite, of a length whose square float32
    holds, and changed by at most MAX_ERROR of their length."""
    exact_NE = vectors_NE.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # rows with such values are among those that are not held
        stored_NE = exact_NE.astype(dtype)
        lengths_N, errors_N = (np.linalg.norm(x_NE, axis=1) for x_NE in (exact_NE, exact_NE - stored_NE))
    return stored_NE, (
        np.isfinite(stored_NE).all(axis=1)
        & (lengths_N >= LENGTHS[0])
        & (lengths_N <= LENGTHS[1])
        & (errors_N <= MAX_ERROR * lengths_N)
    )


def why_not_stored(vector_E: Shaped[np.ndarray, "E"], dtype: str) -> str:
    """What is wrong with a vector that `stored_as` says is not held, in words."""
    exact_E = vector_E.astype(np.float64)
    size, length = float(np.abs(exact_E).max()), float(np.linalg.norm(exact_E))
    if not size:
        return "is zero and has no direction"
    if np.isfinite(length) and not LENGTHS[0] <= length <= LENGTHS[1]:
        return f"has a length of {length:.3g}, whose square float32 does not hold: scale the vectors"
    return f"is too small for {dtype} (largest value {size:.3g})" if size < 1 else f"is not finite in {dtype}"

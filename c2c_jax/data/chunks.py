"""Stores vectors and texts on disk, with a file for each chunk of rows.

Arrays have the zarr 3 layout, so zarr and tensorstore can read them too: `c/CHUNK/0` has the uncompressed bytes of a
chunk (the last one padded with zeros), `zarr.json` the metadata. `CHUNK.txt` has one text per line. Files are written
atomically, and checked against the manifest's checksums when they are read.
"""

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from jaxtyping import Bool, Float, Shaped

from c2c_jax.errors import StoreError
from c2c_jax.io.atomic import atomic_write
from c2c_jax.io.files import open_regular

DTYPES = ("float16", "float32")
Dtype = Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(DTYPES)})$")]
MAX_CHUNK_ROWS = 2**20
MAX_TEXT_BYTES = 2**24
MAX_ERROR = 2**-10  # of a stored vector, relative to its length; float16 rounds to 2^-11
LENGTHS = (1e-15, 1e15)  # range in which squared lengths fit float32


@dataclasses.dataclass(frozen=True)
class Chunked:
    """A number of rows, split into chunks of `chunk_rows`."""

    rows: int
    chunk_rows: int

    @property
    def chunks(self) -> int:
        """The number of chunks."""
        return -(-self.rows // self.chunk_rows)

    def rows_of(self, chunk: int) -> slice:
        """The rows of a chunk."""
        return slice(chunk * self.chunk_rows, min((chunk + 1) * self.chunk_rows, self.rows))


@dataclasses.dataclass(frozen=True)
class ChunkedTexts(Chunked):
    """Texts in the folder `path`. advice: what to do about damage, for the end of error messages."""

    path: Path
    advice: str

    def file(self, chunk: int) -> Path:
        """The file of a chunk."""
        return self.path / f"{chunk}.txt"

    def write(self, chunk: int, texts: Sequence[str]) -> str:
        """Writes a chunk. Returns its checksum. Raises OSError."""
        content = "".join(f"{text}\n" for text in texts).encode("utf-8")
        with atomic_write(self.file(chunk)) as temporary:
            temporary.write_bytes(content)
        return hashlib.sha256(content).hexdigest()

    def read(self, chunk: int, checksum: str) -> list[str]:
        r"""Reads the texts of a chunk. Only \n ends a text; in a growing store the file may have more lines.
        Raises StoreError if the file is missing or the checksum is wrong."""
        rows = self.rows_of(chunk)
        with open_regular(self.file(chunk), f"chunk {chunk} of a store's texts", StoreError, self.advice) as file:
            lines = iter(lambda: file.readline(MAX_TEXT_BYTES), b"")
            content = b"".join(itertools.islice(lines, rows.stop - rows.start))
        if hashlib.sha256(content).hexdigest() != checksum:
            raise StoreError(f"{self.file(chunk)} is damaged (checksum mismatch); {self.advice}")
        return content.decode("utf-8").split("\n")[:-1]


def write_texts(path: Path, texts: Iterable[str], chunk_rows: int, kept: Sequence[str] = ()) -> tuple[int, list[str]]:
    """Writes texts in chunks to the folder `path`. Returns the number of rows and each chunk's checksum.

    kept: checksums of complete chunks that precede the texts. Raises OSError.
    """
    stream, checksums, rows = iter(texts), list(kept), len(kept) * chunk_rows
    while block := list(itertools.islice(stream, chunk_rows)):
        rows += len(block)
        checksums.append(ChunkedTexts(rows, chunk_rows, path, "").write(len(checksums), block))
    return rows, checksums


@dataclasses.dataclass(frozen=True)
class ChunkedArray(Chunked):
    """An array [rows, dim] in the folder `path`. advice: what to do about damage, for the end of error messages."""

    path: Path
    dim: int
    dtype: Dtype
    advice: str

    @property
    def is_described(self) -> bool:
        """Whether `zarr.json` describes this array."""
        try:
            return (self.path / "zarr.json").read_bytes() == self._description
        except OSError:
            return False

    def describe(self) -> None:
        """Writes `zarr.json`. Raises OSError."""
        with atomic_write(self.path / "zarr.json") as temporary:
            temporary.write_bytes(self._description)

    def file(self, chunk: int) -> Path:
        """The file of a chunk."""
        return self.path / "c" / str(chunk) / "0"

    def write(self, chunk: int, rows: Shaped[np.ndarray, "n E"]) -> str:
        """Writes the rows of a chunk. Returns their checksum. Raises OSError."""
        content = np.ascontiguousarray(rows, self._stored_dtype).tobytes()
        with atomic_write(self.file(chunk)) as temporary:
            temporary.write_bytes(content + bytes(self._chunk_bytes - len(content)))
        return hashlib.sha256(content).hexdigest()

    def read(self, chunk: int, checksum: str) -> Float[np.ndarray, "n E"]:
        """Reads the rows of a chunk. Raises StoreError if they are missing or the checksum is wrong."""
        rows = self.rows_of(chunk)
        with self._open(chunk) as file:
            content = file.read((rows.stop - rows.start) * self.dim * self._stored_dtype.itemsize)
        if hashlib.sha256(content).hexdigest() != checksum:
            raise self._damaged(chunk, "checksum mismatch")
        return np.frombuffer(content, self._stored_dtype).reshape(-1, self.dim)

    def check_files(self) -> None:
        """Raises StoreError if a chunk's file is missing or has a wrong size. Call it before allocating memory for the
        rows that a manifest states."""
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
    def _stored_dtype(self) -> np.dtype:
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def _chunk_bytes(self) -> int:
        return self.chunk_rows * self.dim * self._stored_dtype.itemsize

    @property
    def _description(self) -> bytes:
        fields = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [self.rows, self.dim],
            "data_type": self.dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [self.chunk_rows, self.dim]}},
            "chunk_key_encoding": {"name": "default"},
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
            "fill_value": 0.0,
        }
        return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def cast_vectors(
    vectors_NE: Shaped[np.ndarray, "N E"], dtype: str
) -> tuple[Float[np.ndarray, "N E"], Bool[np.ndarray, "N"]]:
    """Casts vectors to a dtype. Also returns which of them it can represent: finite, with a length in LENGTHS, and
    changed by at most MAX_ERROR of their length."""
    exact_NE = vectors_NE.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # such rows are reported as not representable
        stored_NE = exact_NE.astype(dtype)
        lengths_N, errors_N = (np.linalg.norm(x_NE, axis=1) for x_NE in (exact_NE, exact_NE - stored_NE))
    has_length_N = (lengths_N >= LENGTHS[0]) & (lengths_N <= LENGTHS[1])
    return stored_NE, np.isfinite(stored_NE).all(axis=1) & has_length_N & (errors_N <= MAX_ERROR * lengths_N)


def why_not_castable(vector_E: Shaped[np.ndarray, "E"], dtype: str) -> str:
    """Says why a dtype cannot represent a vector; see `cast_vectors`."""
    exact_E = vector_E.astype(np.float64)
    size, length = float(np.abs(exact_E).max()), float(np.linalg.norm(exact_E))
    if not size:
        return "is zero and has no direction"
    if np.isfinite(length) and not LENGTHS[0] <= length <= LENGTHS[1]:
        return f"has a length of {length:.3g}, whose square does not fit float32: scale the vectors"
    return f"is too small for {dtype} (largest value {size:.3g})" if size < 1 else f"is not finite in {dtype}"

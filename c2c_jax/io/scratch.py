"""Arrays that may be larger than memory, in temporary files."""

import mmap
import tempfile
from typing import Any

import numpy as np
from jaxtyping import Float

IN_MEMORY = 2**28  # bytes; larger arrays go into a temporary file


def empty_vectors(rows: int, dim: int) -> Float[np.ndarray, "N E"]:
    """An uninitialised float32 array [rows, dim] to be filled; a large one is a `ScratchArray`."""
    if 4 * rows * dim < IN_MEMORY:
        return np.empty((rows, dim), np.float32)
    with tempfile.TemporaryFile() as file:
        return ScratchArray(file, np.float32, "w+", shape=(rows, dim))


class ScratchArray(np.memmap):
    """An array in a file, to be read and written block by block. Each access drops the pages of the one before from
    the process; their content stays in the file. On Windows, which has no such advice, pages stay until memory is
    short."""

    _mmap: mmap.mmap | None  # numpy's; None for arrays computed from this one

    def __getitem__(self, key: Any) -> Any:
        self._drop_pages()
        return super().__getitem__(key)

    def __setitem__(self, key: Any, values: Any) -> None:
        super().__setitem__(key, values)
        self._drop_pages()

    def _drop_pages(self) -> None:
        if self._mmap is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._mmap.madvise(mmap.MADV_DONTNEED)  # loses nothing: the pages are shared with the file

"""Arrays in temporary files, for data that may be larger than memory."""

import mmap
import tempfile
from typing import Any

import numpy as np
from jaxtyping import Float

IN_MEMORY = 2**28  # bytes; larger arrays go into a temporary file


def empty_vectors(rows: int, dim: int) -> Float[np.ndarray, "N E"]:
    """Makes an uninitialised float32 array [rows, dim]; a large one is a `ScratchArray`."""
    if 4 * rows * dim < IN_MEMORY:
        return np.empty((rows, dim), np.float32)
    with tempfile.TemporaryFile() as file:
        return ScratchArray(file, np.float32, "w+", shape=(rows, dim))


class ScratchArray(np.memmap):
    """A memory-mapped array that is read and written block by block with little memory.

    Each access drops the pages of the previous access from the process; their content stays in the file. Windows has no
    such call, so there pages stay until memory is short.
    """

    _mmap: mmap.mmap | None  # set by numpy; None for arrays computed from this one

    def __getitem__(self, key: Any) -> Any:
        self._drop_pages()
        return super().__getitem__(key)

    def __setitem__(self, key: Any, values: Any) -> None:
        super().__setitem__(key, values)
        self._drop_pages()

    def _drop_pages(self) -> None:
        if self._mmap is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._mmap.madvise(mmap.MADV_DONTNEED)  # loses nothing: the pages are shared with the file

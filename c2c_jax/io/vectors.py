"""Reads CLIP and CLAP vectors from .npy files and from arrays of other libraries, and normalises vectors."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from c2c_jax.errors import AudioError, ImageError, VectorError, one_line
from c2c_jax.io.arrays import map_npy
from c2c_jax.io.files import user_path

ROWS_AT_ONCE = 2**14


def read_vectors(path: Path, dim: int | None, error: type[ImageError] | type[AudioError]) -> Float[np.ndarray, "N D"]:
    """Reads raw vectors [N, D] from an .npy file, memory-mapped if they are floats; a single vector [D] becomes [1, D].

    dim: the required width D; None allows any. Raises `error` for a file of another kind or width, and for a vector
    that is zero or not finite in float32.
    """
    expected = f"[N, {dim or 'D'}]"
    array = map_npy(path, error, f"pass an .npy file of raw vectors {expected}")
    array_ND = array[None] if array.ndim == 1 else array
    has_shape = array_ND.ndim == 2 and array_ND.size and array_ND.shape[1] == (dim or array_ND.shape[1])
    if not has_shape or array.dtype.kind not in "fiu":
        raise error(f"{path} holds {array.dtype} of shape {array.shape}; expected raw vectors {expected}")
    for start in range(0, len(array_ND), ROWS_AT_ONCE):
        with np.errstate(over="ignore"):
            part_ND = array_ND[start : start + ROWS_AT_ONCE].astype(np.float32)
        is_valid_N = np.isfinite(part_ND).all(axis=1) & part_ND.any(axis=1)
        if not is_valid_N.all():
            raise error(
                f"{path}: row {start + int(np.argmin(is_valid_N)):,} is zero or not finite; leave such rows out"
            )
    return array_ND if array.dtype.kind == "f" else array_ND.astype(np.float32)


def as_vectors(vectors: Any, name: str, dim: int | None = None) -> Shaped[np.ndarray, "N D"]:
    """Returns vectors [N, D] as a numpy array, without a copy where possible.

    vectors: an array of numpy (also memory-mapped), JAX or torch, of any float or integer type, or the path of an .npy
    file. name: the array's name in messages. dim: the required width D; None: any. Raises VectorError for another shape
    or type, and for a file that cannot be read.
    """
    expected = f"{name} must be an array [N, {dim or 'D'}] of vectors"
    if isinstance(vectors, str | Path):
        vectors = map_npy(user_path(str(vectors)), VectorError, f"{expected}, or the path of an .npy file")
    if hasattr(vectors, "detach"):  # a torch tensor
        vectors = vectors.detach().cpu()
        vectors = (vectors.float() if str(vectors.dtype) == "torch.bfloat16" else vectors).numpy()
    try:
        array = np.asarray(vectors)
    except (TypeError, ValueError) as error:
        raise VectorError(f"{expected}, found a {type(vectors).__name__} ({one_line(error)})") from None
    if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
        raise VectorError(f"{expected}, found {type(vectors).__name__} of {array.dtype}")
    if array.ndim != 2 or not array.shape[1] or (dim and array.shape[1] != dim):
        advice = "; for one vector, pass vector[None]" if array.ndim == 1 else ""
        raise VectorError(f"{expected}, found shape {array.shape}{advice}")
    return array


def require_directions(vectors_ND: Float[np.ndarray, "N D"], name: str, first: int = 0) -> None:
    """Raises VectorError for a vector that is zero or not finite. first: number of the first row, for the message."""
    is_valid_N = np.isfinite(vectors_ND).all(axis=1) & vectors_ND.any(axis=1)
    if not is_valid_N.all():
        row = first + int(np.argmin(is_valid_N))
        raise VectorError(f"{name}: row {row:,} is zero or not finite; leave such rows out")


def unit_rows(x_NE: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "N E"]:
    """L2-normalises each row in float64; a zero row stays zero."""
    x_NE = np.asarray(x_NE, np.float64)
    return x_NE / np.maximum(np.linalg.norm(x_NE, axis=1, keepdims=True), 1e-12)

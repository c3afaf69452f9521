"""Reads weights from safetensors files, and the shapes of tensors in safetensors and torch files."""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  # teaches numpy bfloat16
import numpy as np
import safetensors

from c2c_jax.errors import CheckpointError, one_line
from c2c_jax.io.files import open_regular
from c2c_jax.io.torch_files import open_torch
from c2c_jax.io.weight_files import HEAD, check_names, damaged, fetch_advice, is_safetensors, not_weights, truncated

DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")  # safetensors' names


def read_safetensors(path: Path, skip: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Reads all tensors of a safetensors file by name; bfloat16 becomes float32, other dtypes stay.

    skip: name patterns of tensors that are not needed; they are returned as empty arrays.
    Raises CheckpointError for a file that is missing, truncated or of another format, and for unsupported dtypes, such
    as those of quantised checkpoints.
    """
    tensors = {}
    with _safetensors(path) as file:
        for name in file.keys():
            if any(re.fullmatch(pattern, name) for pattern in skip):
                tensors[name] = np.empty(0)
                continue
            if (dtype := file.get_slice(name).get_dtype()) not in DTYPES:
                expected = ", ".join(DTYPES[:4])
                raise CheckpointError(
                    f"{path}: tensor {name} is {dtype}; expected {expected}: save the model in one of these"
                )
            tensor = file.get_tensor(name)
            tensors[name] = tensor.astype(np.float32) if dtype == "BF16" else tensor
    return tensors


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Reads the names and shapes of a file's tensors, without their values. Raises as `read_safetensors` and
    `open_torch`."""
    if path.suffix == ".safetensors":
        with _safetensors(path) as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    return {name: tensor.shape for name, tensor in open_torch(path).items()}


@contextlib.contextmanager
def _safetensors(path: Path) -> Iterator[Any]:
    """Context manager that opens a safetensors file and reads only its header. Raises as `read_safetensors`."""
    with open_regular(path, "a safetensors file", CheckpointError, fetch_advice(path)) as regular:
        size, head = os.fstat(regular.fileno()).st_size, regular.read(HEAD)
    if not is_safetensors(head):
        raise not_weights(path, head, "safetensors")
    try:
        with safetensors.safe_open(path, "np") as file:
            check_names(path, file.keys())
            yield file
    except (safetensors.SafetensorError, OSError, ValueError, TypeError) as error:
        if "incomplete" in str(error) or "invalid header length" in str(error):
            raise truncated(path, size) from None
        raise damaged(path, f"is not a whole safetensors file ({one_line(error)})") from None

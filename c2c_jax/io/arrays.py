"""The one reader of numpy's files: headers first, so that a small file cannot ask for much memory."""

import math
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from c2c_jax.errors import C2CError, one_line
from c2c_jax.io.files import open_regular, stand_in

HEAD = 256  # bytes that tell what a file is


def map_npy(path: Path, error: type[C2CError], advice: str) -> np.ndarray:
    """The array of an .npy file as a read-only memory map. Raises `error`, `advice` at the end of its line, for a file
    that is missing, damaged, cut short, or holds Python objects."""
    with open_regular(path, "an .npy file", error, advice) as file:
        head = file.read(HEAD)
    if head.startswith(b"PK"):
        raise error(f"{path} is an archive of arrays, not one array; {advice}")
    if not head.startswith(b"\x93NUMPY"):
        raise error(f"{path} {stand_in(head) or 'is not an .npy file'}; {advice}")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as cause:  # over damaged bytes numpy raises errors of nearly every class
        raise error(f"{path} cannot be read as an .npy file ({_why(cause)}); {advice}") from None


def read_npz(
    path: Path, names: Collection[str], max_bytes: int, error: type[C2CError], advice: str
) -> dict[str, np.ndarray]:
    """Those of the named arrays that an .npz file has, `max_bytes` in memory together at most. Raises as `map_npy`."""
    arrays: dict[str, np.ndarray] = {}
    left = max_bytes
    with open_regular(path, "an .npz file", error, advice) as file:
        if not (head := file.read(HEAD)).startswith(b"PK"):
            raise error(f"{path} {stand_in(head) or 'is not an .npz file'}; {advice}")
        try:
            with zipfile.ZipFile(file) as archive:
                there = {info.filename: info for info in archive.infolist()}
                for name in names:
                    if (info := there.get(f"{name}.npy")) is None:
                        continue
                    if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                        raise ValueError(f"{name} is encrypted, or compressed in another way than numpy does")
                    with archive.open(info) as member:
                        size = _declared_bytes(member)
                    if size > info.file_size:
                        raise ValueError(f"{name} is cut short")
                    if (left := left - size) < 0:
                        raise ValueError(f"its arrays take more than {max_bytes:,} bytes")
                    with archive.open(info) as member:
                        arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
        except Exception as cause:  # and zipfile too
            raise error(f"{path} cannot be read as an .npz file ({_why(cause)}); {advice}") from None
    return arrays


def _why(cause: Exception) -> str:
    """Without numpy's advice to load Python objects all the same."""
    return "it holds Python objects, which are not loaded" if "allow_pickle" in str(cause) else one_line(cause)


def _declared_bytes(file: Any) -> int:
    """The size in memory of an array, by its header."""
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    return math.prod(shape) * dtype.itemsize

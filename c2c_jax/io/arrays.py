"""Reads .npy and .npz files. Headers are checked first, so that a small file cannot allocate much memory."""

import math
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from c2c_jax.errors import C2CError, one_line
from c2c_jax.io.files import describe_placeholder, open_regular

HEAD = 256  # bytes that identify a file


def map_npy(path: Path, error: type[C2CError], advice: str) -> np.ndarray:
    """Opens an .npy file as a read-only memory map. Raises `error`, with `advice` at the end of the message, for a file
    that is missing, damaged, truncated, or contains Python objects."""
    with open_regular(path, "an .npy file", error, advice) as file:
        head = file.read(HEAD)
    if head.startswith(b"PK"):
        raise error(f"{path} is an archive of arrays, not one array; {advice}")
    if not head.startswith(b"\x93NUMPY"):
        raise error(f"{path} {describe_placeholder(head) or 'is not an .npy file'}; {advice}")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as cause:  # for damaged files numpy raises errors of nearly every class
        raise error(f"{path} cannot be read as an .npy file ({_cause(cause)}); {advice}") from None


def read_npz(
    path: Path, names: Collection[str], max_bytes: int, error: type[C2CError], advice: str
) -> dict[str, np.ndarray]:
    """Reads the named arrays that an .npz file has. Raises `error` if they take more than `max_bytes` in memory, and as
    `map_npy`."""
    arrays: dict[str, np.ndarray] = {}
    remaining = max_bytes
    with open_regular(path, "an .npz file", error, advice) as file:
        if not (head := file.read(HEAD)).startswith(b"PK"):
            raise error(f"{path} {describe_placeholder(head) or 'is not an .npz file'}; {advice}")
        try:
            with zipfile.ZipFile(file) as archive:
                members = {info.filename: info for info in archive.infolist()}
                for name in names:
                    if (info := members.get(f"{name}.npy")) is None:
                        continue
                    if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                        raise ValueError(f"{name} is encrypted, or compressed in another way than numpy does")
                    with archive.open(info) as member:
                        size = _declared_bytes(member)
                    if size > info.file_size:
                        raise ValueError(f"{name} is cut short")
                    if (remaining := remaining - size) < 0:
                        raise ValueError(f"its arrays take more than {max_bytes:,} bytes")
                    with archive.open(info) as member:
                        arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
        except Exception as cause:  # see `map_npy`; zipfile does the same
            raise error(f"{path} cannot be read as an .npz file ({_cause(cause)}); {advice}") from None
    return arrays


def _cause(cause: Exception) -> str:
    """The cause in one line, without numpy's advice to load Python objects."""
    return "it holds Python objects, which are not loaded" if "allow_pickle" in str(cause) else one_line(cause)


def _declared_bytes(file: Any) -> int:
    """The size in memory that an array's header states."""
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    return math.prod(shape) * dtype.itemsize

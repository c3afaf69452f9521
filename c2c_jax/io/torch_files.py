"""Reads weights from torch files (.bin, .pt, .pth, .ckpt) without torch, and without running code in them.

`torch_pickle` reads what a file says about its tensors. This module finds their bytes, which stay on disk until they
are read, and checks all sizes before memory is allocated.
"""

import dataclasses
import functools
import io
import math
import mmap
import os
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from c2c_jax.errors import CheckpointError, one_line
from c2c_jax.io.files import open_regular
from c2c_jax.io.text import printable
from c2c_jax.io.torch_pickle import MalformedError, PickleSource, Tensor, unpickle
from c2c_jax.io.weight_files import (
    HEAD,
    MAX_NAME,
    check_names,
    damaged,
    fetch_advice,
    is_safetensors,
    not_weights,
    truncated,
)

MAX_PICKLE = 2**22  # bytes of pickles, without the tensors' data; published files take up to 2**19
MAX_SIZE_RATIO = 4  # size of all tensors over the size of the file; some tensors have two names
MAX_ELEMENTS = 2**60  # of an empty tensor, not counting its axes of length 0
MAGIC_NUMBER, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # at the start of files of torch before 1.6


@dataclasses.dataclass(slots=True, eq=False)
class _Bytes:
    """Bytes of a memory-mapped file. checksum: their CRC-32 until they are read for the first time, then 0; also 0 if
    the file has none."""

    path: Path
    content: memoryview
    checksum: int = 0

    def read(self) -> memoryview:
        if self.checksum and zlib.crc32(self.content) != self.checksum:
            raise damaged(self.path, "is damaged: its data does not match its checksums")
        self.checksum = 0
        return self.content


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """A tensor in a torch file. Its values stay on disk until `read`.

    shape: its sizes. dtype: of the values in the file.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    _bytes: _Bytes
    _offset: int  # in bytes, like the strides
    _strides: tuple[int, ...]
    _is_swapped: bool  # in another byte order than this machine's

    def read(self) -> np.ndarray:
        """Copies the values to memory; floats become float32. Raises CheckpointError if the file has a checksum and the
        data does not match it."""
        values: np.ndarray = np.ndarray(self.shape, self.dtype, self._bytes.read(), self._offset, self._strides)
        if self._is_swapped:
            values = values.view(f"u{self.dtype.itemsize}").byteswap().view(self.dtype)
        with np.errstate(over="ignore", invalid="ignore"):  # float64 beyond float32 becomes infinite, as in torch
            return values.astype(values.dtype if values.dtype.kind in "iub" else np.float32, order="C")


def read_torch(path: Path, skip: Sequence[str] = (), wrapper: str | None = None) -> dict[str, np.ndarray]:
    """Reads all tensors of a torch file by name; floats become float32, other dtypes stay.

    skip: name patterns of tensors that are not needed; they are returned as empty arrays. wrapper: see `open_torch`,
    which also lists the errors.
    """
    return {
        name: np.empty(0) if any(re.fullmatch(pattern, name) for pattern in skip) else tensor.read()
        for name, tensor in open_torch(path, wrapper).items()
    }


def open_torch(path: Path, wrapper: str | None = None) -> dict[str, StoredTensor]:
    """Opens a state dict that torch.save wrote, without reading its values.

    No code in the file is run, and no class or function that it names is imported. wrapper: the key of the state dict
    inside the file, if it has one.
    Raises CheckpointError for a file that is missing, truncated, or contains anything but plain tensors.
    """
    with open_regular(path, "a torch file", CheckpointError, fetch_advice(path)) as file:
        size, head = os.fstat(file.fileno()).st_size, file.read(HEAD)
        is_archive = head[:2] == b"PK"
        if not is_archive and (head[:1] != b"\x80" or is_safetensors(head)):
            raise not_weights(path, head, "torch")
        try:
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError) as error:
            raise damaged(path, f"cannot be read ({one_line(error)})") from None
        try:
            opened = _open_archive(path, file, mapped) if is_archive else _open_old(path, mapped)
        except MalformedError as error:
            raise CheckpointError(
                f"{path} is not a checkpoint of plain tensors ({error}; no code in it was run); {fetch_advice(path)}, "
                "or save only its state_dict() with torch.save"
            ) from None
    state_dict = _state_dict(path, opened.content, wrapper, size)
    return {name: _locate(path, name, tensor, opened) for name, tensor in state_dict.items()}


class _Opened(NamedTuple):
    """An open file. content: of its pickle. bytes_of: the bytes of a storage by key. is_swapped: whether they are in
    another byte order than this machine's."""

    content: Any
    bytes_of: Callable[[str], _Bytes]
    is_swapped: bool


def _open_archive(path: Path, file: io.BufferedReader, mapped: memoryview) -> _Opened:
    """Opens the zip archives of torch 1.6 and later, in which each storage is a record."""
    try:
        if not zipfile.is_zipfile(file):
            raise truncated(path, len(mapped))
        records = zipfile.ZipFile(file).infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, OSError) as error:
        raise damaged(path, f"is a damaged archive ({one_line(error)})") from None
    folder = records[0].filename.partition("/")[0] if records else ""
    names = {record.filename.removeprefix(f"{folder}/"): record for record in records}
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        raise CheckpointError(
            f"{path} is a TorchScript archive, which contains code; expected weights alone: pass the Hugging Face "
            "folder of this model, e.g. `hf download openai/clip-vit-base-patch32 --local-dir FOLDER` for OpenAI's CLIP"
        )
    if any(record.compress_type for record in records):  # then the bytes in the file are not those of the numbers
        raise CheckpointError(
            f"{path} is a compressed archive, which torch does not write; unpack it if it holds a checkpoint, or "
            f"{fetch_advice(path)}"
        )

    def bytes_of(name: str) -> _Bytes:
        if (record := names.get(name)) is None:
            raise damaged(path, f"is an archive without {printable(name[:MAX_NAME])}")
        start = max(record.header_offset, 0)
        header = bytes(mapped[start : start + 30])  # 30 bytes, a name and other fields come before the data
        if len(header) == 30:
            start += 30 + sum(struct.unpack_from("<HH", header, 26))
        if header[:4] != b"PK\x03\x04" or start + record.file_size > len(mapped):
            raise damaged(path, f"is an archive with a damaged record {printable(name[:MAX_NAME])}")
        return _Bytes(path, mapped[start : start + record.file_size], record.CRC)

    pickled = bytes_of("data.pkl")
    if len(pickled.content) > MAX_PICKLE:
        raise damaged(path, f"has a pickle of more than {MAX_PICKLE:,} bytes")
    order = bytes(bytes_of("byteorder").read()) if "byteorder" in names else b"little"
    if order not in (b"little", b"big"):
        raise damaged(path, "has an unknown byte order")
    try:
        content, _ = unpickle(PickleSource(pickled.read()))
    except EOFError:
        raise damaged(path, "has a pickle that ends too early") from None
    storage_bytes = functools.cache(lambda key: bytes_of(f"data/{key}"))
    return _Opened(content, storage_bytes, order.decode() != sys.byteorder)


def _open_old(path: Path, mapped: memoryview) -> _Opened:
    """Opens the files of torch before 1.6: five pickles, then each storage after its number of elements."""
    source = PickleSource(mapped[:MAX_PICKLE])
    try:
        (magic, _), (protocol, _), _ = unpickle(source), unpickle(source), unpickle(source)
        if magic != MAGIC_NUMBER or protocol != PROTOCOL:
            raise MalformedError("it is a pickle that torch.save did not write")
        content, storages = unpickle(source)
        keys, _ = unpickle(source)
    except EOFError:
        if len(mapped) > MAX_PICKLE:
            raise damaged(path, f"has a pickle of more than {MAX_PICKLE:,} bytes") from None
        raise truncated(path, len(mapped)) from None
    position, found = source.tell(), {}
    if type(keys) is not list or any(type(key) is not str or key not in storages for key in keys):
        raise MalformedError("its list of storages is damaged")
    for key in keys:
        storage = storages[key]
        start, size = position + 8, storage.size * storage.dtype.itemsize
        position = start + size
        if position > len(mapped):
            raise truncated(path, len(mapped))
        if struct.unpack_from("<q", mapped, start - 8) != (storage.size,):
            raise damaged(path, "has a storage whose size differs from the stated one")
        found[key] = _Bytes(path, mapped[start:position])

    def storage_bytes(key: str) -> _Bytes:
        if key not in found:
            raise damaged(path, "lacks the values of some tensors")
        return found[key]

    return _Opened(content, storage_bytes, sys.byteorder != "little")


def _state_dict(path: Path, content: Any, wrapper: str | None, file_size: int) -> dict[str, Tensor]:
    """Checks that the content of a pickle is a state dict of plain tensors, and returns it. file_size: in bytes."""
    if wrapper is not None and isinstance(content, dict):
        content = content.get(wrapper, content)
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a state dict; save model.state_dict()")
    others = [str(name) for name, value in content.items() if not (isinstance(name, str) and _is_plain(value))]
    if others:
        names = printable(", ".join(name[:MAX_NAME] for name in others[:4]))
        raise CheckpointError(f"{path} holds more than plain tensors by name ({names}); save model.state_dict() alone")
    check_names(path, content)
    total = sum(_byte_size(tensor) for tensor in content.values())
    if total > MAX_SIZE_RATIO * file_size:
        raise damaged(path, f"of {file_size:,} bytes holds tensors of {total:,}")
    return content


def _is_plain(value: object) -> bool:
    """Whether a value is a tensor of a supported dtype whose storage has room for all its elements. (A tensor expanded
    from one number could have any size.)"""
    return (
        isinstance(value, Tensor)
        and value.dtype.kind != "c"
        and _byte_size(value) <= value.storage.size * value.storage.dtype.itemsize
    )


def _byte_size(tensor: Tensor) -> int:
    return math.prod(tensor.shape) * tensor.dtype.itemsize


def _locate(path: Path, name: str, tensor: Tensor, file: _Opened) -> StoredTensor:
    """Finds a tensor's bytes. Raises CheckpointError if one of its elements is outside of its storage."""
    item, storage, content = tensor.dtype.itemsize, tensor.storage, file.bytes_of(tensor.storage.key)
    start, end = (position * storage.dtype.itemsize for position in (storage.start, storage.start + storage.size))
    # An axis of length 1 may have any stride, and an empty tensor any offset.
    strides = tuple(stride * item if n > 1 else 0 for stride, n in zip(tensor.strides, tensor.shape, strict=True))
    if 0 in tensor.shape:
        first = last = 0
    else:
        first = start + tensor.offset * item
        last = first + item + sum(stride * (n - 1) for stride, n in zip(strides, tensor.shape, strict=True))
    if last > end or end > len(content.content) or math.prod(n or 1 for n in tensor.shape) > MAX_ELEMENTS:
        raise damaged(path, f"has a tensor {printable(name)} that extends beyond its data")
    return StoredTensor(tensor.shape, tensor.dtype, content, first, strides, file.is_swapped)

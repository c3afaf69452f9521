"""Reads weights from safetensors files and from torch files (.bin, .pt, .ckpt) without running code in them."""

import contextlib
import io
import os
import re
import threading
import warnings
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes  # noqa: F401  # teaches numpy bfloat16
import numpy as np
import safetensors

from c2c_jax.errors import CheckpointError, one_line
from c2c_jax.io.console import printable
from c2c_jax.io.files import describe_placeholder, open_regular

if TYPE_CHECKING:  # imported only when a torch file is read
    import torch

MAX_TENSORS = 2**14  # in a file; AudioLDM's largest has about 3,000
MAX_NAME = 512  # characters
MAX_PICKLE = 2**22  # bytes or steps of a pickle without the tensors' data; published files take up to 2**19
MAX_SIZE_RATIO = 4  # size of all tensors over the size of the file; some tensors have two names
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")  # safetensors' names
TORCH_DTYPES = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool".split()  # torch's
_TORCH_LOCK = threading.Lock()  # torch's list of safe classes is global
_HEAD = 512  # bytes that identify a file


def fetch_advice(path: Path) -> str:
    """Advice for error messages about a damaged checkpoint file."""
    return f"fetch it again, e.g. with `hf download OWNER/NAME {path.name} --local-dir {path.parent}`"


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


@contextlib.contextmanager
def _safetensors(path: Path) -> Iterator[Any]:
    """Context manager that opens a safetensors file and reads only its header. Raises as `read_safetensors`."""
    with open_regular(path, "a safetensors file", CheckpointError, fetch_advice(path)) as regular:
        size, head = os.fstat(regular.fileno()).st_size, regular.read(_HEAD)
    if not _is_safetensors(head):
        raise _not_weights(path, head, "safetensors")
    try:
        with safetensors.safe_open(path, "np") as file:
            _check_names(path, file.keys())
            yield file
    except (safetensors.SafetensorError, OSError, ValueError, TypeError) as error:
        if "incomplete" in str(error) or "invalid header length" in str(error):
            raise _truncated(path, size) from None
        raise _damaged(path, f"is not a whole safetensors file ({one_line(error)})") from None


def read_torch(
    path: Path, skip: Sequence[str] = (), safe_classes: Sequence[Any] = (), wrapper: str | None = None
) -> dict[str, np.ndarray]:
    """Reads all tensors of a torch file by name, floats as float32; see `read_safetensors` and `open_torch`."""
    return {
        name: np.empty(0) if any(re.fullmatch(pattern, name) for pattern in skip) else to_numpy(tensor)
        for name, tensor in open_torch(path, safe_classes, wrapper).items()
    }


def open_torch(path: Path, safe_classes: Sequence[Any] = (), wrapper: str | None = None) -> "dict[str, torch.Tensor]":
    """Opens a state dict that torch.save wrote. Tensors are memory-mapped if possible; read one with `to_numpy`.

    Loads with `weights_only=True`, so no code in the file is run. safe_classes: other classes that the file may hold,
    as for `torch.serialization.add_safe_globals`. wrapper: the key of the state dict inside the file, if it has one.
    Raises CheckpointError for a file that is missing, truncated, or contains anything but plain tensors.
    """
    import torch

    is_zip, size = _require_torch_file(path)
    try:
        with (
            _TORCH_LOCK,
            warnings.catch_warnings(action="ignore"),
            torch.serialization.safe_globals(list(safe_classes)),
        ):
            if is_zip:
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            else:
                with _LimitedFile(io.FileIO(path)) as file:
                    content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # for damaged files torch raises a dozen kinds of exceptions
        needed = re.search(r"GLOBAL ([\w.]+)", str(error))
        cause = f"it needs {needed[1]}" if needed else f"torch raised {type(error).__name__}"
        raise CheckpointError(
            f"{path} is not a checkpoint of plain tensors ({cause}; no code in it was run); "
            f"{fetch_advice(path)}, or save only its state_dict() with torch.save"
        ) from None
    if wrapper is not None and isinstance(content, Mapping):
        content = content.get(wrapper, content)
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a state dict; save model.state_dict()")
    others = [str(name) for name, value in content.items() if not (isinstance(name, str) and _is_plain(value))]
    if others:
        names = printable(", ".join(name[:MAX_NAME] for name in others[:4]))
        raise CheckpointError(f"{path} holds more than plain tensors by name ({names}); save model.state_dict() alone")
    tensors: dict[str, torch.Tensor] = {name: value.detach() for name, value in content.items()}
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if total > MAX_SIZE_RATIO * size:
        raise _damaged(path, f"of {size:,} bytes holds tensors of {total:,}")
    _check_names(path, tensors)
    return tensors


def to_numpy(tensor: "torch.Tensor") -> np.ndarray:
    """Copies a tensor, which may be a view of a file that changes later; floats become float32."""
    return np.array(tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy())


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Reads the names and shapes of a file's tensors, without their values. Raises as `read_safetensors` and
    `open_torch`."""
    if path.suffix == ".safetensors":
        with _safetensors(path) as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    return {name: tuple(tensor.shape) for name, tensor in open_torch(path).items()}


def _require_torch_file(path: Path) -> tuple[bool, int]:
    """Checks that a file is one of torch's. Returns whether it is a zip archive (torch 1.6 and later) and its size."""
    with open_regular(path, "a file of torch's", CheckpointError, fetch_advice(path)) as file:
        size, head = os.fstat(file.fileno()).st_size, file.read(_HEAD)
        if not zipfile.is_zipfile(file):
            if head[:2] == b"PK":
                raise _truncated(path, size)
            if head[:1] != b"\x80" or _is_safetensors(head):
                raise _not_weights(path, head, "torch")
            return False, size
        try:
            records = zipfile.ZipFile(file).infolist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, OSError) as error:
            raise _damaged(path, f"is a damaged archive ({one_line(error)})") from None
    if any(info.file_size > MAX_PICKLE for info in records if info.filename.endswith(".pkl")):
        raise _damaged(path, f"has a pickle of more than {MAX_PICKLE:,} bytes")
    if any(info.compress_type for info in records):  # torch would map the compressed bytes as numbers
        raise CheckpointError(
            f"{path} is a compressed archive, which torch does not write; unpack it if it holds a checkpoint, or "
            f"{fetch_advice(path)}"
        )
    return True, size


class _LimitedFile(io.BufferedReader):
    """A file that limits the steps of an unpickler, which reads one byte a step: a step may take 64 bytes of memory."""

    steps = 0

    def read(self, size: int | None = -1, /) -> bytes:
        if size == 1:
            self.steps += 1
            if self.steps > MAX_PICKLE:
                raise ValueError(f"a pickle of more than {MAX_PICKLE:,} steps")
        return super().read(size)


def _is_plain(value: object) -> bool:
    """Whether a value is a dense CPU tensor of a supported dtype, with storage for all its elements: a tensor expanded
    from one number could have any size."""
    import torch

    return (
        isinstance(value, torch.Tensor)
        and type(value) in (torch.Tensor, torch.nn.Parameter)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and str(value.dtype).removeprefix("torch.") in TORCH_DTYPES
        and not value.is_neg()
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def _check_names(path: Path, names: Collection[str]) -> None:
    longest = max(map(len, names), default=0)
    if len(names) > MAX_TENSORS or longest > MAX_NAME:
        limits = f"expected {MAX_TENSORS:,} and {MAX_NAME} at most"
        raise _damaged(path, f"has {len(names):,} tensors with names of up to {longest:,} characters; {limits}")


def _damaged(path: Path, problem: str) -> CheckpointError:
    return CheckpointError(f"{path} {problem}; {fetch_advice(path)}")


def _truncated(path: Path, size: int) -> CheckpointError:
    return _damaged(path, f"is a partial download: {size:,} bytes")


def _is_safetensors(head: bytes) -> bool:
    """Whether a file begins as safetensors do, with a header length of at most 2^40 and `{`."""
    return head[5:9] == b"\0\0\0{"


def _not_weights(path: Path, head: bytes, kind: str) -> CheckpointError:
    """Makes the error for a file whose first bytes are not those of weights; it says what the file is instead."""
    advice = fetch_advice(path)
    if content := describe_placeholder(head):
        pass
    elif len(head) < _HEAD and re.fullmatch(rb"[\x20-\x7e\s]+", head):
        content = f"holds the text {head[:80].decode('ascii').strip()!r}"
    elif kind == "torch" and _is_safetensors(head):
        content, advice = "is a safetensors file by its content", f"rename it to end in .safetensors, or {advice}"
    elif kind == "safetensors" and (head[:2] == b"PK" or head[:1] == b"\x80"):
        content, advice = "is a torch file by its content", f"rename it to end in .bin, or {advice}"
    else:
        content = f"is not a whole {kind} file"
    return CheckpointError(f"{path} {content}; expected weights: {advice}")

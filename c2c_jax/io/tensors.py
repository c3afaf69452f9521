"""The one reader of weights: safetensors files, and pickled ones of torch (.bin, .pt, .ckpt), which run nothing."""

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

import ml_dtypes  # noqa: F401  # by which numpy knows bfloat16
import numpy as np
import safetensors

from c2c_jax.errors import CheckpointError, one_line
from c2c_jax.io.console import printable
from c2c_jax.io.files import open_regular, stand_in

if TYPE_CHECKING:  # loaded where a pickled file is read, and there alone
    import torch

MAX_TENSORS = 2**14  # of a file: AudioLDM's largest has about 3,000
MAX_NAME = 512  # characters
MAX_PICKLE = 2**22  # bytes or steps of what is unpickled, the tensors' numbers aside: published files take up to 2**19
MAX_SHARING = 4  # how many times the file's own size its tensors may take, since some stand under two names
READ = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")  # safetensors' names of dtypes
READ_TORCH = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool".split()  # torch's
_READING = threading.Lock()  # what torch may build for one reader, it may build for all
_HEAD = 512  # bytes that say what a file is


def fetch_again(path: Path) -> str:
    """What to do about a damaged file of a checkpoint."""
    return f"fetch it again, e.g. with `hf download OWNER/NAME {path.name} --local-dir {path.parent}`"


def read_safetensors(path: Path, passed_over: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Every tensor of a safetensors file by its name; bfloat16 as float32, other dtypes as they are.

    passed_over: patterns of names whose values are not needed: these are not read, but empty.
    Raises CheckpointError for a file that is missing, not whole, or of another format, and for dtypes that hold no
    plain numbers, such as those of quantised checkpoints.
    """
    tensors = {}
    with _safetensors(path) as file:
        for name in file.keys():
            if any(re.fullmatch(pattern, name) for pattern in passed_over):
                tensors[name] = np.empty(0)
                continue
            if (dtype := file.get_slice(name).get_dtype()) not in READ:
                expected = ", ".join(READ[:4])
                raise CheckpointError(
                    f"{path}: tensor {name} is {dtype}; expected {expected}: save the model in one of these"
                )
            tensor = file.get_tensor(name)
            tensors[name] = tensor.astype(np.float32) if dtype == "BF16" else tensor
    return tensors


@contextlib.contextmanager
def _safetensors(path: Path) -> Iterator[Any]:
    """An opened safetensors file, of which only the header has been read. Raises as `read_safetensors`."""
    with open_regular(path, "a safetensors file", CheckpointError, fetch_again(path)) as regular:
        size, head = os.fstat(regular.fileno()).st_size, regular.read(_HEAD)
    if not _is_safetensors(head):
        raise _not_weights(path, head, "safetensors")
    try:
        with safetensors.safe_open(path, "np") as file:
            _require_few(path, file.keys())
            yield file
    except (safetensors.SafetensorError, OSError, ValueError, TypeError) as error:
        if "incomplete" in str(error) or "invalid header length" in str(error):
            raise _unfinished(path, size) from None
        raise _damaged(path, f"is not a whole safetensors file ({one_line(error)})") from None


def read_torch(
    path: Path, passed_over: Sequence[str] = (), harmless: Sequence[Any] = (), wrapper: str | None = None
) -> dict[str, np.ndarray]:
    """Every tensor of a torch file by its name, floats as float32; see `read_safetensors` and `open_torch`."""
    return {
        name: np.empty(0) if any(re.fullmatch(pattern, name) for pattern in passed_over) else to_numpy(tensor)
        for name, tensor in open_torch(path, harmless, wrapper).items()
    }


def open_torch(path: Path, harmless: Sequence[Any] = (), wrapper: str | None = None) -> "dict[str, torch.Tensor]":
    """The tensors of a state dict that torch.save wrote, still on the disk where the file allows it: `to_numpy` reads
    one. The file is unpickled by `weights_only=True`: nothing in it is run.

    harmless: classes besides tensors that it may hold, as `torch.serialization.add_safe_globals` takes them.
    wrapper: the key under which the state dict stands, where it does not stand alone.
    Raises CheckpointError for a file that is missing, not whole, or holds more than plain tensors.
    """
    import torch

    is_zip, size = _require_torch_file(path)
    try:
        with _READING, warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(list(harmless)):
            if is_zip:
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            else:
                with _FewSteps(io.FileIO(path)) as file:
                    content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files end torch's reader in a dozen ways, each an exception of another kind
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        cause = f"it needs {wanted[1]}" if wanted else f"torch raised {type(error).__name__}"
        raise CheckpointError(
            f"{path} is not a checkpoint of plain tensors ({cause}; no code in it was run); "
            f"{fetch_again(path)}, or save only its state_dict() with torch.save"
        ) from None
    if wrapper is not None and isinstance(content, Mapping):
        content = content.get(wrapper, content)
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a state dict; save model.state_dict()")
    others = [str(name) for name, value in content.items() if not (isinstance(name, str) and _is_plain(value))]
    if others:
        listed = printable(", ".join(other[:MAX_NAME] for other in others[:4]))
        raise CheckpointError(f"{path} holds more than plain tensors by name ({listed}); save model.state_dict() alone")
    tensors: dict[str, torch.Tensor] = {name: value.detach() for name, value in content.items()}
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if total > MAX_SHARING * size:
        raise _damaged(path, f"of {size:,} bytes holds tensors of {total:,}")
    _require_few(path, tensors)
    return tensors


def to_numpy(tensor: "torch.Tensor") -> np.ndarray:
    """A copy of a tensor, which may be a view of a file that others write to; floats as float32."""
    return np.array(tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy())


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a file's tensors, whose values are not read. Raises as its reader does."""
    if path.suffix == ".safetensors":
        with _safetensors(path) as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    return {name: tuple(tensor.shape) for name, tensor in open_torch(path).items()}


def _require_torch_file(path: Path) -> tuple[bool, int]:
    """Whether it is an archive, as torch writes them since 1.6, and the file's size."""
    with open_regular(path, "a file of torch's", CheckpointError, fetch_again(path)) as file:
        size, head = os.fstat(file.fileno()).st_size, file.read(_HEAD)
        if not zipfile.is_zipfile(file):
            if head[:2] == b"PK":
                raise _unfinished(path, size)
            if head[:1] != b"\x80" or _is_safetensors(head):
                raise _not_weights(path, head, "torch")
            return False, size
        try:
            records = zipfile.ZipFile(file).infolist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, OSError) as error:
            raise _damaged(path, f"is a damaged archive ({one_line(error)})") from None
    if any(info.file_size > MAX_PICKLE for info in records if info.filename.endswith(".pkl")):
        raise _damaged(path, f"has a pickle of more than {MAX_PICKLE:,} bytes")
    if any(info.compress_type for info in records):  # torch maps them as they lie there: other numbers, in silence
        raise CheckpointError(
            f"{path} is a compressed archive, which torch does not write; unpack it if it holds a checkpoint, or "
            f"{fetch_again(path)}"
        )
    return True, size


class _FewSteps(io.BufferedReader):
    """A file that an unpickler, which reads a byte for each of its steps, may not read for ever: a step may take 64
    bytes of memory."""

    steps = 0

    def read(self, size: int | None = -1, /) -> bytes:
        if size == 1:
            self.steps += 1
            if self.steps > MAX_PICKLE:
                raise ValueError(f"a pickle of more than {MAX_PICKLE:,} steps")
        return super().read(size)


def _is_plain(value: object) -> bool:
    """Whether it is numbers in main memory, each with a place of its own: not sparse, quantised, or one number that is
    spread over any size."""
    import torch

    return (
        isinstance(value, torch.Tensor)
        and type(value) in (torch.Tensor, torch.nn.Parameter)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and str(value.dtype).removeprefix("torch.") in READ_TORCH
        and not value.is_neg()
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def _require_few(path: Path, names: Collection[str]) -> None:
    longest = max(map(len, names), default=0)
    if len(names) > MAX_TENSORS or longest > MAX_NAME:
        limits = f"expected {MAX_TENSORS:,} and {MAX_NAME} at most"
        raise _damaged(path, f"has {len(names):,} tensors with names of up to {longest:,} characters; {limits}")


def _damaged(path: Path, how: str) -> CheckpointError:
    return CheckpointError(f"{path} {how}; {fetch_again(path)}")


def _unfinished(path: Path, size: int) -> CheckpointError:
    return _damaged(path, f"is a partial download: {size:,} bytes")


def _is_safetensors(head: bytes) -> bool:
    """By its first bytes: the length of a header of at most 2^40 bytes, and the header's own."""
    return head[5:9] == b"\0\0\0{"


def _not_weights(path: Path, head: bytes, kind: str) -> CheckpointError:
    """What stands in the place of weights, by the first bytes of the file."""
    advice = fetch_again(path)
    if found := stand_in(head):
        pass
    elif len(head) < _HEAD and re.fullmatch(rb"[\x20-\x7e\s]+", head):
        found = f"holds the text {head[:80].decode('ascii').strip()!r}"
    elif kind == "torch" and _is_safetensors(head):
        found, advice = "is a safetensors file by its content", f"rename it to end in .safetensors, or {advice}"
    elif kind == "safetensors" and (head[:2] == b"PK" or head[:1] == b"\x80"):
        found, advice = "is torch's by its content", f"rename it to end in .bin, or {advice}"
    else:
        found = f"is not a whole {kind} file"
    return CheckpointError(f"{path} {found}; expected weights: {advice}")

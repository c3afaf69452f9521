"""Reads the pickles inside torch files as plain data. Nothing in a file can make it run code.

A pickle is a program. Python's own unpickler lets it import and call any function. The unpickler here differs:

* A global of the file stays a name. It is never imported, and a name outside of GLOBALS is an error.
* A call in the file looks its name up in `_CALLS`, which has the few functions of this module that describe tensors and
  dicts. All other calls give None.
* Instructions that torch.save does not write are errors, among them those for the extension registry of `copyreg`. The
  state of objects (BUILD) is discarded, so no `__setstate__` is called.
* Keys of dicts are texts and numbers. Other keys become None, so that no nested tuple is hashed or compared.

The memory for a pickle is at most a fixed multiple of its length, which the caller limits: no instruction copies what
others made, and lengths stated in it allocate nothing.

torch.load(weights_only=True) works similarly. It is not used because checkpoints must be readable without torch, and
two readers would be twice the code to trust. torch's also calls torch's own functions with arguments from the file,
and it accepts any class that some other library in the process has declared safe.
"""

import dataclasses
import io
import pickle
from collections.abc import Callable
from typing import Any

import ml_dtypes  # noqa: F401  # teaches numpy bfloat16
import numpy as np

from c2c_jax.io.text import printable

MAX_AXES = 64  # numpy's limit
MAX_SIZE = 2**63 - 1  # of sizes, strides and offsets, as in torch
MAX_KEY = 2**60  # Python hashes larger ints modulo a prime: many could have one hash
# torch's storage classes → numpy's dtypes of the same size.
STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16",
    "Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool",
    "ComplexDouble": "complex128", "ComplexFloat": "complex64",
    "QInt32": "int32", "QInt8": "int8", "QUInt8": "uint8", "QUInt4x2": "uint8", "QUInt2x4": "uint8",
}  # fmt: skip
STORAGE_DTYPES = {
    "torch.storage.UntypedStorage": np.dtype(np.uint8),
    **{f"torch.{place}{kind}Storage": np.dtype(STORAGES[kind]) for place in ("", "cuda.") for kind in STORAGES},
}
DTYPES = {f"torch.{dtype}": np.dtype(dtype) for dtype in STORAGES.values()}
# Other names that torch.load accepts, and those of numpy's numbers, such as saved learning rates.
UNUSED = {
    "_codecs.encode", "bytearray", "complex", "set", "collections.Counter", "torch.Tensor", "torch.device",
    "torch.storage.TypedStorage", "torch.serialization._get_layout",
    "torch._utils._rebuild_device_tensor_from_numpy", "torch._utils._rebuild_meta_tensor_no_storage",
    "torch._utils._rebuild_nested_tensor", "torch._utils._rebuild_qtensor", "torch._utils._rebuild_sparse_tensor",
    "torch._utils._rebuild_wrapper_subclass",
    "numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
    *(f"torch.{place}{kind}Tensor" for place in ("", "cuda.", "sparse.", "cuda.sparse.") for kind in STORAGES),
    *(f"torch.{sign}int{bits}" for sign in ("", "u") for bits in (*range(1, 9), 16, 32, 64)),
    *(f"torch.float8_{form}" for form in ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu")),
    *(f"torch.bits{form}" for form in ("16", "1x8", "2x4", "4x2", "8")),
    *(f"torch.q{form}" for form in ("int32", "int8", "uint8", "uint4x2", "uint2x4")),
    *(f"torch.per_{form}" for form in ("channel_affine", "channel_affine_float_qparams", "channel_symmetric")),
    "torch.per_tensor_affine", "torch.per_tensor_symmetric", "torch.complex32", "torch.float4_e2m1fn_x2",
}  # fmt: skip
# The instructions that torch.save writes; those that are not listed here are errors.
OPCODES = (
    pickle.PROTO, pickle.STOP, pickle.MARK, pickle.GLOBAL, pickle.BINPERSID, pickle.NONE, pickle.NEWTRUE,
    pickle.NEWFALSE, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT, pickle.BINUNICODE,
    pickle.SHORT_BINSTRING, pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3,
    pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT, pickle.BINGET, pickle.LONG_BINGET,
    pickle.BINPUT, pickle.LONG_BINPUT,
)  # fmt: skip


class MalformedError(Exception):
    """Raised for a pickle that torch.save did not write, or that needs more than plain tensors. The message says
    why."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Global:
    """A class, function or constant that a pickle names."""

    name: str


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """The memory of tensors: `size` elements of the file's bytes named `key`, from element `start`."""

    key: str
    dtype: np.dtype
    size: int
    start: int = 0


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """Where the values of a tensor are: offset and strides count elements in a storage. They are not negative, but may
    lie outside of the storage."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class PickleSource(io.BytesIO):
    """Bytes with pickles in them. Raises EOFError where they end too early."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Reads exactly `size` bytes."""
        content = super().read(size)
        if size is not None and len(content) < size:
            raise EOFError
        return content

    def readline(self, size: int | None = -1, /) -> bytes:
        """Reads a whole line."""
        line = super().readline(size)
        if not line.endswith(b"\n"):
            raise EOFError
        return line


def unpickle(source: PickleSource) -> tuple[Any, dict[str, Storage]]:
    """Reads one pickle. Returns its content, and its storages by key.

    Tensors and parameters are `Tensor`, ordered dicts are dicts; None stands for objects of other classes. Raises
    EOFError if the pickle ends too early, and MalformedError if it is damaged or needs a name outside of GLOBALS.
    """
    unpickler = _Unpickler(source, encoding="utf-8")
    try:
        return unpickler.load(), unpickler.storages
    except (MalformedError, EOFError):
        raise
    except Exception as error:  # of many types, as any instruction may be damaged
        raise MalformedError(f"its pickle is damaged: {type(error).__name__}") from None


def _are_sizes(sizes: Any) -> bool:
    return type(sizes) is tuple and len(sizes) <= MAX_AXES and all(type(n) is int and 0 <= n <= MAX_SIZE for n in sizes)


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
    if not isinstance(storage, Storage):
        raise MalformedError("it has a tensor without a storage")
    if not (_are_sizes((offset,)) and _are_sizes(shape) and _are_sizes(strides) and len(shape) == len(strides)):
        raise MalformedError("it has a tensor of impossible sizes")
    return Tensor(storage, storage.dtype, offset, shape, strides)


def _rebuild_tensor_v2(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, metadata: Any = None
) -> Tensor | None:
    """metadata: whether values are to be negated or conjugated, which is not supported."""
    return None if metadata else _rebuild_tensor(storage, offset, shape, strides)


def _rebuild_tensor_v3(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, metadata: Any = None
) -> Tensor | None:
    """dtype: of the tensor; the storage is untyped."""
    if metadata or dtype.name not in DTYPES:
        return None
    return dataclasses.replace(_rebuild_tensor(storage, offset, shape, strides), dtype=DTYPES[dtype.name])


def _rebuild_parameter(data: Any, grad: Any = True, hooks: Any = None, state: Any = None) -> Tensor | None:
    return data if isinstance(data, Tensor) else None


def _rebuild_device_tensor(data: Any, dtype: Any, device: Any, grad: Any) -> Tensor | None:
    """A tensor of another device, such as a TPU, that was saved as a CPU tensor."""
    return data if isinstance(data, Tensor) and DTYPES.get(dtype.name) == data.dtype else None


def _rebuild_from_type(function: Any, kind: Any, arguments: Any, state: Any) -> Tensor | None:
    """A tensor with attributes, or of a subclass, which is not supported."""
    is_plain = kind.name in ("torch.Tensor", "torch.nn.parameter.Parameter") and function.name in _TENSORS
    return _TENSORS[function.name](*arguments) if is_plain else None


def _size(sizes: Any = ()) -> Any:
    return sizes


def _ordered_dict(pairs: Any = None) -> dict:
    """pairs: list of keys and values, as Python 2 wrote them. The list is emptied, since repeated copies could take any
    amount of memory."""
    content = {}
    if pairs is not None:
        content = {_key(key): value for key, value in pairs}
        pairs.clear()
    return content


_TENSORS: dict[str, Callable[..., Tensor | None]] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor_v2,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch.nn.parameter.Parameter": _rebuild_parameter,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _rebuild_device_tensor,
}
_CALLS: dict[str, Callable[..., Any]] = {
    **_TENSORS,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.Size": _size,
    "collections.OrderedDict": _ordered_dict,
}
GLOBALS = frozenset({*_CALLS, *STORAGE_DTYPES, *DTYPES, *UNUSED})


def _key(key: Any) -> Any:
    is_simple = type(key) in (str, float, bool) or (type(key) is int and abs(key) < MAX_KEY)
    return key if is_simple else None


class _Instructions(dict):
    def __missing__(self, code: int) -> Any:
        raise MalformedError(f"its pickle has the instruction 0x{code:02x}, which torch.save does not write")


class _Unpickler(pickle._Unpickler):
    """Python's unpickler with fewer instructions, in which calls and keys of dicts are checked.

    The base class is the unpickler written in Python, because its instructions can be replaced. In the one written in
    C, a memo number of 2^31 allocates memory for as many entries, and a deeply nested key overflows the stack.
    """

    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, source: PickleSource, encoding: str):
        super().__init__(source, encoding=encoding)
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Global:
        """Returns a global of the file as a name."""
        module = module.replace("__builtin__", "builtins")  # Python 2's name, which protocol 2 keeps
        full_name = f"{module}.{name}".removeprefix("builtins.")
        if full_name not in GLOBALS:
            raise MalformedError(f"it needs {printable(full_name[:80])}")
        return Global(full_name)

    def persistent_load(self, pid: Any) -> Storage:
        """Returns a storage, whose bytes are outside of the pickle."""
        kind, storage_class, key, _, size, *view = pid
        dtype = STORAGE_DTYPES.get(storage_class.name)
        if kind != "storage" or dtype is None or type(key) is not str or not _are_sizes((size,)):
            raise MalformedError("it has a storage of an unknown kind")
        self.storages.setdefault(key, Storage(key, dtype, size))
        if view in ([], [None]):
            return Storage(key, dtype, size)
        ((_, start, length),) = view  # a part of a storage, which old versions could save
        if not _are_sizes((start, length)) or start + length > size:
            raise MalformedError("it has a part of a storage that extends beyond it")
        return Storage(key, dtype, length, start)

    def load_call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global) or type(arguments) is not tuple:
            raise MalformedError("its pickle calls something that is not a function")
        self.append(_CALLS[function.name](*arguments) if function.name in _CALLS else None)

    def load_build(self) -> None:
        self.stack.pop()
        if isinstance(self.stack[-1], Tensor):
            raise MalformedError("its pickle changes a tensor")

    def load_items(self) -> None:
        items = self.pop_mark()
        content = self.stack[-1]
        if type(content) is not dict or len(items) % 2:
            raise MalformedError("its pickle has items outside of a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            content[_key(key)] = value

    def load_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        if type(self.stack[-1]) is not dict:
            raise MalformedError("its pickle has an item outside of a dict")
        self.stack[-1][_key(key)] = value

    dispatch = _Instructions(
        {opcode[0]: pickle._Unpickler.dispatch[opcode[0]] for opcode in OPCODES}
        | {
            pickle.REDUCE[0]: load_call,
            pickle.NEWOBJ[0]: load_call,
            pickle.BUILD[0]: load_build,
            pickle.SETITEMS[0]: load_items,
            pickle.SETITEM[0]: load_item,
        }
    )

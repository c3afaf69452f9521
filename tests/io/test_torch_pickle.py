"""Hostile torch files: no code in them is run, and they take little memory and time."""

import copyreg
import os
import pickle
import tracemalloc

import numpy as np
import pytest

from c2c_jax.errors import CheckpointError
from c2c_jax.io import torch_files
from c2c_jax.io.torch_files import read_torch
from tests.fixtures.torch_archives import sizes, state_dict, storage, tensor, text, whole, write_archive, write_old

DATA = {"0": np.arange(4, dtype="<f4").tobytes()}
FORMATS = pytest.mark.parametrize("old", [False, True], ids=["archive", "old"])


def plain(old: bool) -> bytes:
    """The instructions for a tensor of four numbers."""
    return tensor(storage(4, old=old), sizes(4), sizes(1))


def write(path, pickled: bytes, old: bool):
    return write_old(path, pickled, DATA) if old else write_archive(path, pickled, DATA)


def refusal(folder, pickled: bytes, old: bool) -> str:
    """The message for a file in an empty folder, which must then hold nothing else."""
    path = write(folder / "a.bin", pickled, old)
    with pytest.raises(CheckpointError) as caught:
        read_torch(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and len(message) < 1000
    assert os.listdir(folder) == ["a.bin"]
    return message


def call(module: str, name: str, *arguments: bytes) -> bytes:
    """The instructions that call a function."""
    return b"c" + f"{module}\n{name}\n".encode() + b"(" + b"".join(arguments) + b"tR"


# Each would create the file "trapped" if Python's unpickler read it, or call something with it.
FOREIGN = {
    "os.system": (call("os", "system", text("touch trapped")), "it needs os.system"),
    "posix.system": (call("posix", "system", text("touch trapped")), "it needs posix.system"),
    "eval": (call("builtins", "eval", text("open('trapped', 'w')")), "it needs eval"),
    "eval of Python 2": (call("__builtin__", "eval", text("open('trapped', 'w')")), "it needs eval"),
    "getattr": (call("builtins", "getattr", text("a"), text("upper")), "it needs getattr"),
    "torch.load": (call("torch", "load", text("trapped")), "it needs torch.load"),
    "torch.save": (call("torch", "save", text("a"), text("trapped")), "it needs torch.save"),
    "a function's attribute": (b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n", "_rebuild_tensor_v2.__globals__"),
    "a module": (b"ctorch\n_utils\n", "it needs torch._utils"),
    "no name": (b"c\n\n", "it needs ."),
    "copyreg": (call("copy_reg", "_reconstructor", b"ctorch\nTensor\n", b"N", b"N"), "it needs copy_reg._reconst"),
    "a long name": (b"cos\n" + b"x" * 10**5 + b"\n", "it needs os.xxx"),
    "control characters": (b"cos\n\x1b[2J\n", "it needs os.\\x1b[2J"),
    "INST": (b"(" + text("touch trapped") + b"ios\nsystem\n", "instruction 0x69"),
    "OBJ": (b"(cos\nsystem\n" + text("touch trapped") + b"o", "it needs os.system"),
    "OBJ of a known name": (b"(ctorch\nSize\n" + text("a") + b"o", "instruction 0x6f"),
    "STACK_GLOBAL": (text("os") + text("system") + b"\x93" + text("touch trapped") + b"\x85R", "instruction 0x93"),
    "NEWOBJ_EX": (b"ctorch\nTensor\n)}\x92", "instruction 0x92"),
    "PERSID": (b"P0\n", "instruction 0x50"),
    "EXT1": (b"\x82\xf0" + text("touch trapped") + b"\x85R", "instruction 0x82"),
    "EXT2": (b"\x83\xf0\0" + text("touch trapped") + b"\x85R", "instruction 0x83"),
    "EXT4": (b"\x84\xf0\0\0\0" + text("touch trapped") + b"\x85R", "instruction 0x84"),
    "FRAME": (b"\x95" + b"\xff" * 8, "instruction 0x95"),
    "LONG4 of 2 GB": (b"\x8b\xff\xff\xff\x7f", "instruction 0x8b"),
    "BINUNICODE8 of 2^63 bytes": (b"\x8d" + b"\xff" * 7 + b"\x7f", "instruction 0x8d"),
    "BINBYTES8 of 2^63 bytes": (b"\x8e" + b"\xff" * 7 + b"\x7f", "instruction 0x8e"),
    "BYTEARRAY8": (b"\x96" + b"\xff" * 7 + b"\x7f", "instruction 0x96"),
    "a decimal number": (b"L" + b"9" * 10**6 + b"L\n", "instruction 0x4c"),
}


@FORMATS
@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_names_and_instructions(tmp_path, monkeypatch, name, old):
    monkeypatch.chdir(tmp_path)
    instructions, words = FOREIGN[name]
    message = refusal(tmp_path, state_dict(w=plain(old), x=instructions), old)
    assert words in message and "no code in it was run" in message


@FORMATS
def test_the_extension_registry_is_not_used(tmp_path, monkeypatch, old):
    """Python's unpickler takes a function from there without asking `find_class`."""
    monkeypatch.chdir(tmp_path)
    trap = b"\x80\x02\x82\xf0" + text("trapped") + b"\x85R."
    copyreg.add_extension("posix", "mkdir", 240)
    try:
        pickle.loads(trap)  # it works, and the function is now in the registry's cache
        os.rmdir("trapped")
        assert "instruction 0x82" in refusal(tmp_path, trap, old)
    finally:
        copyreg.remove_extension("posix", "mkdir", 240)


class Trap:
    created = 0

    def __setstate__(self, state):
        type(self).created += 1


@FORMATS
def test_states_of_objects_are_discarded(tmp_path, old):
    state = b"}(" + text("__setstate__") + b"ctorch\nSize\n" + text("items") + b"N" + text("__class__") + b"Nub"
    ordered = b"\x80\x02ccollections\nOrderedDict\n)R(" + text("w") + plain(old) + b"u" + state + b"."
    np.testing.assert_array_equal(read_torch(write(tmp_path / "a.bin", ordered, old))["w"], np.arange(4))
    trap = f"c{Trap.__module__}\nTrap\n".encode() + b")\x81}b"
    assert "Trap; no code in it was run" in refusal(tmp_path, state_dict(w=trap), old)
    assert Trap.created == 0
    changed = plain(old) + b"(" + storage(4, old=old) + whole(0) + sizes(10**9) + sizes(1) + b"tb"
    assert "changes a tensor" in refusal(tmp_path, state_dict(w=changed), old)


UTILS, FROM_TYPE = "torch._utils", ("torch._tensor", "_rebuild_from_type_v2")
TENSOR = b"ctorch\nTensor\n"
HUGE = 2**2000
# Permitted functions with arguments that make no sense.
MISUSED = {
    "nothing": call(UTILS, "_rebuild_tensor_v2"),
    "no storage": call(UTILS, "_rebuild_tensor_v2", b"N", whole(0), sizes(4), sizes(1), b"\x89}"),
    "a text": call(UTILS, "_rebuild_tensor_v2", text("storage"), whole(0), sizes(4), sizes(1), b"\x89}"),
    "a name as an argument": call(UTILS, "_rebuild_tensor_v2", TENSOR * 6),
    "itself": call(*FROM_TYPE, b"ctorch._tensor\n_rebuild_from_type_v2\n", TENSOR, b")", b"N"),
    "a function inside": call(*FROM_TYPE, b"ctorch\nSize\n", TENSOR, b"))", b"N"),
    "a subclass": call(*FROM_TYPE, b"ctorch._utils\n_rebuild_tensor\n", b"ctorch\nFloatTensor\n", b")", b"N"),
    "a parameter of a text": call("torch.nn.parameter", "Parameter", text("a")),
    "an ordered dict of a number": call("collections", "OrderedDict", whole(5)),
    "an ordered dict of triples": call("collections", "OrderedDict", b"]", text("abc"), b"a"),
    "a result that is called": call("torch", "device", text("cpu")) + b")R",
    "a text that is called": text("os.system") + b")R",
    "a call with a list": b"ctorch\nSize\n]R",
    "a class without arguments": b"ctorch\nTensor\n)\x81",
    "a dtype": b"ctorch\nfloat32\n",
    "a storage": b"ctorch\nFloatStorage\n",
    "items of a list": b"](" + whole(0) + whole(1) + b"u",
    "an item of nothing": b"N" + whole(0) + whole(1) + b"s",
    "an odd number of items": b"}(" + whole(0) + b"u",
    "items appended to a dict": b"}(" + whole(0) + b"e",
    "an unknown memo number": b"h\xff",
    "an empty stack": b"0" * 3,
    "no mark": b"tttt",
    "a storage of a number": whole(7) + b"Q",
    "a storage of a nested tuple": b")" + b"\x85" * 1000 + b"Q",
    "a broken text": b"X\x02\0\0\0\xff\xff",
}  # fmt: skip


@FORMATS
@pytest.mark.parametrize("name", MISUSED)
def test_misused_functions(tmp_path, name, old):
    refusal(tmp_path, state_dict(w=plain(old), x=MISUSED[name]), old)


# Sizes, strides, offset and the storage's stated size, of a storage of four numbers.
IMPOSSIBLE = {
    "a negative size": ((-4,), (1,), 0, 4),
    "a huge size": ((HUGE,), (1,), 0, 4),
    "a negative stride": ((4,), (-1,), 3, 4),
    "a huge stride": ((2,), (HUGE,), 0, 4),
    "a stride beyond the end": ((2, 2), (3, 1), 0, 4),
    "a stride of 2^62": ((2,), (2**62,), 0, 4),
    "a negative offset": ((4,), (1,), -1, 4),
    "an offset beyond the end": ((4,), (1,), 1, 4),
    "a huge offset": ((1,), (1,), HUGE, 4),
    "fewer strides": ((2, 2), (1,), 0, 4),
    "a stride of 0": ((10**9, 10**9), (0, 0), 0, 4),
    "too many axes": ((1,) * 65, (1,) * 65, 0, 4),
    "a huge empty tensor": ((0, 2**61), (1, 1), 0, 4),
    "a storage of a negative size": ((4,), (1,), 0, -4),
    "a storage larger than its data": ((8,), (1,), 0, 8),
    "a storage larger than the file": ((2**40,), (1,), 0, 2**40),
    "a storage of a huge size": ((HUGE,), (1,), 0, HUGE),
}


@FORMATS
@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_tensors_outside_of_their_data(tmp_path, name, old):
    shape, strides, offset, size = IMPOSSIBLE[name]
    pickled = state_dict(w=tensor(storage(size, old=old), sizes(*shape), sizes(*strides), offset))
    message = refusal(tmp_path, pickled, old)
    assert "fetch it again" in message or "save model.state_dict() alone" in message


@FORMATS
def test_strides_that_do_not_matter(tmp_path, old):
    """Axes of length 1 may have any stride, and an empty tensor any stride and offset, as in torch."""
    memory = storage(4, old=old)
    ones = tensor(memory, sizes(1, 2, 1), sizes(2**62, 2, 10**9), 1)
    pickled = state_dict(ones=ones, empty=tensor(memory, sizes(3, 0), sizes(9, 2**62), 7))
    found = read_torch(write(tmp_path / "a.bin", pickled, old))
    np.testing.assert_array_equal(found["ones"], np.array([[[1], [3]]]))
    assert found["empty"].shape == (3, 0)


def test_storages_that_are_not_in_the_file(tmp_path):
    message = refusal(tmp_path, state_dict(w=tensor(storage(4, key="1"), sizes(4), sizes(1))), old=False)
    assert "is an archive without data/1" in message
    path = write_old(tmp_path / "a.bin", state_dict(w=tensor(storage(4, key="1", old=True), sizes(4), sizes(1))))
    with pytest.raises(CheckpointError, match="lacks the values of some tensors"):
        read_torch(path)
    write_old(path, state_dict(w=plain(old=True)), DATA | {"7": b"1234"})
    with pytest.raises(CheckpointError, match="list of storages is damaged"):
        read_torch(path)
    write_old(path, state_dict(w=plain(old=True)), {"0": bytes(12)})
    with pytest.raises(CheckpointError, match="partial download|size differs"):
        read_torch(path)


DEPTH = 2 * 10**5  # Python's unpickler crashes on keys of this depth
NESTED = {
    "tuples": b")" + b"\x85" * DEPTH,
    "a tuple as a key": b"})" + b"\x85" * DEPTH + b"Ns",
    "a tuple as a key of items": b"}()" + b"\x85" * DEPTH + b"Nu",
    "pairs": b"ccollections\nOrderedDict\n])" + b"\x85" * DEPTH + b"N\x86a\x85R",
    "lists": b"]" * DEPTH + b"a" * (DEPTH - 1),
    "dicts": b"}" * 1000 + (b"N" + b"}") * 1000,
    "marks": b"(" * DEPTH + b"t" * DEPTH,
    "calls": b"ctorch\nSize\nq\0" + b"h\0" * 10**5 + b")R" + b"\x85R" * 10**5,
    "a size": tensor(storage(4), b")" + b"\x85" * DEPTH, sizes(1)),
    "a storage": b"(" + text("storage") + b")" + b"\x85" * DEPTH + b"tQ",
    "a key of a storage": b"(" + text("storage") + b"ctorch\nFloatStorage\n)" + b"\x85" * DEPTH + b"NK\4tQ",
}  # fmt: skip


@pytest.mark.parametrize("name", NESTED)
def test_deep_nesting(tmp_path, name):
    refusal(tmp_path, state_dict(w=plain(old=False), x=NESTED[name]), old=False)


def test_a_nested_list_of_storages(tmp_path):
    path = write_old(tmp_path / "a.bin", state_dict(w=plain(old=True)))
    content = path.read_bytes()
    empty_list = pickle.dumps([], protocol=2)
    assert content.endswith(empty_list)
    path.write_bytes(content.removesuffix(empty_list) + b"\x80\x02])" + b"\x85" * DEPTH + b"a.")
    with pytest.raises(CheckpointError, match="list of storages is damaged"):
        read_torch(path)


PAIRS = b"".join(text(f"k{n}") + b"N\x86" for n in range(1000))
DOUBLED = b"".join(b"h" + bytes([n]) + b"h" + bytes([n]) + b"\x86q" + bytes([n + 1]) for n in range(60))
BOMBS = {
    "a memo number of 2^32": b"Nr\xff\xff\xff\xff",
    "a text of 4 GB": b"X\xff\xff\xff\xff",
    "copies of one list": b"](" + PAIRS + b"eq\0ccollections\nOrderedDict\nq\1" + b"h\1h\0\x85R" * 1000,
    "tuples of 2^60 items": b"Nq\0" + DOUBLED,
}


@pytest.mark.parametrize("name", BOMBS)
def test_pickles_that_unfold(tmp_path, name):
    """Memory is bounded by the length of the pickle."""
    path = write_archive(tmp_path / "a.bin", state_dict(w=plain(old=False), x=BOMBS[name]), DATA)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError):
            read_torch(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10e6 + 100 * path.stat().st_size


@pytest.mark.parametrize("key", [b")", whole(2**61 - 1), b"ctorch\nTensor\n"], ids=["tuple", "hash 0", "name"])
def test_keys_that_are_not_kept(tmp_path, key):
    """Tuples would be hashed recursively, and many large integers have one hash."""
    pickled = b"\x80\x02}(" + text("w") + plain(old=False) + key + b"Nu."
    assert "by name (None)" in refusal(tmp_path, pickled, old=False)


@FORMATS
def test_pickles_that_are_too_long(tmp_path, monkeypatch, old):
    monkeypatch.setattr(torch_files, "MAX_PICKLE", 10**4)
    long = state_dict(w=plain(old), x=text("x" * 10**5))
    assert "has a pickle of more than 10,000 bytes" in refusal(tmp_path, long, old)


def test_pickles_that_end_too_early(tmp_path):
    whole_pickle = state_dict(w=plain(old=False))
    for size in range(len(whole_pickle)):
        assert "has a pickle that ends too early" in refusal(tmp_path, whole_pickle[:size], old=False)
    content = write_old(tmp_path / "a.bin", state_dict(w=plain(old=True)), DATA).read_bytes()
    for size in range(1, len(content)):
        (tmp_path / "a.bin").write_bytes(content[:size])
        with pytest.raises(CheckpointError, match=f"is a partial download: {size:,} bytes|holds the text|not a whole"):
            read_torch(tmp_path / "a.bin")

"""Reading weights: values of every dtype, and errors for files of another kind than their name."""

import io
import json
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from c2c_jax.errors import CheckpointError
from c2c_jax.io import torch_files
from c2c_jax.io.tensors import read_safetensors, tensor_shapes
from c2c_jax.io.torch_files import open_torch, read_torch

VALUES = torch.tensor([[1.0, -2.5], [0.125, 3e4]])  # exact in bfloat16's and float16's eight and eleven bits, or nearly


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        (read_safetensors if path.suffix == ".safetensors" else read_torch)(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert "weights_only=False" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_floats_of_every_precision(tmp_path, dtype):
    tensors = {"w": VALUES.to(dtype), "scalar": torch.tensor(0.5, dtype=dtype), "empty": torch.zeros(0, 3, dtype=dtype)}
    expected = {name: tensor.double().numpy() for name, tensor in tensors.items()}
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors")
    torch.save(tensors, tmp_path / "a.bin")
    torch.save(tensors, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    for loaded in (
        read_safetensors(tmp_path / "a.safetensors"),
        read_torch(tmp_path / "a.bin"),
        read_torch(tmp_path / "old.bin"),
    ):
        assert loaded.keys() == tensors.keys()
        for name, values in expected.items():
            np.testing.assert_array_equal(loaded[name], values)
            assert loaded[name].shape == values.shape and loaded[name].dtype.kind == "f"
    shapes = {"w": (2, 2), "scalar": (), "empty": (0, 3)}
    assert tensor_shapes(tmp_path / "a.safetensors") == tensor_shapes(tmp_path / "a.bin") == shapes


def test_integers_parameters_and_shared_storage(tmp_path):
    """As in old files: buffers, `nn.Parameter`s, and one embedding under two names."""
    whole = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    state = OrderedDict(
        ids=torch.arange(5), w=torch.nn.Parameter(whole), tied=whole, part=whole[1:, ::2], turned=whole.T
    )
    torch.save(state, tmp_path / "a.bin")
    loaded = read_torch(tmp_path / "a.bin")
    for name, tensor in state.items():
        np.testing.assert_array_equal(loaded[name], tensor.detach().numpy())
    loaded["w"][:] = 0
    np.testing.assert_array_equal(loaded["tied"], whole.numpy())  # copies, not views of the file


def test_what_is_passed_over_is_not_read(tmp_path):
    safetensors.torch.save_file({"a.w": VALUES, "b.w": VALUES.to(torch.float8_e4m3fn)}, tmp_path / "a.safetensors")
    torch.save({"a.w": VALUES, "b.w": VALUES}, tmp_path / "a.bin")
    for loaded in (
        read_safetensors(tmp_path / "a.safetensors", [r"b\..+"]),
        read_torch(tmp_path / "a.bin", [r"b\..+"]),
    ):
        np.testing.assert_array_equal(loaded["a.w"], VALUES.numpy())
        assert loaded["b.w"].size == 0


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.uint16])
def test_dtypes_that_hold_no_plain_numbers(tmp_path, dtype):
    tensor = torch.ones(2).to(dtype)
    safetensors.torch.save_file({"w": tensor}, tmp_path / "a.safetensors")
    torch.save({"w": tensor}, tmp_path / "a.bin")
    assert "tensor w is" in refusal(tmp_path / "a.safetensors")
    assert "more than plain tensors by name (w)" in refusal(tmp_path / "a.bin")


NOT_WEIGHTS = {
    b"": "is empty",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 605247071\n": "run `git lfs pull` there",
    b"<!DOCTYPE html>\n<html><head>": "is a web page",
    b"<?xml version='1.0'?><Error><Code>AccessDenied": "is an XML document",
    b"Invalid username or password.": "holds the text 'Invalid username or password.'",
    b"\0" * 4096: "begins with zeros only",
    b"\x01\x02\x03 something else, \xff": "is not a whole",
}


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
@pytest.mark.parametrize("content", NOT_WEIGHTS, ids=lambda content: NOT_WEIGHTS[content])
def test_other_things_under_the_name_of_weights(tmp_path, suffix, content):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    message = refusal(path)
    assert NOT_WEIGHTS[content] in message
    assert f"hf download OWNER/NAME model{suffix} --local-dir {tmp_path}" in message


def test_each_kind_under_the_others_name(tmp_path):
    safetensors.torch.save_file({"w": VALUES}, tmp_path / "a.bin")
    assert "is a safetensors file by its content: rename it" in refusal(tmp_path / "a.bin").replace(
        "; expected weights", ""
    )
    for zipped in (True, False):
        torch.save({"w": VALUES}, tmp_path / "a.safetensors", _use_new_zipfile_serialization=zipped)
        assert "is a torch file by its content" in refusal(tmp_path / "a.safetensors")


def test_any_length_of_a_header_is_a_safetensors_file(tmp_path):
    """A file begins with its header's length, which may look like another format."""
    for length in range(100, 400):
        safetensors.torch.save_file({"w": VALUES}, tmp_path / "a.safetensors", {"note": "x" * length})
        np.testing.assert_array_equal(read_safetensors(tmp_path / "a.safetensors")["w"], VALUES.numpy())


@pytest.mark.parametrize("name", ["a.safetensors", "a.bin", "old.bin"])
def test_half_a_download(tmp_path, name):
    path = tmp_path / name
    tensors = {"w": torch.zeros(100, 100)}
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=name == "a.bin")
    whole = path.read_bytes()
    for size in (len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        message = refusal(path)
        assert "hf download" in message
        if name != "old.bin":
            assert f"is a partial download: {size:,}" in message


def header(content: object, rest: bytes = b"") -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + rest


BAD_HEADERS = {
    "deep": header(b'{"a":' * 5000 + b"1" + b"}" * 5000),
    "huge integer": header(b'{"w":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,4]}}'),
    "shape beyond the file": header({"w": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4]}}, b"1234"),
    "negative": header({"w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"1234"),
    "offsets beyond the file": header({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 10**12]}}),
    "two at one place": header(
        {name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in ("v", "w")}, b"1234"
    ),
    "no object": header({"w": 5}),
    "long name": header({"w" * 10**5: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
    "many": header({f"w{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(20_000)}),
    "length of 2^60": struct.pack("<Q", 2**60) + b'{"w":',
}


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_headers_out_of_reason(tmp_path, name):
    (tmp_path / "a.safetensors").write_bytes(BAD_HEADERS[name])
    assert len(refusal(tmp_path / "a.safetensors")) < 1000


class Trap:
    def __reduce__(self):
        return (open, ("trapped", "w"))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickled_code_is_not_run(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    torch.save({"w": VALUES, "more": Trap()}, tmp_path / "a.bin")
    assert "open; no code in it was run)" in refusal(tmp_path / "a.bin")
    (tmp_path / "plain.bin").write_bytes(pickle.dumps({"w": Trap()}, protocol=protocol))
    refusal(tmp_path / "plain.bin")
    assert not (tmp_path / "trapped").exists()


def test_a_compressed_archive_is_refused(tmp_path):
    """torch would map the compressed bytes as numbers, without an error."""
    torch.save({"w": VALUES}, tmp_path / "whole.bin")
    with zipfile.ZipFile(tmp_path / "whole.bin") as whole, zipfile.ZipFile(tmp_path / "a.bin", "w") as packed:
        for name in whole.namelist():
            packed.writestr(name, whole.read(name), zipfile.ZIP_DEFLATED)
    assert "is a compressed archive" in refusal(tmp_path / "a.bin")


SPREAD = {
    "one number": lambda: torch.ones(1).expand(10**5, 10**5),
    "one row": lambda: torch.ones(1, 10).expand(10**8, 10),
    "windows": lambda: torch.ones(2000).as_strided((900, 900), (1, 1)),
    "sparse": lambda: torch.sparse_coo_tensor(torch.tensor([[0], [0]]), torch.ones(1), (10**5, 10**5)),
    "meta": lambda: torch.ones(10**5, 10**5, device="meta"),
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8),
}


@pytest.mark.filterwarnings("ignore")  # torch on sparse and quantised tensors
@pytest.mark.parametrize("name", SPREAD)
def test_tensors_that_unfold(tmp_path, name):
    torch.save({"fine": VALUES, "w": SPREAD[name]()}, tmp_path / "a.bin")
    assert "(w)" in refusal(tmp_path / "a.bin")


def test_many_names_of_one_storage(tmp_path):
    torch.save({f"w{n}": view for n, view in enumerate([torch.ones(10**4)] * 100)}, tmp_path / "a.bin")
    assert "holds tensors of 4,000,000" in refusal(tmp_path / "a.bin")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_of_many_steps(tmp_path, monkeypatch, zipped):
    monkeypatch.setattr(torch_files, "MAX_PICKLE", 10**4)
    content = {"w": VALUES, "more": [[] for _ in range(10**4)]}
    torch.save(content, tmp_path / "a.bin", _use_new_zipfile_serialization=zipped)
    assert "has a pickle of more than 10,000 bytes" in refusal(tmp_path / "a.bin")


@pytest.mark.parametrize("content", [[VALUES], VALUES, {}, {1: VALUES}, {"w": 5}, {"model": {"w": VALUES}}], ids=str)
def test_what_is_no_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "a.bin")
    assert "save model.state_dict()" in refusal(tmp_path / "a.bin")


def test_a_state_dict_inside_a_wrapper(tmp_path):
    torch.save({"epoch": 3, "state_dict": {"w": VALUES}}, tmp_path / "a.pt")
    assert open_torch(tmp_path / "a.pt", wrapper="state_dict").keys() == {"w"}
    assert "(epoch, state_dict)" in refusal(tmp_path / "a.pt")


def test_folders_pipes_and_nothing(tmp_path):
    import os

    (tmp_path / "folder.bin").mkdir()
    os.mkfifo(tmp_path / "pipe.safetensors")
    assert "found a folder" in refusal(tmp_path / "folder.bin")
    assert "found a named pipe" in refusal(tmp_path / "pipe.safetensors")
    assert "found no file" in refusal(tmp_path / "none.safetensors")


def test_a_storage_shorter_than_it_says(tmp_path):
    """The pickle states larger sizes than the archive's record has."""
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(4)}, buffer)
    with zipfile.ZipFile(buffer) as whole, zipfile.ZipFile(tmp_path / "a.bin", "w") as lying:
        for name in whole.namelist():
            content = whole.read(name)
            if name.endswith("data.pkl"):
                content = content.replace(b"K\x04", b"K\xff")
            lying.writestr(name, content)
    refusal(tmp_path / "a.bin")

"""Torch files read without torch: values equal torch.load's, and damaged data is found."""

import os
import re
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._weights_only_unpickler import _get_allowed_globals

import c2c_jax
from c2c_jax.errors import CheckpointError
from c2c_jax.io.tensors import tensor_shapes
from c2c_jax.io.torch_files import open_torch, read_torch
from c2c_jax.io.torch_pickle import GLOBALS
from tests.fixtures.torch_archives import sizes, state_dict, storage, tensor, text, whole, write_archive, write_old

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
INTEGERS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]


def save(content: object, path: Path, zipped: bool) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def require_torchs_values(path: Path) -> dict[str, np.ndarray]:
    """Compares our values with those of torch.load, bit by bit."""
    expected = torch.load(path, map_location="cpu", weights_only=True)
    found = read_torch(path)
    assert list(found) == list(expected)
    assert tensor_shapes(path) == {name: tuple(value.shape) for name, value in expected.items()}
    for name, value in expected.items():
        array = (value.float() if value.is_floating_point() else value).detach().numpy()
        assert found[name].dtype == array.dtype and found[name].shape == array.shape, name
        assert found[name].tobytes() == array.tobytes(), name
        assert found[name].flags.c_contiguous and found[name].flags.writeable
    return found


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS], ids=str)
def test_values_of_every_dtype(tmp_path, dtype, zipped):
    generator = torch.Generator().manual_seed(0)
    values = (torch.randn(6, 5, 4, generator=generator) * 50).to(dtype)
    state = {
        "whole": values, "scalar": values[0, 0, 0].clone(), "empty": values[:0].clone(), "one": values[:1, :1].clone(),
        "transposed": values.permute(2, 0, 1), "part": values[1:5:2, ::3, -1], "last": values[-1, -1, -1],
        "windows": values.as_strided((3, 3), (2, 1), 7), "nothing": values[:, 2:2],
    }  # fmt: skip
    require_torchs_values(save(state, tmp_path / "a.bin", zipped))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_special_values(tmp_path, dtype, zipped):
    """Signed zeros, infinities, subnormal and largest numbers; float64 beyond float32 becomes infinite."""
    info = torch.finfo(dtype)
    values = [0.0, -0.0, np.inf, -np.inf, info.max, info.min, info.tiny, info.smallest_normal / 4, info.eps, 1 / 3]
    found = require_torchs_values(save({"w": torch.tensor(values, dtype=dtype)}, tmp_path / "a.bin", zipped))
    assert np.signbit(found["w"][1]) and np.isposinf(found["w"][2])
    nan = read_torch(save({"w": torch.tensor([np.nan], dtype=dtype)}, tmp_path / "nan.bin", zipped))
    assert np.isnan(nan["w"]).all()


@pytest.mark.parametrize("zipped", [True, False])
def test_states_of_modules(tmp_path, zipped):
    """Ordered dicts with attributes, parameters, tied weights, and tensors with attributes."""
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 2), torch.nn.BatchNorm2d(3), torch.nn.Linear(4, 4))
    module[2].bias = module[1].bias
    require_torchs_values(save(module.state_dict(), tmp_path / "state.bin", zipped))
    parameters = OrderedDict(module.named_parameters(remove_duplicate=False))
    parameters["0.weight"].note = "kept by torch"
    labelled = torch.ones(3)
    labelled.note = 5
    require_torchs_values(save({**parameters, "labelled": labelled}, tmp_path / "parameters.bin", zipped))


class Call:
    """An object that is pickled as a call of a function with arguments."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_tensors_of_other_devices(tmp_path):
    """A TPU's tensor is saved as one of the CPU, a GPU's names its device. Both are read to memory."""
    rebuild = torch._utils._rebuild_device_tensor_from_cpu_tensor
    values = torch.arange(6.0).reshape(2, 3)
    state = {"tpu": Call(rebuild, values, torch.float32, "xla:1", True), "plain": values}
    require_torchs_values(save(state, tmp_path / "tpu.bin", True))
    save({"tpu": Call(rebuild, values, torch.bfloat16, "xla:1", True)}, tmp_path / "cast.bin", True)
    with pytest.raises(CheckpointError, match="more than plain tensors by name .tpu"):
        read_torch(tmp_path / "cast.bin")
    cuda = storage(6, kind="torch.cuda\nFloatStorage").replace(text("cpu"), text("cuda:3"))
    pickled = state_dict(w=tensor(cuda, sizes(2, 3), sizes(3, 1)))
    require_torchs_values(write_archive(tmp_path / "a.bin", pickled, {"0": values.numpy().tobytes()}, version=b"3\n"))
    cuda = storage(6, kind="torch.cuda\nFloatStorage", old=True).replace(text("cpu"), text("cuda:3"))
    pickled = state_dict(w=tensor(cuda, sizes(2, 3), sizes(3, 1), function="_rebuild_tensor")).replace(
        b"\x89}tR", b"tR"
    )
    require_torchs_values(write_old(tmp_path / "old.bin", pickled, {"0": values.numpy().tobytes()}))


def test_old_files_with_parts_of_storages(tmp_path):
    view = b"(" + text("part") + whole(2) + whole(3) + b"t"
    pickled = state_dict(
        whole=tensor(storage(6, old=True), sizes(6), sizes(1)),
        part=tensor(storage(6, view=view, old=True), sizes(2), sizes(1), offset=1),
    )
    found = require_torchs_values(write_old(tmp_path / "a.bin", pickled, {"0": np.arange(6, dtype="<f4").tobytes()}))
    np.testing.assert_array_equal(found["part"], [3, 4])


def test_ordered_dicts_of_python_2(tmp_path):
    """They were pickled as a call with a list of pairs, and their texts as bytes."""
    pair = b"]U\x01wa" + tensor(storage(3), sizes(3), sizes(1)) + b"a"
    pickled = b"\x80\x02ccollections\nOrderedDict\n]" + pair + b"a\x85R."
    path = write_archive(tmp_path / "a.bin", pickled, {"0": np.arange(3, dtype="<f4").tobytes()}, version=b"3\n")
    require_torchs_values(path)


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS], ids=str)
def test_big_endian_archives(tmp_path, dtype):
    values = torch.arange(-6, 6).reshape(3, 4).to(dtype)
    save({"w": values, "part": values[::2, 1:]}, tmp_path / "little.bin", True)
    with zipfile.ZipFile(tmp_path / "little.bin") as archive:
        records = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    swapped = np.frombuffer(records["data/0"], f"u{dtype.itemsize}").byteswap().tobytes()
    version = {"version": records["version"]}
    path = write_archive(tmp_path / "big.bin", records["data.pkl"], {"0": swapped}, byteorder=b"big", **version)
    require_torchs_values(path)
    write_archive(path, records["data.pkl"], {"0": swapped}, byteorder=b"middle")
    with pytest.raises(CheckpointError, match="unknown byte order"):
        read_torch(path)


def test_training_states_beside_the_weights(tmp_path):
    """Optimisers, schedulers, random states and numpy numbers are passed over."""
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=np.float64(0.1))
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
    content = {
        "state_dict": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(),
        "random": torch.get_rng_state(), "device": torch.device("cuda:0"), "dtype": torch.bfloat16,
        "size": model.weight.shape, "names": {"a", "b"}, "bytes": b"abc", "array": bytearray(b"abc"),
        "number": np.int64(7), "complex": 1j, "keys": {(1, 2): 3, 2**70: 4, None: 5}, "loss": float("nan"),
    }  # fmt: skip
    for zipped in (True, False):
        found = read_torch(save(content, tmp_path / "a.ckpt", zipped), wrapper="state_dict")
        assert list(found) == ["weight", "bias"]
        np.testing.assert_array_equal(found["weight"], model.weight.detach().numpy())


def test_names_that_torch_accepts():
    accepted = {name.removeprefix("builtins.") for name in _get_allowed_globals()}
    assert accepted - GLOBALS == set() and "numpy.dtype" in GLOBALS


@pytest.mark.filterwarnings("ignore")  # torch on TorchScript
def test_torchscript_archives(tmp_path):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="TorchScript archive, which contains code.*Hugging Face folder"):
        read_torch(tmp_path / "a.pt")


def test_damaged_values(tmp_path):
    """Archives have checksums of values, which are compared when they are read."""
    save({"w": torch.ones(1000), "x": torch.zeros(5)}, tmp_path / "a.bin", True)
    content = bytearray((tmp_path / "a.bin").read_bytes())
    content[content.index(struct.pack("<f", 1) * 500) + 2000] ^= 1
    (tmp_path / "a.bin").write_bytes(content)
    tensors = open_torch(tmp_path / "a.bin")
    np.testing.assert_array_equal(tensors["x"].read(), np.zeros(5))
    for _ in range(2):
        with pytest.raises(CheckpointError, match="does not match its checksums; fetch it again"):
            tensors["w"].read()


def test_archives_without_checksums(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        save({"w": torch.arange(5.0)}, tmp_path / "a.bin", True)
    finally:
        torch.serialization.set_crc32_options(True)
    require_torchs_values(tmp_path / "a.bin")


def mutations(content: bytes, count: int) -> list[bytes]:
    """Copies of a file with one or more other bytes, or cut short."""
    random = np.random.default_rng(0)
    damaged = []
    for number in range(count):
        changed = bytearray(content)
        if number % 3 == 0:
            del changed[random.integers(len(content)) :]
        else:
            for _ in range(1 + number % 4):
                changed[random.integers(len(content))] ^= 1 << random.integers(8)
        damaged.append(bytes(changed))
    return damaged


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files(tmp_path, zipped):
    """Old files have no checksums: their values and names may change."""
    tensors = {f"layer.{n}.weight": torch.randn(4, n, generator=torch.Generator().manual_seed(n)) for n in range(1, 5)}
    path = save(OrderedDict(tensors), tmp_path / "a.bin", zipped)
    refused = 0
    for content in mutations(path.read_bytes(), 600):
        path.write_bytes(content)
        try:
            found = read_torch(path)
        except CheckpointError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error) and len(str(error)) < 1000
            continue
        if zipped:
            assert found.keys() == tensors.keys()
            for name, values in tensors.items():
                np.testing.assert_array_equal(found[name], values.numpy())
        else:
            assert sum(array.nbytes for array in found.values()) <= 8 * len(content)
    assert refused > (400 if zipped else 250)


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from pathlib import Path
from c2c_jax.io.tensors import tensor_shapes
from c2c_jax.io.torch_files import read_torch
from c2c_jax.spaces.space import load_space
from c2c_jax.spaces.weights.laion_clap import LaionClap
from c2c_jax.translator.clip2clap import import_checkpoint
for name in ("new.bin", "old.bin"):
    assert tensor_shapes(Path(name)) == {"module.linear.weight": (512, 512), "module.linear.bias": (512,)}
    assert read_torch(Path(name))["module.linear.bias"].sum() == 512
    bundle, _ = import_checkpoint(Path(name))
    assert bundle.spec.kind == "linear"
assert sys.modules["torch"] is None
"""


def test_reading_where_torch_is_not_installed(tmp_path):
    state = {"module.linear.weight": torch.zeros(512, 512), "module.linear.bias": torch.ones(512)}
    save(state, tmp_path / "new.bin", True)
    save(state, tmp_path / "old.bin", False)
    root = Path(c2c_jax.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", WITHOUT_TORCH]
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("room", ["io", "spaces", "translator"])
def test_torch_is_not_imported(room):
    files = list((Path(c2c_jax.__file__).parent / room).rglob("*.py"))
    importing = [
        path.name for path in files if re.search(r"^\s*(?:import|from) torch\b", path.read_text(), re.MULTILINE)
    ]
    assert len(files) > 5 and importing == []

""".npy and .npz files: headers that state huge arrays, damage and Python objects are refused in one line."""

import io
import zipfile

import numpy as np
import pytest

from c2c_jax.errors import StoreError
from c2c_jax.io.arrays import map_npy, read_npz


def npy(shape: str, descr: str = "<f4") -> bytes:
    """An .npy file with this header and no data."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


@pytest.mark.parametrize(
    "content",
    [
        b"", b"none", npy("(1000000000, 512)"), npy("(2, 2)", "|O"), npy("(-1, 4)"), npy("('x', 4)"),
        npy("(" * 5000), npy("(10**30, 1)"), npy("(2, 2)")[:40],
    ],
)  # fmt: skip
def test_npy_that_cannot_be_mapped(tmp_path, content):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(StoreError, match="; take another") as caught:
        map_npy(tmp_path / "x.npy", StoreError, "take another")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        (b"<html>", "is a web page"),
        (b"", "is empty"),
        (bytes(500), "begins with zeros only"),
        (b"text", "is not an .np"),
    ],
)
def test_what_stands_in_an_arrays_place_is_named(tmp_path, content, expected):
    for name, read in (("x.npy", map_npy), ("x.npz", lambda *more: read_npz(more[0], ("a",), 100, *more[1:]))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(StoreError, match=f"{name} {expected}"):
            read(tmp_path / name, StoreError, "take another")


def test_objects_are_not_loaded_and_nobody_is_told_to(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{}]), allow_pickle=True)
    np.savez(tmp_path / "x.npz", a=np.array([{}]))
    for read in (
        lambda: map_npy(tmp_path / "x.npy", StoreError, ""),
        lambda: read_npz(tmp_path / "x.npz", ("a",), 10_000, StoreError, ""),
    ):
        with pytest.raises(StoreError) as caught:
            read()
        assert "Python objects" in str(caught.value) and "allow_pickle" not in str(caught.value)


def test_npy(tmp_path):
    array = np.arange(12.0).reshape(3, 4)
    np.save(tmp_path / "x.npy", array)
    np.testing.assert_array_equal(map_npy(tmp_path / "x.npy", StoreError, ""), array)
    np.savez(tmp_path / "x.npz", array)
    with pytest.raises(StoreError, match="an archive of arrays"):
        map_npy(tmp_path / "x.npz", StoreError, "")
    with pytest.raises(StoreError, match="found no file"):
        map_npy(tmp_path / "none.npy", StoreError, "")


def test_npz(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, a=np.arange(5), b=np.array("text"), c=np.ones(3))
    result = read_npz(path, ("a", "b", "missing"), 10_000, StoreError, "")
    assert result.keys() == {"a", "b"} and result["a"].tolist() == [0, 1, 2, 3, 4] and str(result["b"]) == "text"
    with pytest.raises(StoreError, match="more than 30 bytes"):
        read_npz(path, ("a",), 30, StoreError, "")


@pytest.mark.parametrize("kind", ["encrypted", zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_npz_that_numpy_does_not_write(tmp_path, kind):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_STORED if kind == "encrypted" else kind) as archive:
        archive.writestr("a.npy", npy("(0,)"))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    if kind == "encrypted":
        content[6] |= 1
        content[content.index(b"PK\1\2") + 8] |= 1
    elif kind == zipfile.ZIP_LZMA:
        content[40:48] = bytes(8)  # of its properties, over which Python's decoder raises an error of its own
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(StoreError, match="a is encrypted, or compressed in another way than numpy does"):
        read_npz(tmp_path / "x.npz", ("a",), 10_000, StoreError, "take another")


@pytest.mark.parametrize("member", [npy("(1000000000, 512)"), npy("(2, 2)", "|O"), b"none", b""])
def test_npz_that_cannot_be_read(tmp_path, member):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", member)
    with pytest.raises(StoreError, match="cannot be read as an .npz file") as caught:
        read_npz(tmp_path / "x.npz", ("a",), 2**33, StoreError, "take another")
    assert "\n" not in str(caught.value)
    whole = io.BytesIO()
    np.savez(whole, a=np.arange(1000))
    for size in (0, 10, 200, len(whole.getvalue()) - 30):
        (tmp_path / "cut.npz").write_bytes(whole.getvalue()[:size])
        with pytest.raises(StoreError, match="cannot be read as an .npz file|is empty"):
            read_npz(tmp_path / "cut.npz", ("a",), 2**20, StoreError, "take another")

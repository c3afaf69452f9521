"""Arrays on disk: damage of every kind is refused with advice, and so are vectors that a dtype cannot represent."""

import dataclasses
import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import zarr

from c2c_jax.cli.main import main
from c2c_jax.config import Config, DataConfig
from c2c_jax.data.arrays import read_array, store_of_arrays
from c2c_jax.data.chunks import ChunkedArray, cast_vectors
from c2c_jax.data.store import Store
from c2c_jax.errors import StoreError
from c2c_jax.spaces.space_id import SpaceId
from c2c_jax.training.train import train
from tests.cli.test_main import refused
from tests.data.test_store import PLAN, TEXTS, begin_store, flip, vectors, write, written

SPACES = (SpaceId(name="a", dim=6, fingerprint="a" * 64), SpaceId(name="b", dim=4, fingerprint="b" * 64))


def replaced_by_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def replaced_by_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGE = {
    "cut": lambda file: os.truncate(file, 10),
    "longer": lambda file: os.truncate(file, 10**12),
    "flipped": flip,
    "missing": Path.unlink,
    "a pipe": replaced_by_pipe,
    "a folder": replaced_by_folder,
    "a broken symbolic link": lambda file: (file.unlink(), file.symlink_to("none")),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_chunk_is_refused_by_every_reader(tmp_path, damage):
    store = written(tmp_path / "store")
    damage(store.path / "source" / "c" / "1" / "0")
    readers = (
        lambda: store.read("source"),
        lambda: store.read_chunk("source", 1),
        lambda: store.read_rows("source", np.array([9, 5, 0])),
    )
    for read in readers:
        with pytest.raises(
            StoreError,
            match=f"chunk 1 .*; to repair it, run .* the same --config and --out {store.path}",
        ) as caught:
            read()
        assert "\n" not in str(caught.value)
    assert [(what, chunk) for what, chunk, _ in store.damage()] == [("source", 1)]
    np.testing.assert_array_equal(store.read_rows("source", np.array([9, 0])), vectors(6)[[9, 0]].astype(np.float16))


@pytest.mark.slow
def test_no_memory_is_taken_for_rows_that_are_not_there(tmp_path):
    """A manifest of 8 billion rows, with a checksum for each of their chunks."""
    store = written(tmp_path / "store")
    rows, chunk_rows = 2**33, 2**20
    checksums = {name: ["0" * 64] * (rows // chunk_rows) for name in store.checksums}
    plan = dataclasses.replace(store.plan, rows=rows, chunk_rows=chunk_rows)
    Store(store.path, plan, checksums).write_manifest()
    hostile = Store.open(store.path)
    config = Config(epochs=1, batch_size=64, data=DataConfig(validation_size=64))
    tracemalloc.start()
    for read in (
        lambda: hostile.read("source"),
        lambda: train(config, hostile, tmp_path / "run"),
        hostile.check_files,
    ):
        with pytest.raises(StoreError, match="chunk 0 .*; to repair it, run c2c embed again with the same"):
            read()
    assert sum(1 for _ in hostile.damage()) == 3 * rows // chunk_rows + 2  # and both zarr.json
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_captions_are_refused(tmp_path, damage):
    store = written(tmp_path / "store")
    damage(store.path / "captions" / "1.txt")
    if damage is DAMAGE["longer"]:  # as while the store grows: the lines that it has are those that it had
        assert list(store.captions()) == TEXTS[:10]
        return
    with pytest.raises(StoreError, match=r"captions/1\.txt.*; to repair it, run c2c embed again with the same"):
        list(store.captions())
    assert [(what, chunk) for what, chunk, _ in store.damage()] == [("captions", 1)]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[10,6]", "[9,6]"), ("[10,6]", "[10,7]"), ("[10,6]", "[10]"), ("[10,6]", '"x"'), ("[10,6]", "[true,6]"),
        ('"float16"', '"float32"'), ('"float16"', "1" * 5000), ("[4,6]", "[5,6]"), ('"little"', '"big"'),
        ('"bytes"', '"gzip"'), ('"regular"', "[" * 100_000), ('"zarr_format":3', '"zarr_format":2'), ("{", ""),
    ],
)  # fmt: skip
def test_zarr_json_of_another_array_is_damage(tmp_path, old, new):
    """Chunks are read without zarr.json, so deep nesting in it is harmless."""
    store = written(tmp_path / "store")
    file = store.path / "source" / "zarr.json"
    whole = file.read_text()
    assert old in whole
    file.write_text(whole.replace(old, new, 1))
    np.testing.assert_array_equal(store.read("source"), vectors(6).astype(np.float16))
    assert list(store.damage()) == [("source", None, "damaged")]
    store.array("source").describe()
    assert file.read_text() == whole and list(store.damage()) == []


MANIFEST = {
    "chunk_rows": ("x", 0, -1, 2**40, 10**30, 1e300, None, True, 5),
    "rows": (0, -1, "ten", 10**30, 11 * 10**11, None, 100),
    "dtype": (10**30, "float64", "", [], {}),
    "source": ({}, None, [], {"name": "s", "dim": -1, "fingerprint": "s"}, {"name": 1, "dim": 6, "fingerprint": "s"},
               {"name": "s", "dim": 10**12, "fingerprint": "s"}),
    "sources": (None, {}, [1], [{"spec": 1}]),
    "captions": (1, "yes", False),
    "checksums": (None, {}, [], dict.fromkeys(("source", "target", "captions"), []),
                  dict.fromkeys(("source", "target", "captions"), 5)),
    "format": (1, "2", None, [2]),
}  # fmt: skip


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in MANIFEST.items() for value in values])
def test_manifest_fields_of_other_types(tmp_path, field, value):
    store = written(tmp_path / "store")
    file = store.path / "manifest.json"
    fields = json.loads(file.read_text())
    for content in ({**fields, field: value}, {name: held for name, held in fields.items() if name != field}):
        file.write_text(json.dumps(content))
        with pytest.raises(StoreError, match=r"manifest\.json .*; delete .* to embed the captions again") as caught:
            Store.open(store.path)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    for content in (b"null", b"5", b"[]", b"[" * 100_000, b'{"format": ' + b"1" * 5000 + b"}", b"\xff\xfe", b""):
        file.write_bytes(content)
        with pytest.raises(StoreError, match=r"manifest\.json "):
            Store.open(store.path)


@pytest.mark.parametrize("name", ["a b", "é ✓", "x#1", "x?1", "x%20", "%", "x[0]", "{y}", "*", "a:b", "a\\b", "c/../d"])
def test_any_path(tmp_path, name, monkeypatch):
    path = tmp_path / name / "store"
    (tmp_path / "c").mkdir()
    store = written(path)
    np.testing.assert_array_equal(store.read("source"), vectors(6).astype(np.float16))
    monkeypatch.chdir(path.parent)
    (tmp_path / "link").symlink_to(path.parent)
    for other in (Path("store"), Path("..") / path.parent.name / "store", tmp_path / "link" / "store"):
        assert list(Store.open(other).captions()) == TEXTS[:10] and list(Store.open(other).damage()) == []


def test_the_largest_change_that_storing_may_make():
    rows = np.random.default_rng(0).normal(size=(7, 64)).astype(np.float32)
    rows[1] *= 1e-9
    rows[2] *= 1e-6
    rows[3] *= 1e5
    rows[4] = 0
    rows[5, 3] = np.nan
    rows[6] *= 1e-3
    stored, is_held = cast_vectors(rows, "float16")
    assert is_held.tolist() == [True, False, False, False, False, False, True]
    np.testing.assert_array_equal(stored[0], rows[0].astype(np.float16))
    assert cast_vectors(rows, "float32")[1].tolist() == [True, True, True, True, False, False, True]
    assert cast_vectors(rows[:1].astype(np.float64) * 1e-45, "float32")[1].tolist() == [False]
    assert cast_vectors(rows[:1].astype(np.float64) * 1e300, "float32")[1].tolist() == [False]


@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1e5, 1.0])
def test_arrays_of_any_size_keep_their_directions(tmp_path, scale):
    source, target = vectors(6) * scale, vectors(4)
    store = store_of_arrays(tmp_path / "store", source, target, SPACES)
    assert store.plan.dtype == ("float16" if scale == 1.0 else "float32")
    stored = store.read("source").astype(np.float64)
    cosine = (
        (stored * source).sum(1) / np.linalg.norm(stored, axis=1) / np.linalg.norm(source.astype(np.float64), axis=1)
    )
    assert cosine.min() > 1 - 1e-6


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1e20, "row 7 has a length of .*e\\+20, whose square does not fit float32"),
        (1e-30, "row 7 has a length of .*e-30, whose square does not fit float32"),
        (0, "source vector of row 7 is zero and has no direction"),
        (np.nan, "row 7 is not finite"),
        (np.inf, "row 7 is"),
    ],
)
def test_rows_of_arrays_that_mean_nothing(tmp_path, value, message):
    source = vectors(6)
    source[7] = value
    with pytest.raises(StoreError, match=message):
        store_of_arrays(tmp_path / "store", source, vectors(4), SPACES)


def test_a_tower_whose_vectors_are_too_small_for_the_store(tmp_path):
    writer = begin_store(tmp_path / "store")
    with pytest.raises(StoreError, match=r"caption 6 is too small for float16 .*--config\.embed\.store_dtype=float32"):
        small = vectors(6)[4:8]
        small[2] *= 1e-7
        writer.write(1, small, vectors(4)[4:8])
    writer = begin_store(tmp_path / "other", dataclasses.replace(PLAN, dtype="float32"))
    writer.write(1, vectors(6)[4:8] * np.float32(1e-7), vectors(4)[4:8])
    write(writer, 0, 2)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.float16, ">f4", np.float64])
def test_arrays_of_other_dtypes(tmp_path, dtype):
    array = np.arange(1, 41).reshape(10, 4).astype(dtype)
    np.save(tmp_path / "x.npy", array)
    store = store_of_arrays(tmp_path / "store", read_array(tmp_path / "x.npy"), array, (SPACES[1], SPACES[1]))
    np.testing.assert_array_equal(store.read("source"), array.astype(np.float16))


def test_zarr_reads_the_arrays_and_a_write_of_its_own_is_damage(tmp_path):
    array = ChunkedArray(10, 4, tmp_path / "x", 6, "float16", "")
    array.describe()
    checksums = [array.write(chunk, vectors(6)[array.rows_of(chunk)]) for chunk in range(3)]
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "x", mode="r")[:], vectors(6).astype(np.float16))
    zarr.open_array(tmp_path / "x", mode="r+")[:4] = 1
    with pytest.raises(StoreError, match="chunk 0 is damaged"):
        array.read(0, checksums[0])
    np.testing.assert_array_equal(array.read(2, checksums[2]), vectors(6)[8:].astype(np.float16))


def test_training_on_a_cut_chunk_is_refused_by_both_loaders(tmp_path, capsys):
    from tests.fixtures.random_store import random_store

    store = random_store(tmp_path / "store")
    os.truncate(store.path / "source" / "c" / "2" / "0", 100)
    for feed in ("resident", "streamed"):
        fields = ["--config.source=", "--config.target=", "--config.data.validation_size=1", "--config.batch_size=80"]
        more = [f"--config.data.loader={feed}", f"--config.data.store={store.path}", "--workdir", str(tmp_path / feed)]
        line = refused(capsys, ["train", "--config", "configs/mlp_infonce.py", *fields, *more])
        assert "chunk 2 is damaged (100 bytes, expected 6,144); to repair it, run c2c embed again" in line
    assert main(["embed", "--verify", str(store.path)]) == 2

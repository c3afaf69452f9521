"""The embedding store: contents, errors, and resuming an unfinished one."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from c2c_jax.data.chunks import write_texts
from c2c_jax.data.store import Plan, SourceRecord, Store
from c2c_jax.data.writer import StoreWriter
from c2c_jax.errors import StoreError
from c2c_jax.spaces.space_id import SpaceId

SOURCE = SpaceId(name="clip", dim=6, fingerprint="s" * 64)
TARGET = SpaceId(name="clap", dim=4, fingerprint="t" * 64)
RECORD = SourceRecord(spec="txt:c.txt", weight=None, stamp="stamp", rows=10, duplicates=1, left_out={"not UTF-8": 2})
PLAN = Plan(
    source=SOURCE,
    target=TARGET,
    sources=(RECORD,),
    drop_duplicates=True,
    captions=True,
    rows=10,
    chunk_rows=4,
    compute="float32",
    dtype="float16",
)
TEXTS = [f"caption {row}, é" for row in range(30)]


def vectors(dim: int, rows: int = 10) -> np.ndarray:
    return np.random.default_rng(dim).normal(size=(30, dim)).astype(np.float32)[:rows]


def begin_store(path: Path, plan: Plan = PLAN) -> StoreWriter:
    """Begins a store with captions and plan, and returns its writer."""
    rows, checksums = write_texts(path / "captions", TEXTS[: plan.rows], plan.chunk_rows)
    assert rows == plan.rows
    StoreWriter.begin(path, plan, checksums)
    return StoreWriter(path)


def write(writer: StoreWriter, *chunks: int) -> None:
    for chunk in chunks:
        rows = writer.new_rows(chunk)
        writer.write(chunk, vectors(6, 30)[rows], vectors(4, 30)[rows])


def written(path: Path) -> Store:
    writer = begin_store(path)
    write(writer, 2, 0, 1)
    writer.finish()
    return Store.open(path)


def test_rows_come_back_in_order_and_zarr_reads_them_too(tmp_path):
    store = written(tmp_path / "store")
    assert store.plan == PLAN
    for side, dim in (("source", 6), ("target", 4)):
        expected = vectors(dim).astype(np.float16)
        np.testing.assert_array_equal(store.read(side), expected)
        np.testing.assert_array_equal(zarr.open_array(tmp_path / "store" / side, mode="r")[:], expected)
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == [
        "captions",
        "manifest.json",
        "source",
        "target",
    ]
    assert list(store.captions()) == TEXTS[:10]
    assert (tmp_path / "store" / "captions" / "2.txt").read_text() == "caption 8, é\ncaption 9, é\n"


def test_unfinished_store_is_taken_up(tmp_path):
    path = tmp_path / "store"
    write(begin_store(path), 0, 2)  # and the process dies here
    progress = next(path.glob("progress-*.jsonl"))
    progress.write_text(progress.read_text() + '{"chunk": 1, "sou')  # in the middle of a line
    with pytest.raises(StoreError, match="no finished embedding store"):
        Store.open(path)
    writer = StoreWriter(path)
    assert set(writer.finished) == {0, 2}
    write(writer, 1)
    writer.finish()
    np.testing.assert_array_equal(Store.open(path).read("source"), vectors(6).astype(np.float16))


def test_missing_chunk_is_not_finished(tmp_path):
    writer = begin_store(tmp_path / "store")
    write(writer, 0, 1)
    with pytest.raises(StoreError, match="1 of 3 chunks were not written"):
        writer.finish()
    assert not Store.exists(tmp_path / "store")


def test_two_writers_share_a_store(tmp_path):
    writers = [begin_store(tmp_path / "store"), StoreWriter(tmp_path / "store", 1)]
    write(writers[0], 0, 2)
    write(writers[1], 1)
    writers[0].finish()
    np.testing.assert_array_equal(Store.open(tmp_path / "store").read("target"), vectors(4).astype(np.float16))


def flip(path: Path, byte: int = 3) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(content)


def test_damage_is_named(tmp_path):
    store = written(tmp_path / "store")
    assert list(store.damage()) == []
    flip(store.path / "target" / "c" / "1" / "0")
    with pytest.raises(StoreError, match="chunk 1 is damaged"):
        store.read("target")
    store.read("source")
    (store.path / "source" / "c" / "2" / "0").unlink()
    flip(store.path / "captions" / "0.txt")
    (store.path / "captions" / "1.txt").unlink()
    assert list(store.damage()) == [
        ("captions", 0, "damaged"),
        ("captions", 1, "missing"),
        ("source", 2, "missing"),
        ("target", 1, "damaged"),
    ]
    (store.path / "source" / "zarr.json").write_text("{}")
    assert ("source", None, "damaged") in list(store.damage())
    store.array("source").describe()
    assert [what for what, _, _ in store.damage()] == ["captions", "captions", "source", "target"]


@pytest.mark.parametrize("old_rows", [8, 10])
def test_growing_keeps_the_old_store_whole_and_its_rows(tmp_path, old_rows):
    """From a full and a partial last chunk: the old manifest stays valid until the new one is written."""
    path, old_plan = tmp_path / "store", dataclasses.replace(PLAN, rows=old_rows)
    writer = begin_store(path, old_plan)
    write(writer, *range(old_plan.chunks))
    writer.finish()
    old = Store.open(path)
    plan = dataclasses.replace(PLAN, rows=15)
    kept = old_rows // 4
    _, checksums = write_texts(path / "captions", TEXTS[kept * 4 : 15], 4, old.checksums["captions"][:kept])
    StoreWriter.begin(path, plan, checksums)
    writer = StoreWriter(path)
    assert sorted(writer.finished) == list(range(kept))
    assert writer.new_rows(kept) == slice(old_rows, 12)
    assert writer.texts(kept) == TEXTS[old_rows:12]
    write(writer, 2)
    for store in (old, Store.open(path)):  # and the process dies here
        np.testing.assert_array_equal(store.read("source"), vectors(6, old_rows).astype(np.float16))
        assert list(store.captions()) == TEXTS[:old_rows]
        assert list(store.damage()) == []
    writer = StoreWriter(path)
    write(writer, 3)
    writer.finish()
    grown = Store.open(path)
    np.testing.assert_array_equal(grown.read("source"), vectors(6, 15).astype(np.float16))
    np.testing.assert_array_equal(zarr.open_array(path / "target", mode="r")[:], vectors(4, 15).astype(np.float16))
    assert list(grown.captions()) == TEXTS[:15]
    assert list(grown.damage()) == []


def test_float32_store(tmp_path):
    writer = begin_store(tmp_path / "store", dataclasses.replace(PLAN, dtype="float32"))
    write(writer, 0, 1, 2)
    writer.finish()
    np.testing.assert_array_equal(Store.open(tmp_path / "store").read("source"), vectors(6))


def test_damaged_manifest(tmp_path):
    written(tmp_path / "store")
    manifest = tmp_path / "store" / "manifest.json"
    whole = manifest.read_text()
    manifest.write_text(whole[:40])
    with pytest.raises(StoreError, match=r"manifest\.json cannot be read as JSON"):
        Store.open(tmp_path / "store")
    manifest.write_text(json.dumps({"format": 99}))
    with pytest.raises(StoreError, match="is of format 99, expected 2"):
        Store.open(tmp_path / "store")


@pytest.mark.parametrize("value", [np.nan, 1e6])
def test_vector_that_float16_cannot_hold(tmp_path, value):
    writer = begin_store(tmp_path / "store")
    source = vectors(6)[4:8]
    source[2, 3] = value
    with pytest.raises(StoreError, match="source vector of caption 6 is not finite in float16"):
        writer.write(1, source, vectors(4)[4:8])

"""The embedding store: what it holds, what it refuses, and that an unfinished one is taken up."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from c2c_jax.data.store import Plan, Store, StoreWriter
from c2c_jax.errors import StoreError
from c2c_jax.spaces import SpaceId

SOURCE = SpaceId(name="clip", dim=6, fingerprint="s" * 64)
TARGET = SpaceId(name="clap", dim=4, fingerprint="t" * 64)
PLAN = Plan(
    source=SOURCE,
    target=TARGET,
    captions="txt:captions.txt",
    captions_stamp="stamp",
    captions_sha256="texts",
    left_out={"not UTF-8": 2},
    rows=10,
    chunk_rows=4,
)


def vectors(dim: int) -> np.ndarray:
    return np.random.default_rng(dim).normal(size=(PLAN.rows, dim)).astype(np.float32)


def write(writer: StoreWriter, *chunks: int) -> None:
    for chunk in chunks:
        rows = PLAN.rows_of(chunk)
        writer.write(chunk, vectors(6)[rows], vectors(4)[rows])


def written(path: Path) -> Store:
    writer = StoreWriter(path, PLAN)
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
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["manifest.json", "source", "target"]


def test_unfinished_store_is_taken_up(tmp_path):
    path = tmp_path / "store"
    write(StoreWriter(path, PLAN), 0, 2)  # and the process dies here
    progress = next(path.glob("progress-*.jsonl"))
    progress.write_text(progress.read_text() + '{"chunk": 1, "sou')  # in the middle of a line
    with pytest.raises(StoreError, match="no finished embedding store"):
        Store.open(path)
    writer = StoreWriter(path, PLAN)
    assert set(writer.finished) == {0, 2}
    write(writer, 1)
    writer.finish()
    np.testing.assert_array_equal(Store.open(path).read("source"), vectors(6).astype(np.float16))


def test_missing_chunk_is_not_finished(tmp_path):
    writer = StoreWriter(tmp_path / "store", PLAN)
    write(writer, 0, 1)
    with pytest.raises(StoreError, match="1 of 3 chunks were not written"):
        writer.finish()
    assert not Store.exists(tmp_path / "store")


def test_two_writers_share_a_store(tmp_path):
    writers = [StoreWriter(tmp_path / "store", PLAN, process) for process in (0, 1)]
    write(writers[0], 0, 2)
    write(writers[1], 1)
    writers[0].finish()
    np.testing.assert_array_equal(Store.open(tmp_path / "store").read("target"), vectors(4).astype(np.float16))


def test_unfinished_store_of_other_captions_is_refused(tmp_path):
    StoreWriter(tmp_path / "store", PLAN)
    with pytest.raises(StoreError, match="differs in captions_sha256"):
        StoreWriter(tmp_path / "store", dataclasses.replace(PLAN, captions_sha256="others"))


def test_damage_is_named(tmp_path):
    store = written(tmp_path / "store")
    chunk = tmp_path / "store" / "target" / "c" / "1" / "0"
    content = bytearray(chunk.read_bytes())
    content[3] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(StoreError, match="chunk 1 is damaged"):
        store.read("target")
    store.read("source")


def test_damaged_manifest(tmp_path):
    written(tmp_path / "store")
    manifest = tmp_path / "store" / "manifest.json"
    whole = manifest.read_text()
    manifest.write_text(whole[:40])
    with pytest.raises(StoreError, match=r"manifest\.json is damaged"):
        Store.open(tmp_path / "store")
    manifest.write_text(json.dumps({"format": 99}))
    with pytest.raises(StoreError, match="another format"):
        Store.open(tmp_path / "store")


@pytest.mark.parametrize("value", [np.nan, 1e6])
def test_vector_that_float16_cannot_hold(tmp_path, value):
    writer = StoreWriter(tmp_path / "store", PLAN)
    source = vectors(6)[4:8]
    source[2, 3] = value
    with pytest.raises(StoreError, match="source vector of caption 6 is not finite in float16"):
        writer.write(1, source, vectors(4)[4:8])


def test_other_spaces_or_captions_are_refused(tmp_path):
    store = written(tmp_path / "store")
    store.expect(SOURCE, TARGET, PLAN.captions, PLAN.captions_stamp)
    store.expect(dataclasses.replace(SOURCE, name="elsewhere"), TARGET, PLAN.captions, PLAN.captions_stamp)
    other = SpaceId(name="another", dim=4, fingerprint="u" * 64)
    with pytest.raises(StoreError, match="target space clap .* asks for another"):
        store.expect(SOURCE, other, PLAN.captions, PLAN.captions_stamp)
    with pytest.raises(StoreError, match="content has changed"):
        store.expect(SOURCE, TARGET, PLAN.captions, "edited")
    with pytest.raises(StoreError, match=r"not from txt:others\.txt"):
        store.expect(SOURCE, TARGET, "txt:others.txt", PLAN.captions_stamp)

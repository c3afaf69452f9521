"""A store write killed between any two steps and resumed gives the same bytes as an uninterrupted one."""

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from c2c_jax.data.arrays import store_of_arrays
from c2c_jax.data.chunks import write_texts
from c2c_jax.data.store import SIDES, Plan, Store, read_plan
from c2c_jax.data.writer import StoreWriter, begin_repair, restore_captions, store_lock
from c2c_jax.errors import StoreError
from c2c_jax.io.atomic import temporary_folder
from c2c_jax.spaces.space_id import SpaceId
from tests.data.test_store import PLAN, TEXTS, flip, vectors
from tests.fixtures.kills import contents, killed_at_every_step


@pytest.fixture(autouse=True)
def no_flushing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skips fsync for speed: a killed process loses nothing that was written."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


GROWN = dataclasses.replace(PLAN, rows=15)


def make(path: Path, plan: Plan = PLAN) -> None:
    """Makes, resumes, grows or repairs a store like `prepare_store`; a finished one stays unchanged."""
    planned, old = read_plan(path), Store.open(path) if Store.exists(path) else None
    is_finished = planned is None and old is not None and old.plan == plan
    if is_finished and not any(old.damage()):
        return
    with store_lock(path):
        if is_finished:
            begin_repair(path)
        elif planned is None:
            kept = old.plan.rows // plan.chunk_rows if old else 0
            checksums = old.checksums["captions"][:kept] if old else []
            with temporary_folder(path) as folder:
                texts = TEXTS[kept * plan.chunk_rows : plan.rows]
                checksums = write_texts(folder, texts, plan.chunk_rows, checksums)[1]
                StoreWriter.begin(path, plan, checksums, folder)
        restore_captions(path, lambda plan: TEXTS[: plan.rows])
        writer = StoreWriter(path)
        for chunk in range(writer.plan.chunks):
            if chunk not in writer.finished:
                rows = writer.new_rows(chunk)
                assert writer.texts(chunk) == TEXTS[rows]
                writer.write(chunk, vectors(6, 30)[rows], vectors(4, 30)[rows])
        writer.finish()


def emptied(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


def copied(source: Path, path: Path) -> None:
    emptied(path)
    shutil.copytree(source, path)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("made") / "store"
    make(path)
    return path


def test_making(made, tmp_path):
    path, unbroken = tmp_path / "store", contents(made)
    for _ in killed_at_every_step(lambda: make(path), lambda: emptied(path)):
        make(path)
        assert contents(path) == unbroken
    assert list(tmp_path.iterdir()) == [path]


def test_growing(made, tmp_path):
    """The old rows are always readable; resumed growth completes the store and leaves no other files."""
    path, grown = tmp_path / "store", tmp_path / "grown"
    copied(made, grown)
    make(grown, GROWN)
    old, unbroken = Store.open(made), contents(grown)
    for step in killed_at_every_step(lambda: make(path, GROWN), lambda: copied(made, path)):
        store = Store.open(path)
        rows = store.plan.rows
        assert rows in (10, 15), step
        np.testing.assert_array_equal(store.read("source")[:10], old.read("source"))
        assert list(store.captions()) == TEXTS[:rows]
        make(path, GROWN)
        assert contents(path) == unbroken


def test_growing_that_is_not_gone_on_with(made, tmp_path):
    """Killed before the larger plan is written and run with the old plan: the old store, with no other files."""
    path, unbroken = tmp_path / "store", contents(made)
    for _ in killed_at_every_step(lambda: make(path, GROWN), lambda: copied(made, path)):
        if read_plan(path) is None and Store.open(path).plan == PLAN:
            make(path)
            assert contents(path) == unbroken


def test_growing_twice(made, tmp_path):
    """Progress of a killed growth is not used for the next, larger one."""
    path, larger = tmp_path / "store", dataclasses.replace(PLAN, rows=23)
    expected = tmp_path / "expected"
    copied(made, expected)
    make(expected, GROWN)
    make(expected, larger)
    for _ in killed_at_every_step(lambda: make(path, GROWN), lambda: copied(made, path)):
        make(path, GROWN)
        make(path, larger)
        assert contents(path) == contents(expected)
        assert list(Store.open(path).damage()) == []


def test_progress_of_another_plan_is_not_taken(made, tmp_path):
    """As older versions left it: a finished store with the progress of its last growth."""
    path = Path(shutil.copytree(made, tmp_path / "store"))
    checksums = {side: "0" * 64 for side in SIDES}
    (path / "progress-0-0.jsonl").write_text(f'{{"chunk": 3, {str(checksums)[1:-1]}}}\n'.replace("'", '"'))
    make(path, GROWN)
    assert list(Store.open(path).damage()) == []
    np.testing.assert_array_equal(Store.open(path).read("source"), vectors(6, 15).astype(np.float16))


def damaged(made: Path, path: Path) -> Path:
    shutil.copytree(made, path)
    flip(path / "source" / "c" / "1" / "0")
    (path / "target" / "zarr.json").write_text("{")
    (path / "target" / "c" / "2" / "0").unlink()
    (path / "captions" / "0.txt").unlink()
    flip(path / "captions" / "2.txt")
    return path


def test_repairing(made, tmp_path):
    path, unbroken = tmp_path / "store", contents(made)
    broken = damaged(made, tmp_path / "damaged")
    for _ in killed_at_every_step(lambda: make(path), lambda: copied(broken, path)):
        make(path)
        assert contents(path) == unbroken


def test_growing_a_damaged_store(made, tmp_path):
    """Damaged vectors are written again, also in the chunk that grows."""
    expected, path = tmp_path / "expected", tmp_path / "store"
    copied(made, expected)
    make(expected, GROWN)
    copied(made, path)
    flip(path / "source" / "c" / "2" / "0")
    os.truncate(path / "target" / "c" / "0" / "0", 5)
    make(path, GROWN)
    assert contents(path) == contents(expected)


def test_growing_by_nothing(made, tmp_path):
    """The new source has only duplicates."""
    path = tmp_path / "store"
    copied(made, path)
    plan = dataclasses.replace(PLAN, sources=(*PLAN.sources, dataclasses.replace(PLAN.sources[0], rows=0)))
    make(path, plan)
    assert Store.open(path).plan == plan and list(Store.open(path).damage()) == []


def test_arrays(tmp_path):
    path = tmp_path / "store"
    spaces = (SpaceId(name="a", dim=6, fingerprint="a" * 64), SpaceId(name="b", dim=4, fingerprint="b" * 64))

    def store() -> Store:
        return store_of_arrays(path, vectors(6), vectors(4), spaces, chunk_rows=4)

    store()
    unbroken = contents(path)
    for _ in killed_at_every_step(store, lambda: emptied(path)):
        store()
        assert contents(path) == unbroken


def test_one_writer_at_a_time(made, tmp_path):
    with store_lock(tmp_path / "store"), pytest.raises(StoreError, match="another process is writing the store"):
        make(tmp_path / "store")
    assert not (tmp_path / "store").exists()
    copy = Path(shutil.copytree(made, tmp_path / "copy"))
    (copy / ".c2c-lock").touch()  # of a process that was killed
    with store_lock(copy):
        make(copy)  # is finished: nobody has to write
    assert contents(copy) == contents(made)


@pytest.mark.parametrize(
    "line",
    [
        "\x00" * 40,
        "[" * 100_000,
        "{}",
        '{"chunk": -1, "source": "%s", "target": "%s"}',
        '{"chunk": 99, "source": "%s", "target": "%s"}',
        '{"chunk": 1, "source": 5, "target": "%s"}',
        '{"chunk": 1, "source": "x", "target": "%s"}',
        '{"chunk": 1e400, "source": "%s", "target": "%s"}',
        '{"chunk": ' + "1" * 5000 + ', "source": "%s", "target": "%s"}',
    ],
)
def test_damaged_lines_of_progress_are_chunks_to_write(made, tmp_path, line):
    path = tmp_path / "store"
    _, checksums = write_texts(path / "captions", TEXTS[:10], 4)
    StoreWriter.begin(path, PLAN, checksums)
    writer = StoreWriter(path)
    writer.write(1, vectors(6)[4:8], vectors(4)[4:8])
    progress = next(path.glob("progress-*.jsonl"))
    whole = progress.read_text()
    progress.write_text(line.replace("%s", "0" * 64) + "\n" + whole.replace('"chunk": 1', '"chunk": 0') + whole[:-20])
    flip(path / "source" / "c" / "1" / "0")
    assert set(StoreWriter(path).finished) == {0}
    progress.write_text(line.replace("%s", "0" * 64) + "\n")
    make(path)
    assert contents(path) == contents(made)


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # the child does without JAX
def test_a_full_disk_is_one_line_and_leaves_nothing(made, tmp_path):
    """The system refuses files beyond a size, as it refuses all where a disk is full."""
    path = tmp_path / "store"
    for limit in (10, 40, 300, 1000):
        child = os.fork()
        if child == 0:
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            try:
                make(path)
            except (StoreError, OSError) as error:
                os._exit(2 if "\n" not in str(error) and "File too large" in str(error) else 1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2, limit
    make(path)
    assert contents(path) == contents(made)

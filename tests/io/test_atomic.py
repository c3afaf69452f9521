"""Atomic replacement: after a kill between any two steps, the old or the new file or folder is complete."""

import contextlib
import os
import shutil
import stat
from pathlib import Path

import pytest

from c2c_jax.io import atomic
from c2c_jax.io.atomic import atomic_write, exclusive_lock, sweep, temporary_folder
from tests.fixtures.kills import contents, killed_at_every_step


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_killed_at_every_step(tmp_path, can_exchange):
    """After a sweep, which every reader does first, exactly the old or the new folder is there."""
    old, new = {"out/a": b"old", "out/only-old": b""}, {"out/a": b"new"}

    def restore() -> None:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        (tmp_path / "out").mkdir()
        for name, content in old.items():
            (tmp_path / name).write_bytes(content)

    def do() -> None:
        with atomic_write(tmp_path / "out") as temporary:
            temporary.mkdir()
            with open(temporary / "a", "wb") as file:
                file.write(b"new")

    states = []
    for _ in killed_at_every_step(do, restore, can_exchange):
        sweep(tmp_path)
        states.append(contents(tmp_path))
        assert states[-1] in (old, new)
    assert old in states and states[-1] == new


def test_a_file_killed_at_every_step(tmp_path):
    def do() -> None:
        with atomic_write(tmp_path / "out" / "file") as temporary, open(temporary, "w") as file:
            file.write("new")

    def restore() -> None:
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "file").write_text("old")

    for _ in killed_at_every_step(do, restore):
        sweep(tmp_path / "out")
        assert contents(tmp_path) in ({"out/file": b"old"}, {"out/file": b"new"})
    assert contents(tmp_path) == {"out/file": b"new"}


def test_a_replacement_that_fails_leaves_the_old_folder(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_text("old")
    replace = os.replace

    def failing(source, target):
        if Path(target) == tmp_path / "out" and ".replaced" not in str(source):
            raise OSError(5, "Input/output error", str(source))
        replace(source, target)

    monkeypatch.setattr(atomic, "_exchange", lambda first, second: False)
    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="Input/output error"), atomic_write(tmp_path / "out") as temporary:
        temporary.mkdir()
    assert contents(tmp_path) == {"out/a": b"old"}


def test_a_failed_write_leaves_nothing_and_names_the_target(tmp_path):
    with pytest.raises(OSError) as caught, atomic_write(tmp_path / "file") as temporary:
        temporary.write_text("half")
        raise OSError(28, "No space left on device", str(temporary))
    assert caught.value.filename == str(tmp_path / "file") and list(tmp_path.iterdir()) == []


def test_devices_and_pipes_are_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="neither a regular file nor a folder"), atomic_write(tmp_path / "pipe"):
        pass
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "file")
    with atomic_write(tmp_path / "link") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "file").read_text() == "new"


def test_what_is_in_use_is_not_swept(tmp_path):
    with temporary_folder(tmp_path) as holder, exclusive_lock(tmp_path):
        sweep(tmp_path)
        assert holder.is_dir() and (tmp_path / atomic.LOCK).exists()
    (tmp_path / atomic.LOCK).touch()
    (tmp_path / f"{atomic.PREFIX}dead").mkdir()
    sweep(tmp_path, tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []


def test_one_holder_at_a_time(tmp_path):
    with exclusive_lock(tmp_path / "new"):
        with pytest.raises(BlockingIOError), exclusive_lock(tmp_path / "new"):
            pass
        assert (tmp_path / "new" / atomic.LOCK).exists()  # still held
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", [".lock", atomic.LOCK])
def test_a_file_of_the_users_own_is_no_lock(tmp_path, name):
    (tmp_path / name).write_text("precious")
    sweep(tmp_path)
    with contextlib.suppress(FileExistsError), exclusive_lock(tmp_path):
        pass
    with atomic_write(tmp_path / "file") as temporary:
        temporary.write_text("new")
    assert contents(tmp_path) == {name: b"precious", "file": b"new"}


def test_a_link_is_no_lock(tmp_path):
    (tmp_path / "own").touch()
    (tmp_path / atomic.LOCK).symlink_to("own")
    sweep(tmp_path)
    with pytest.raises(FileExistsError, match="not a lock"), exclusive_lock(tmp_path):
        pass
    assert (tmp_path / atomic.LOCK).is_symlink() and (tmp_path / "own").exists()

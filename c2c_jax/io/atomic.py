"""Atomic replacement of files and folders, and an exclusive lock on a folder.

Data is first written to a hidden folder `.c2c-tmp-…` next to its target; the writing process holds a lock on it. If
that process dies, the next write to (or `sweep` of) the parent folder removes the hidden folder and restores what had
been moved away but not replaced.
"""

import contextlib
import ctypes
import errno
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

PREFIX = ".c2c-tmp-"
LOCK = ".c2c-lock"
REPLACED = ".replaced"  # inside a temporary folder: what was moved out of the target's place

_swept: set[Path] = set()


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write to; on success it takes the place of `path`, else it is removed.

    The temporary file has the name of its target, since writers of sound and pictures choose a format by the suffix. It
    may be written as a file or made into a folder; a folder replaces a folder of that name. A link's target is written,
    not the link. Raises OSError, naming `path`; also where `path` is a device, a pipe or a socket.
    """
    path = Path(os.path.realpath(path)) if Path(path).is_symlink() else Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "neither a regular file nor a folder: pass another path", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep_once(path.parent)
    with temporary_folder(path.parent) as holder:
        temporary = holder / path.name
        try:
            yield temporary
            _flush(temporary)
            if temporary.is_dir() and path.is_dir():
                _replace_folder(path, temporary, holder / REPLACED)
            else:
                os.replace(temporary, path)
        except OSError as error:
            if error.errno is None or (error.filename and not str(error.filename).startswith(str(holder))):
                raise
            raise type(error)(error.errno, error.strerror, str(path)) from error


def _replace_folder(path: Path, temporary: Path, aside: Path) -> None:
    if _exchange(temporary, path):
        return
    aside.mkdir()
    path.rename(aside / path.name)
    try:
        os.replace(temporary, path)
    except BaseException:
        os.replace(aside / path.name, path)
        raise


def _exchange(one: Path, other: Path) -> bool:
    """Whether the system exchanged two names in one step: renameat2 with RENAME_EXCHANGE on Linux, renameatx_np with
    RENAME_SWAP on macOS."""
    name, here = {"linux": ("renameat2", -100), "darwin": ("renameatx_np", -2)}.get(sys.platform, ("", 0))
    rename: Any = getattr(ctypes.CDLL(None), name, None) if name else None
    return bool(rename) and rename(here, os.fsencode(one), here, os.fsencode(other), ctypes.c_uint(2)) == 0


def _flush(path: Path) -> None:
    """To the disk itself, so that a power failure after the rename leaves no empty file."""
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file() and not file.is_symlink():
            with open(file, "rb+") as opened:
                os.fsync(opened.fileno())


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Makes a hidden folder in `parent`, removed at the end; if the process dies, by the next `sweep` of `parent`."""
    with contextlib.ExitStack() as stack:
        while True:
            holder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            stack.callback(shutil.rmtree, holder, ignore_errors=True)
            try:
                stack.enter_context(_lock(holder))
                break
            except (filelock.Timeout, FileNotFoundError):  # swept by another process before it was locked
                stack.pop_all().close()
        yield holder


def sweep_once(folder: Path) -> None:
    """As `sweep`, but only at the first call for a folder in this process."""
    if folder not in _swept:
        sweep(folder)
        _swept.add(folder)


def sweep(*folders: Path) -> None:
    """Removes the temporary folders and locks that dead processes left in `folders`, and restores what they had moved
    away. Missing folders, and those that may not be written to, are passed over."""
    unless_in_use = contextlib.suppress(filelock.Timeout, OSError)
    for folder in folders:
        if _is_lock(folder / LOCK):
            with unless_in_use, _lock(folder):
                (folder / LOCK).unlink()
        with contextlib.suppress(OSError):
            for holder in sorted(folder.glob(f"{PREFIX}*")):
                with unless_in_use, _lock(holder):
                    for kept in (holder / REPLACED).glob("*"):
                        if not os.path.lexists(folder / kept.name):
                            kept.rename(folder / kept.name)
                    shutil.rmtree(holder, ignore_errors=True)


@contextlib.contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Holds `folder`, made where it is missing, against other processes that ask for it. A folder that is empty at the
    end is removed.

    Raises BlockingIOError where another process holds it, FileExistsError where a file of the lock's name is none.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(folder / LOCK) and not _is_lock(folder / LOCK):
        raise FileExistsError(errno.EEXIST, "is not a lock of c2c: move it away", str(folder / LOCK))
    lock = _lock(folder)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise BlockingIOError(errno.EAGAIN, "another process is at work there", str(folder)) from None
    try:
        yield
    finally:
        try:
            with contextlib.suppress(OSError):
                (folder / LOCK).unlink()  # while it is held: who waits for it sees that, and makes another
        finally:
            lock.release()
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _lock(folder: Path) -> filelock.BaseFileLock:
    return filelock.FileLock(folder / LOCK, blocking=False)


def _is_lock(path: Path) -> bool:
    """Whether there is an empty regular file: nothing is written into a lock."""
    with contextlib.suppress(OSError):
        status = os.lstat(path)
        return stat.S_ISREG(status.st_mode) and not status.st_size
    return False

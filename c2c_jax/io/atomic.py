"""Atomic replacement of files and folders, and an exclusive lock on a folder.

Data is first written to a hidden folder `.c2c-tmp-…` next to its target, which the writing process locks. If that
process dies, the next write to (or `sweep` of) the parent folder removes the hidden folder and restores files that were
moved away but not replaced.

Windows refuses to replace or remove open files: a replacement is retried for a short time, and a lock file is removed
only after it is released.
"""

import contextlib
import ctypes
import errno
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from c2c_jax.io import system

PREFIX = ".c2c-tmp-"
LOCK = ".c2c-lock"
REPLACE_S = 5.0  # seconds for which replacing a file that another program has open is retried on Windows
REPLACED = ".replaced"  # inside a temporary folder: holds the old target until the new one is in place

_swept: set[Path] = set()


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Context manager that yields a temporary path, which replaces `path` on success and is removed on failure.

    The temporary path has the same file name as `path`, because audio and image writers choose the format by suffix.
    Write a file or make a folder there; a folder replaces an existing folder. If `path` is a link, its target is
    replaced. Raises OSError, naming `path`, if writing fails or `path` is a device, a pipe or a socket.
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
                replace(temporary, path)
        except OSError as error:
            if error.errno is None or (error.filename and not str(error.filename).startswith(str(holder))):
                raise
            raise type(error)(error.errno, error.strerror, str(path)) from error


def _replace_folder(path: Path, temporary: Path, backup: Path) -> None:
    if _exchange(temporary, path):
        return
    backup.mkdir()
    replace(path, backup / path.name)
    try:
        replace(temporary, path)
    except BaseException:
        replace(backup / path.name, path)
        raise


def replace(source: Path, target: Path) -> None:
    """Calls os.replace. On Windows, retries for REPLACE_S seconds if a path is open, often in a virus scanner."""
    end = time.monotonic() + REPLACE_S
    while True:
        try:
            return os.replace(source, target)
        except PermissionError:
            if not system.IS_WINDOWS or time.monotonic() > end:
                raise
            time.sleep(0.05)


def _exchange(first: Path, second: Path) -> bool:
    """Swaps two paths in one step if the system can, and returns whether it did: renameat2 with RENAME_EXCHANGE on
    Linux, renameatx_np with RENAME_SWAP on macOS."""
    name, at_fdcwd = {"linux": ("renameat2", -100), "darwin": ("renameatx_np", -2)}.get(sys.platform, ("", 0))
    rename: Any = getattr(ctypes.CDLL(None), name, None) if name else None
    return bool(rename) and rename(at_fdcwd, os.fsencode(first), at_fdcwd, os.fsencode(second), ctypes.c_uint(2)) == 0


def _flush(path: Path) -> None:
    """Flushes files to the disk, so that a power failure after the rename leaves no empty file."""
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file() and not file.is_symlink():
            with open(file, "rb+") as opened:
                os.fsync(opened.fileno())


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Context manager that yields a hidden folder in `parent` and removes it at the end. If the process dies, the next
    `sweep` of `parent` removes it."""
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
    """Calls `sweep` for a folder unless this process has already done so."""
    if folder not in _swept:
        sweep(folder)
        _swept.add(folder)


def sweep(*folders: Path) -> None:
    """Removes the temporary folders and locks that dead processes left in `folders`, and restores what they had moved
    away. Skips folders that are missing or not writable."""
    unless_in_use = contextlib.suppress(filelock.Timeout, OSError)
    for folder in folders:
        if _is_lock(folder / LOCK):
            with unless_in_use, _lock(folder):
                (folder / LOCK).unlink()
        with contextlib.suppress(OSError):
            for holder in sorted(folder.glob(f"{PREFIX}*")):
                with unless_in_use, _lock(holder):
                    for moved in (holder / REPLACED).glob("*"):
                        if not os.path.lexists(folder / moved.name):
                            moved.rename(folder / moved.name)
                    shutil.rmtree(holder, ignore_errors=True)
                with contextlib.suppress(OSError):
                    holder.rmdir()  # on Windows its lock file is removed only when it is released


@contextlib.contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Context manager that locks `folder` against other processes. Makes the folder if it is missing, and then removes
    it at the end if it is still empty.

    Raises BlockingIOError if another process holds the lock, and FileExistsError if a file of another kind has the
    lock's name.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(folder / LOCK) and not _is_lock(folder / LOCK):
        raise FileExistsError(errno.EEXIST, "is not a lock of c2c: move it away", str(folder / LOCK))
    lock = _lock(folder)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise BlockingIOError(errno.EAGAIN, "another process holds its lock", str(folder)) from None
    try:
        yield
    finally:
        try:
            with contextlib.suppress(OSError):
                (folder / LOCK).unlink()  # while it is held: a waiting process notices and makes a new lock file
        finally:
            lock.release()
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _lock(folder: Path) -> filelock.BaseFileLock:
    return filelock.FileLock(folder / LOCK, blocking=False)


def _is_lock(path: Path) -> bool:
    """Whether a path is an empty regular file, as lock files are."""
    with contextlib.suppress(OSError):
        status = os.lstat(path)
        return stat.S_ISREG(status.st_mode) and not status.st_size
    return False

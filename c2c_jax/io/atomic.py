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

import filelock

PREFIX = ".c2c-tmp-"
LOCK = ".c2c-lock"
REPLACED = ".replaced"  # inside a temporary folder: what was moved out of the target's place
_AT_FDCWD = {"linux": -100, "darwin": -2}
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS

_swept: set[Path] = set()


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write to; on success it takes the place of `path`, else it is removed.

    The temporary file has the name of its target, since writers of sound and pictures choose a format by the suffix. It
    may be written as a file or made into a folder; a folder replaces a folder of that name. A link's target is written,
    not the link. Raises OSError, naming `path`; also where `path` is a device, a pipe or a socket.
    """
    path = Path(os.path.realpath(path)) if Path(path).is_symlink() else Path(path)
    _require_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep_once(path.parent)
    with temporary_folder(path.parent) as holder:
        temporary = holder / path.name
        try:
            yield temporary
            _flush(temporary)
        except OSError as error:
            if error.errno is None or (error.filename and not str(error.filename).startswith(str(holder))):
                raise
            raise type(error)(error.errno, error.strerror, str(path)) from error
        try:
            _put_in_place(temporary, path, holder / REPLACED)
        except OSError as error:  # names the target, not the temporary file
            raise type(error)(error.errno, error.strerror, str(path)) from None


def sweep_once(folder: Path) -> None:
    """As `sweep`, but only the first time that this process asks for the folder."""
    if folder not in _swept:
        sweep(folder)
        _swept.add(folder)


def sweep(*folders: Path) -> None:
    """Removes the temporary folders and locks that dead processes left in `folders`, and puts back what they had moved
    away. Missing folders, and those that may not be written to, are passed over."""
    for folder in folders:
        if _is_lock(folder / LOCK):
            with contextlib.suppress(filelock.Timeout, OSError), _locked(folder):
                (folder / LOCK).unlink()
        with contextlib.suppress(OSError):
            for holder in sorted(folder.glob(f"{PREFIX}*")):
                with contextlib.suppress(filelock.Timeout, OSError), _locked(holder):
                    for kept in (holder / REPLACED).glob("*"):
                        if not os.path.lexists(folder / kept.name):
                            kept.rename(folder / kept.name)
                    _remove(holder)


@contextlib.contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Holds `folder`, made where it is missing, against other processes that ask for it. A folder that is empty at the
    end is removed.

    Raises BlockingIOError where another process holds it, FileExistsError where a file of the lock's name is none.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(folder / LOCK) and not _is_lock(folder / LOCK):
        raise FileExistsError(errno.EEXIST, "is not a lock of c2c: move it away", str(folder / LOCK))
    lock = filelock.FileLock(folder / LOCK, blocking=False)
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
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _require_replaceable(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "neither a regular file nor a folder: pass another path", str(path))


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Makes a hidden folder in `parent`, removed at the end; if the process dies, by the next `sweep` of `parent`."""
    with contextlib.ExitStack() as stack:
        while True:
            holder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            stack.callback(_remove, holder)
            try:
                stack.enter_context(_locked(holder))
                break
            except (filelock.Timeout, FileNotFoundError):  # swept by another process before it was locked
                stack.pop_all().close()
        yield holder


def _is_lock(path: Path) -> bool:
    """Whether there is an empty regular file: into a lock nothing is written."""
    with contextlib.suppress(OSError):
        status = os.lstat(path)
        return stat.S_ISREG(status.st_mode) and not status.st_size
    return False


@contextlib.contextmanager
def _locked(holder: Path) -> Iterator[None]:
    lock = filelock.FileLock(holder / LOCK, blocking=False)
    with lock:
        yield


def _put_in_place(temporary: Path, path: Path, aside: Path) -> None:
    if not (temporary.is_dir() and path.is_dir()):
        os.replace(temporary, path)
    elif not _exchange(temporary, path):
        aside.mkdir()
        path.rename(aside / path.name)
        try:
            os.replace(temporary, path)
        except BaseException:
            os.replace(aside / path.name, path)
            raise


def _exchange(one: Path, other: Path) -> bool:
    """Whether the system could exchange two names in one step."""
    name = {"linux": "renameat2", "darwin": "renameatx_np"}.get(sys.platform)
    rename = getattr(ctypes.CDLL(None, use_errno=True), name, None) if name else None
    if rename is None:
        return False
    here = _AT_FDCWD[sys.platform]
    return rename(here, os.fsencode(one), here, os.fsencode(other), ctypes.c_uint(_EXCHANGE)) == 0


def _flush(path: Path) -> None:
    """To the disk itself, so that a power failure behind the rename leaves no empty file."""
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file() and not file.is_symlink():
            with open(file, "rb+") as opened:
                os.fsync(opened.fileno())


def _remove(holder: Path) -> None:
    shutil.rmtree(holder, ignore_errors=True)

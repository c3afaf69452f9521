"""Whole files or none: write beside the target, then rename. And one writer at a time."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Gives a hidden sibling path to write to; on success it replaces `path`, on any error it is removed.

    The sibling keeps the suffix of `path`, since writers of sound and pictures choose a format by it. It may be
    written as a file or made into a folder; a folder replaces an older folder of that name.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    beside = holder / path.name
    try:
        try:
            yield beside
        except OSError as error:
            if error.errno is None or (error.filename and not str(error.filename).startswith(str(holder))):
                raise
            raise type(error)(
                error.errno, error.strerror, str(path)
            ) from error  # of the target, which a write leaves out
        if beside.is_dir() and path.is_dir():
            path.rename(holder / "replaced")
        try:
            os.replace(beside, path)
        except OSError as error:  # tell of the target, not of the hidden file
            raise type(error)(error.errno, error.strerror, str(path)) from None
    finally:
        shutil.rmtree(holder, ignore_errors=True)


@contextlib.contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Holds `folder`, made where it is missing, against other processes that ask the same, as long as this one lives.

    A folder that is empty at the end is taken away.

    Raises BlockingIOError where another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                folder.rmdir()
    finally:
        os.close(descriptor)

"""Observes the steps of a process that change files, and kills the process before one of them.

Steps are seen by a Python audit hook: opening for writing, renaming, removing, making folders, and the look-up of the
function that exchanges two names. fsync is patched. Writes in C++ are not seen, but limits on file sizes apply to them.
"""

import ctypes
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink"}
EXCHANGES = {"renameat2", "renameatx_np"}
STDERR = 4096  # bytes
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def watch(folder: Path, on_step: Callable[[str], object]) -> None:
    """Calls `on_step` with a description before every step in `folder`. Cannot be undone: use it only in children."""
    root, is_inside = os.path.realpath(folder) + "/", threading.local()

    def within(path: Any) -> bool:
        if isinstance(path, int) or path is None:
            return isinstance(path, int)
        return (os.path.join(root, os.fsdecode(path)) + "/").startswith(root)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if getattr(is_inside, "it", False):
            return
        if event == "ctypes.dlsym" and args[1] in EXCHANGES:
            line = "exchange"
        elif event in EVENTS and within(args[0]):
            if event == "open" and not args[2] & WRITING:
                return
            line = f"{event.removeprefix('os.')} {os.path.basename(os.fsdecode(args[0]))}" if args[0] else event
        else:
            return
        is_inside.it = True
        try:
            on_step(line)
        finally:
            is_inside.it = False

    fsync = os.fsync

    def watched_fsync(descriptor: Any) -> None:
        on_step("fsync")
        fsync(descriptor)

    os.fsync = watched_fsync  # type: ignore[assignment]
    sys.addaudithook(hook)


def record_steps(folder: Path, notes: Path) -> None:
    """Writes the description of every step to the file `notes`."""
    notes.unlink(missing_ok=True)
    descriptor = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    watch(folder, lambda line: os.write(descriptor, f"{line}\n".encode("utf-8", "backslashreplace")))


def read_steps(notes: Path) -> list[str]:
    return notes.read_text().splitlines()


def kill_before(folder: Path, number: int) -> None:
    """Kills this process before step `number`, counted from 0."""
    left, lock = [number], threading.Lock()

    def on_step(line: str) -> None:
        with lock:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    watch(folder, on_step)


def disable_exchange() -> None:
    """Behaves as on systems that cannot exchange two names atomically."""
    from c2c_jax.io import atomic

    atomic._exchange = lambda *_: False


def drop_privileges() -> None:
    """Drops root's privileges to read and write everything, so that file permissions apply."""
    if os.geteuid():
        return
    header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, nothing):
        raise OSError(ctypes.get_errno(), "capset")


def kill_in_write(size: int) -> None:
    """Kills this process in the first write that would make a file larger than `size` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def fail_writes_beyond(size: int) -> None:
    """Makes writes fail, as on a full disk, that would make a file other than stderr larger than `size` bytes."""
    size = max(size, STDERR)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

"""Kills between any two steps of what writes files, without a process for each: from one change of the file system on,
every change raises, those of clean-up too, so that the files stay as a kill leaves them."""

import builtins
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from c2c_jax.io import atomic

# What the writers change files by; making folders, and flushing, leaves nothing that another step does not leave.
STEPS = ("replace", "rename", "unlink", "rmdir", "symlink")
CUT = '{"chunk": 0, "sou'  # what a write that is killed leaves of a file


class Killed(BaseException):
    """No `except Exception` or `except OSError` sees it."""


def killed_at_every_step(
    do: Callable[[], object], restore: Callable[[], object], can_exchange: bool = True
) -> Iterator[int]:
    """Runs `do` up to its change number 0, 1, 2, ..., yields after each, and once more after all of it.

    restore: makes the files what they are before `do`, called before each. can_exchange: whether the system exchanges
    two folders in one step.
    """
    for step in range(10_000):
        restore()
        with pytest.MonkeyPatch.context() as patch:
            _kill_at(patch, step, can_exchange)
            try:
                do()
                is_whole = True
            except Killed:
                is_whole = False
        atomic._swept.clear()  # as in a new process
        yield step
        if is_whole:
            return
    raise AssertionError("it never came to its end")


def _kill_at(patch: pytest.MonkeyPatch, step: int, can_exchange: bool) -> None:
    count = 0

    def is_dead() -> bool:
        nonlocal count
        count += 1
        return count > step

    def mortal(original: Callable) -> Callable:
        def change(*args, **kwargs):
            if is_dead():
                raise Killed
            return original(*args, **kwargs)

        return change

    plain_open = builtins.open

    def opened(file, mode="r", *args, **kwargs):
        if any(letter in mode for letter in "wax") and is_dead():
            if count == step + 1:
                with plain_open(file, mode, *args, **kwargs) as cut:
                    cut.write(CUT.encode() if "b" in mode else CUT)
            raise Killed
        return plain_open(file, mode, *args, **kwargs)

    for name in STEPS:
        patch.setattr(os, name, mortal(getattr(os, name)))
    patch.setattr(shutil, "rmtree", mortal(shutil.rmtree))
    patch.setattr(atomic, "_exchange", mortal(atomic._exchange if can_exchange else lambda one, other: False))
    patch.setattr(builtins, "open", opened)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, by its path; of an empty folder the path alone."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
        if path.is_file() or not any(path.iterdir())
    }

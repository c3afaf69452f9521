"""Saves a run's checkpoints atomically with checksums, and restores the newest intact one."""

import contextlib
import dataclasses
import errno
import glob
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Annotated

import jax
import msgspec
from jax.experimental import multihost_utils

from c2c_jax.errors import TrainingError, one_line
from c2c_jax.io.atomic import atomic_write, sweep, temporary_folder
from c2c_jax.io.console import unchanged_root_logger
from c2c_jax.io.files import is_regular, sha256_of
from c2c_jax.io.json import format_json, read_json_as
from c2c_jax.training.step import TrainState, on_any_process

with unchanged_root_logger():
    import orbax.checkpoint as ocp

KEPT = 2
FILES = "files.json"  # in a checkpoint's folder, written last: the size and SHA-256 of each of its other files

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _File:
    size: Annotated[int, msgspec.Meta(ge=0)]
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Files:
    files: dict[str, _File]  # by path in the checkpoint's folder


class Checkpoints:
    """The checkpoints in `WORKDIR/checkpoints`, named by step. The two newest are kept."""

    def __init__(self, workdir: Path):
        self.folder = Path(os.path.realpath(workdir)) / "checkpoints"  # orbax does not accept `..`
        self.link = contextlib.ExitStack()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEPT, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        _silence_orbax()
        try:
            if jax.process_index() == 0:
                _tidy(self.folder)
            multihost_utils.sync_global_devices("checkpoints tidied")
            self.manager = ocp.CheckpointManager(
                self.link.enter_context(_path_without_pattern(self.folder)), options=options
            )
        except OSError as error:
            raise TrainingError(
                f"{self.folder} cannot be written to ({error.strerror}); pass another --workdir"
            ) from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None or jax.process_count() == 1:  # closing waits for the other hosts, one of which may be gone
            self.manager.close()
        self.link.close()

    def save(self, state: TrainState) -> None:
        """Saves a state; all hosts must call it. Raises TrainingError if it cannot be written."""
        step = int(state.step)
        try:
            if jax.process_index() == 0:
                _require_space(self.folder, sum(leaf.nbytes for leaf in jax.tree.leaves(state)))
            self.manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state)), force=True)
            self.manager.wait_until_finished()
            if jax.process_index() == 0:
                _write_files(self.folder / str(step))
        except (ValueError, OSError) as error:  # tensorstore raises a ValueError for a full disk
            raise TrainingError(
                f"the checkpoint of step {step} could not be written to {self.folder} ({_cause(error)}); "
                "free disk space and start again: the run resumes from the previous checkpoint"
            ) from error

    def restore(self, state: TrainState) -> TrainState:
        """Restores the newest intact checkpoint, with the shapes and sharding of `state`. Returns `state` if there is
        none. Damaged checkpoints are reported and moved to `WORKDIR/checkpoints-damaged`."""
        while (step := self.manager.latest_step()) is not None:
            restored, cause = self._read(step, state)
            if not on_any_process(bool(cause)):
                return restored
            damaged = self.folder.with_name("checkpoints-damaged") / str(step)
            if jax.process_index() == 0:
                logger.warning("checkpoint %s is damaged (%s): moved to %s", self.folder / str(step), cause, damaged)
                damaged.parent.mkdir(exist_ok=True)
                while damaged.exists():
                    damaged = damaged.with_name(damaged.name + "-")
                (self.folder / str(step)).rename(damaged)
            multihost_utils.sync_global_devices("damaged checkpoint")
            self.manager.reload()
        return state

    def _read(self, step: int, state: TrainState) -> tuple[TrainState, str]:
        """(saved state, ""), or (`state`, the reason) if the saved one cannot be read."""
        try:
            _check_files(self.folder / str(step))
            items = ocp.args.Composite(state=ocp.args.StandardRestore(state))
            return self.manager.restore(step, args=items).state, ""
        except Exception as error:  # orbax, tensorstore and json each raise their own
            return state, _cause(error)


def _tidy(folder: Path) -> None:
    """Removes what a killed process left behind: temporary files, unfinished checkpoints, and old checkpoints whose
    deletion was interrupted."""
    if not folder.is_dir():
        return
    sweep(folder)
    steps = sorted((path for path in folder.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))
    unfinished = [path for path in steps if not (path / FILES).exists()]
    for path in unfinished:
        logger.warning("checkpoint %s was not written completely: removed", path)
    for path in unfinished + [path for path in steps if path not in unfinished][:-KEPT]:
        shutil.rmtree(path)


def _require_space(folder: Path, size: int) -> None:
    """Raises OSError if the disk has no room for `size` more bytes. Orbax would print a traceback for each array that
    it cannot write."""
    if hasattr(os, "posix_fallocate"):
        with temporary_folder(folder) as holder, open(holder / "space", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    elif shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _write_files(folder: Path) -> None:
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if is_regular(path)}
    records = {name: {"size": path.stat().st_size, "sha256": sha256_of(path)} for name, path in files.items()}
    with atomic_write(folder / FILES) as temporary:
        temporary.write_bytes(format_json({"files": records}))


def _check_files(folder: Path) -> None:
    """Raises TrainingError if a file of a checkpoint has changed since it was written. Orbax would print a traceback
    for some damaged files and read others as if they were intact."""
    sweep(folder)
    if not (folder / FILES).exists():
        raise TrainingError("it is incomplete")
    for name, expected in read_json_as(
        _Files, folder / FILES, TrainingError, "its files cannot be checked"
    ).files.items():
        path = folder / name
        if not is_regular(path):
            raise TrainingError(f"{name} is missing")
        if path.stat().st_size != expected.size or sha256_of(path) != expected.sha256:
            raise TrainingError(f"{name} has changed since it was written")


@contextlib.contextmanager
def _path_without_pattern(folder: Path) -> Iterator[Path]:
    """A path to a folder that orbax does not interpret as a pattern: a symbolic link if the folder's own path contains
    `*`, `?`, `[` or a backslash."""
    name = folder.as_posix()  # on Windows a backslash separates folders
    if glob.escape(name) == name and "\\" not in name:
        yield folder
        return
    folder.mkdir(parents=True, exist_ok=True)
    sweep(Path(tempfile.gettempdir()))
    with temporary_folder(Path(tempfile.gettempdir())) as holder:
        link = holder / "checkpoints"
        link.symlink_to(folder, target_is_directory=True)
        yield link


def _silence_orbax() -> None:
    """Stops orbax from logging a traceback for each array that it cannot write; the exception has the reason."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _cause(error: Exception) -> str:
    for known in ("No space left on device", "File too large", "Disk quota exceeded", "Read-only file system"):
        if known in str(error):
            return known
    return str(error)[:200] if isinstance(error, TrainingError) else one_line(error)[:120]

"""Resumable states of a run: written whole, checked by a checksum of their own, the newest sound one taken up."""

import contextlib
import hashlib
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from c2c_jax.errors import TrainingError, one_line
from c2c_jax.io.console import stderr_console
from c2c_jax.training.dispatch import on_any_host
from c2c_jax.training.step import TrainState

KEPT = 2
LATE_S = 0.2  # reads and writes that go on behind one that failed have ended by then

console = stderr_console()


class Checkpoints:
    """The checkpoints in `WORKDIR/checkpoints`, by step; the two newest are kept."""

    def __init__(self, workdir: Path):
        self.folder = workdir.absolute() / "checkpoints"
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEPT, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        self.manager = ocp.CheckpointManager(self.folder, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None or jax.process_count() == 1:  # closing waits for the other hosts, one of which may be gone
            self.manager.close()

    @property
    def newest(self) -> Path | None:
        step = self.manager.latest_step()
        return None if step is None else self.folder / str(step)

    def save(self, state: TrainState) -> None:
        """Writes a state, on all hosts together. Raises TrainingError where the disk does not take it."""
        step = int(state.step)
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), digest=ocp.args.JsonSave(_digest(state)))
        try:
            with _one_word_of_failure():
                self.manager.save(step, args=items, force=True)
                self.manager.wait_until_finished()
        except (ValueError, OSError) as error:  # tensorstore tells of a full disk by a ValueError
            raise TrainingError(
                f"the checkpoint of step {step} could not be written to {self.folder} ({_cause(error)}); "
                "make room, then start again: the run goes on from the checkpoint before"
            ) from error

    def restore(self, state: TrainState) -> TrainState:
        """The newest sound state, laid out over the devices as `state` is; `state` itself where there is none.

        Damaged ones are told of and moved to `WORKDIR/checkpoints-damaged`.
        """
        while (step := self.manager.latest_step()) is not None:
            restored, cause = self._read(step, state)
            if not on_any_host(bool(cause)):
                return restored
            aside = self.folder.with_name("checkpoints-damaged") / str(step)
            if jax.process_index() == 0:
                console.print(f"checkpoint {self.folder / str(step)} is damaged ({cause}): moved to {aside}")
                aside.parent.mkdir(exist_ok=True)
                while aside.exists():
                    aside = aside.with_name(aside.name + "-")
                (self.folder / str(step)).rename(aside)
            multihost_utils.sync_global_devices("damaged checkpoint")
            self.manager.reload()
        return state

    def _read(self, step: int, state: TrainState) -> tuple[TrainState, str]:
        """What is saved, or `state` and what is wrong with it."""
        items = ocp.args.Composite(state=ocp.args.StandardRestore(state), digest=ocp.args.JsonRestore())
        try:
            with _one_word_of_failure():
                found = self.manager.restore(step, args=items)
        except Exception as error:  # of any kind: orbax, tensorstore and json each raise their own
            return state, _cause(error)
        if found.digest != _digest(found.state):
            return state, "its values are not those that were saved"
        return found.state, ""


@contextlib.contextmanager
def _one_word_of_failure() -> Iterator[None]:
    """Where one array cannot be read or written orbax raises, and prints besides: the traceback of each of its threads,
    and, since its event loop is closed by then, one for every array that ends later. The exception tells it all."""
    before = sys.unraisablehook

    def told(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    def is_no_error(record: logging.LogRecord) -> bool:
        return record.levelno < logging.ERROR

    sys.unraisablehook = told
    orbax, futures = logging.getLogger("absl"), logging.getLogger("asyncio")
    orbax.addFilter(is_no_error)
    futures.addFilter(is_no_error)
    try:
        yield
        futures.removeFilter(is_no_error)  # stays after a failure: such futures are told of when they are freed
    except Exception:
        time.sleep(LATE_S)
        raise
    finally:
        orbax.removeFilter(is_no_error)
        sys.unraisablehook = before


def _digest(state: TrainState) -> dict[str, str]:
    """SHA-256 over all values of a state, which every host holds whole."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(state):
        values = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {values.dtype} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return {"sha256": digest.hexdigest()}


def _cause(error: Exception) -> str:
    for known in ("No space left on device", "File too large", "Disk quota exceeded"):
        if known in str(error):
            return known
    return one_line(error)[:120]

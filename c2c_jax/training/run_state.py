"""Records what a run was started with, so that a resumed run sees the same rows in the same order."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import jax
import msgspec

from c2c_jax.data.store import Plan, Store
from c2c_jax.errors import ConfigError, TrainingError
from c2c_jax.io.atomic import atomic_write, exclusive_lock
from c2c_jax.io.files import describe_path
from c2c_jax.io.json import format_json, read_json, read_json_as

RUN_STATE = "run_state.json"  # in the work directory
OLD_RUN_STATE = "rows.json"  # its name in version 0.1, whose field `feed` is now `loader`
ADVICE = "pass another --workdir"

Positive = Annotated[int, msgspec.Meta(ge=1, le=2**40)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunState:
    """What a run was started with.

    loader: "resident" or "streamed". devices: their number. data: a hash of the vectors, if they came from arrays. The
    other fields describe the store, see `Plan`; source and target are the fingerprints of its spaces.
    """

    loader: Annotated[str, msgspec.Meta(pattern="^(resident|streamed)$")]
    devices: Positive
    rows: Positive
    chunk_rows: Positive
    dtype: str
    source: str
    target: str
    data: str = ""

    @classmethod
    def of(cls, plan: Plan, loader: str) -> "RunState":
        """The state of a new run."""
        return cls(
            loader=loader,
            devices=jax.device_count(),
            rows=plan.rows,
            chunk_rows=plan.chunk_rows,
            dtype=plan.dtype,
            source=plan.source.fingerprint,
            target=plan.target.fingerprint,
            data="".join(record.stamp for record in plan.sources if record.spec == "arrays"),
        )


def start_or_resume(workdir: Path, store: Store, loader: str) -> RunState:
    """Reads the state that a run was started with, or writes it for a new run.

    Raises ConfigError if the run was started on another store, including one that has grown since, or if its state is
    damaged.
    """
    now, before = RunState.of(store.plan, loader), read_run_state(workdir)
    if before is not None and not before.data:  # version 0.1 did not record it
        before = dataclasses.replace(before, data=now.data)
    if before is None:
        if jax.process_index() == 0:
            with atomic_write(workdir / RUN_STATE) as temporary:
                temporary.write_bytes(format_json(dataclasses.asdict(now)))
        return now
    changed = [
        f"{name} {value!s:.80}, now {getattr(now, name)}"
        for name, value in dataclasses.asdict(before).items()
        if name not in ("loader", "devices") and value != getattr(now, name)
    ]
    if changed:
        raise ConfigError(f"{workdir} holds a run on another store ({', '.join(changed)}); {ADVICE}")
    return before


def read_run_state(workdir: Path) -> RunState | None:
    """Reads the state of the run in a work directory; None if there is none. Raises ConfigError if it is damaged."""
    if describe_path(workdir / RUN_STATE) != "no file":
        return read_json_as(RunState, workdir / RUN_STATE, ConfigError, ADVICE)
    old = workdir / OLD_RUN_STATE
    if describe_path(old) == "no file":
        return None
    fields = read_json(old, ConfigError, ADVICE)
    try:
        return msgspec.convert({**fields, "loader": fields.get("feed")}, RunState)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{old} cannot be read ({error}); {ADVICE}") from None


@contextlib.contextmanager
def exclusive_run(workdir: Path) -> Iterator[None]:
    """Context manager that locks a work directory. Raises TrainingError if another run uses it. Process 0 locks it for
    all hosts."""
    if jax.process_index():
        yield
        return
    try:
        with exclusive_lock(workdir):
            yield
    except BlockingIOError:
        raise TrainingError(f"another run is using {workdir}; wait for it, or pass another --workdir") from None

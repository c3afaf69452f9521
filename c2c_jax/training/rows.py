"""What a run was started with, kept in its work directory: resumed, it must see the same rows in the same order."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import jax
import msgspec

from c2c_jax.data.store import Plan, Store
from c2c_jax.errors import ConfigError
from c2c_jax.io.atomic import atomic_write
from c2c_jax.io.files import found_at
from c2c_jax.io.json import read_json_as

RUN_STATE = "rows.json"  # in the work directory

Positive = Annotated[int, msgspec.Meta(ge=1, le=2**40)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunState:
    """feed: how rows come to the devices. devices: how many there were. The rest: of the store, see `Plan`; source and
    target are the fingerprints of its spaces."""

    feed: Annotated[str, msgspec.Meta(pattern="^(resident|streamed)$")]
    devices: Positive
    rows: Positive
    chunk_rows: Positive
    dtype: str
    source: str
    target: str

    @classmethod
    def of(cls, plan: Plan, feed: str) -> "RunState":
        return cls(
            feed=feed,
            devices=jax.device_count(),
            rows=plan.rows,
            chunk_rows=plan.chunk_rows,
            dtype=plan.dtype,
            source=plan.source.fingerprint,
            target=plan.target.fingerprint,
        )


def start_or_resume(workdir: Path, store: Store, feed: str) -> RunState:
    """The state that this run was started with; of a new one, which is written, `feed` and the devices that are there.

    Raises ConfigError where the run was started on another store, one that has grown included, or its state is damaged.
    """
    path, now = workdir / RUN_STATE, RunState.of(store.plan, feed)
    if found_at(path) == "no file":
        if jax.process_index() == 0:
            with atomic_write(path) as temporary:
                temporary.write_text(json.dumps(dataclasses.asdict(now), indent=2) + "\n", encoding="utf-8")
        return now
    before = read_json_as(RunState, path, ConfigError, "pass another --workdir")
    told = [
        f"{name} {value!s:.80}, now {getattr(now, name)}"
        for name, value in dataclasses.asdict(before).items()
        if name not in ("feed", "devices") and value != getattr(now, name)
    ]
    if told:
        raise ConfigError(f"{workdir} holds a run on another store ({', '.join(told)}); pass another --workdir")
    return before

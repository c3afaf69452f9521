"""Which rows a run sees, and in which groups, kept in its work directory: taken up again, it goes on the same way."""

import json
from pathlib import Path
from typing import Any

import jax

from c2c_jax.data.store import Store
from c2c_jax.errors import ConfigError
from c2c_jax.files import written_whole


def settled(workdir: Path, store: Store, feed: str, groups: int) -> tuple[str, int]:
    """The feed that this run began with, and how many groups its batches are in; for a new one those that are given.

    Raises ConfigError where the run began on another store, one that has grown included.
    """
    path = workdir / "rows.json"
    plan = store.plan
    now: dict[str, Any] = {
        "rows": plan.rows,
        "chunk_rows": plan.chunk_rows,
        "dtype": plan.dtype,
        "source": plan.source.fingerprint,
        "target": plan.target.fingerprint,
    }
    if path.is_file():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            feed, groups = before.pop("feed"), before.pop("groups")
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError) as error:
            raise ConfigError(f"{path} is damaged ({error}); pass another --workdir") from None
        if changed := [name for name in now if before.get(name) != now[name]]:
            told = ", ".join(f"{name} {before.get(name)}, now {now[name]}" for name in changed)
            raise ConfigError(f"{workdir} holds a run on another store ({told}); pass another --workdir")
        return feed, groups
    if jax.process_index() == 0:
        with written_whole(path) as beside:
            beside.write_text(json.dumps({"feed": feed, "groups": groups, **now}, indent=2) + "\n", encoding="utf-8")
    return feed, groups

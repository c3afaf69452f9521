"""What a run began with, kept in its work directory: taken up again, it must see the same rows in the same order."""

import json
from pathlib import Path
from typing import Any

import jax

from c2c_jax.data.store import Store
from c2c_jax.errors import ConfigError
from c2c_jax.io.atomic import atomic_write


def settled(workdir: Path, store: Store, feed: str) -> tuple[str, int]:
    """The feed and the number of devices that this run began with; for a new one `feed`, and those that are there.

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
            feed, devices = before.pop("feed"), before.pop("devices")
        except KeyError as error:
            raise ConfigError(f"{path} does not say {error}; pass another --workdir") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is damaged ({error}); pass another --workdir") from None
        if changed := [name for name in now if before.get(name) != now[name]]:
            told = ", ".join(f"{name} {before.get(name)}, now {now[name]}" for name in changed)
            raise ConfigError(f"{workdir} holds a run on another store ({told}); pass another --workdir")
        return feed, devices
    devices = jax.device_count()
    if jax.process_index() == 0:
        with atomic_write(path) as beside:
            beside.write_text(json.dumps({"feed": feed, "devices": devices, **now}, indent=2) + "\n", encoding="utf-8")
    return feed, devices

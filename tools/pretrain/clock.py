"""The time of a training over all its runs."""

import time
from pathlib import Path

from c2c_jax.io.atomic import atomic_write


class Clock:
    """Counts from now on, and adds the minutes of earlier runs, which `path` contains."""

    def __init__(self, path: Path):
        self._path, self._since = path, time.perf_counter()
        self._before = float(path.read_text(encoding="utf-8")) if path.is_file() else 0.0

    @property
    def minutes(self) -> float:
        return self._before + (time.perf_counter() - self._since) / 60

    def save(self) -> None:
        """Writes the minutes so far."""
        with atomic_write(self._path) as temp:
            temp.write_text(f"{self.minutes:.3f}\n", encoding="utf-8")

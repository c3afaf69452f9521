"""Measures training time over interrupted runs."""

import time
from pathlib import Path

from c2c_jax.io.atomic import atomic_write


class Clock:
    """Measures minutes from now, plus those of earlier runs stored in the file `path`."""

    def __init__(self, path: Path):
        self._path, self._since = path, time.perf_counter()
        self._before = float(path.read_text(encoding="utf-8")) if path.is_file() else 0.0

    @property
    def minutes(self) -> float:
        return self._before + (time.perf_counter() - self._since) / 60

    def save(self) -> None:
        """Stores the minutes so far."""
        with atomic_write(self._path) as temp:
            temp.write_text(f"{self.minutes:.3f}\n", encoding="utf-8")

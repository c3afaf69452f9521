"""Progress of the embedding pass, and how long the devices waited in it."""

import contextlib
import time
from collections.abc import Callable, Iterator
from types import TracebackType

from rich.console import Console

from c2c_jax.io.progress import Progress


class EmbeddingProgress(Progress):
    """Progress over captions, and one line at the end."""

    def __init__(self, total: int, console: Console, quiet: bool = False):
        super().__init__(console, "captions", quiet)
        self.total, self.quiet, self.waited = total, quiet, 0.0

    def __enter__(self) -> "EmbeddingProgress":
        super().__enter__()
        self.started = time.monotonic()
        self.task = self.add_task("embedding", total=self.total)
        return self

    @contextlib.contextmanager
    def waiting(self, is_idle: Callable[[], bool]) -> Iterator[None]:
        """Counts the time within as waited if the devices have nothing left to do at its end: no less than they did."""
        start = time.monotonic()
        yield
        if is_idle():
            self.waited += time.monotonic() - start

    def done(self, captions: int | float) -> None:
        self.advance(self.task, captions)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        super().__exit__(kind, error, trace)
        seconds = time.monotonic() - self.started
        if kind is None and self.total and not self.quiet:
            self.console.print(
                f"embedded {self.total:,} captions in {seconds:,.0f} s, {self.total / seconds:,.0f} captions/s; "
                f"the devices waited {self.waited / seconds:.1%} of the time"
            )

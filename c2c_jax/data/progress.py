"""Progress of the embedding pass: captions done, captions per second, time left, and how long the devices waited."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """A live bar on a terminal, a line now and then elsewhere, and one line at the end."""

    def __init__(self, total: int, console: Console, seconds_between_lines: float = 20.0):
        self.total, self.console, self.pause = total, console, seconds_between_lines
        self.done = self.waited = 0.0
        columns = (TextColumn("embedding"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
        self.bar = Bar(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)
        self.task = self.bar.add_task("embedding", total=total, rate="")

    def __enter__(self) -> "Progress":
        self.started = self.told = time.monotonic()
        self.bar.start()
        return self

    @contextlib.contextmanager
    def waiting(self, is_idle: Callable[[], bool]) -> Iterator[None]:
        """Counts the time within as waited if the devices have nothing left to do at its end: no less than they did."""
        began = time.monotonic()
        yield
        if is_idle():
            self.waited += time.monotonic() - began

    def advance(self, captions: float) -> None:
        self.done += captions
        now = time.monotonic()
        rate = self.done / (now - self.started)
        self.bar.update(self.task, completed=int(self.done), rate=f"{rate:,.0f} captions/s")
        if not self.console.is_terminal and now - self.told > self.pause:
            self.told = now
            left = (self.total - self.done) / rate
            self.console.print(
                f"embedded {self.done:,.0f} of {self.total:,} captions, {rate:,.0f} captions/s, {left:,.0f} s left"
            )

    def __exit__(self, kind: object, *exception: object) -> None:
        self.bar.stop()
        seconds = time.monotonic() - self.started
        if kind is None and self.total:
            self.console.print(
                f"embedded {self.total:,} captions in {seconds:,.0f} s, {self.total / seconds:,.0f} captions/s; "
                f"the devices waited {self.waited / seconds:.1%} of the time"
            )

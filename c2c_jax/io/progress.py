"""Progress of long work: bars on a terminal, elsewhere a line every few seconds."""

import contextlib
import math
import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from rich import progress
from rich.console import Console
from rich.text import Text

SECONDS = 5.0  # between lines where there is no terminal
MIN_SECONDS, MIN_FRACTION = 5.0, 0.03  # of work done before an estimate of the time left means something

T = TypeVar("T")


class Progress(progress.Progress):
    """rich's Progress, which also speaks where there is no terminal: every SECONDS a line about the task at work.

    The lines come from a thread of their own, so that they come while one step takes long. console: on stderr.
    unit: what is counted, for the lines. quiet: shows nothing, as in all processes of several but the first.
    """

    def __init__(self, console: Console, unit: str = "", quiet: bool = False):
        super().__init__(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            _Done(),
            _Left(),
            console=console,
            disable=quiet or not console.is_terminal,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self.unit = f" {unit}" if unit else ""
        self._current: progress.TaskID | None = None
        self._ended = threading.Event()
        self._speaks = not (quiet or console.is_terminal)

    def start(self) -> None:
        """Starts the display: bars on a terminal, elsewhere a thread that prints status lines."""
        super().start()
        if self._speaks:
            threading.Thread(target=self._speak, name="progress", daemon=True).start()

    def stop(self) -> None:
        """Stops the display and the thread that prints status lines."""
        self._ended.set()
        super().stop()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def add_task(self, *arguments: object, **options: object) -> progress.TaskID:  # type: ignore[override]
        """Adds a task with rich's arguments, makes it the one in the status lines and returns its id."""
        self._current = super().add_task(*arguments, **options)  # type: ignore[arg-type]
        return self._current

    def begin(self, description: str, total: int | float | None = None) -> progress.TaskID:
        """Adds a task in the place of the one before."""
        if self._current is not None:
            self.remove_task(self._current)
        return self.add_task(description, total=total)

    def counted(self, items: Iterable[T]) -> Iterator[T]:
        """Gives the items, counting them in the current task, a few times a second: there may be millions."""
        task, count, shown = self._current, 0, time.monotonic()
        for item in items:
            yield item
            count += 1
            if task is not None and time.monotonic() - shown > 0.2:
                self.advance(task, count)
                count, shown = 0, time.monotonic()

    def advance(self, task_id: progress.TaskID, advance: int | float = 1) -> None:
        """Adds to a task's completed steps and makes it the one in the status lines."""
        self._current = task_id
        super().advance(task_id, advance)

    def line(self) -> str:
        """What there is to say of the task that was last at work; empty where nothing is."""
        task = next((task for task in self.tasks if task.id == self._current and task.visible), None)
        if task is None or task.finished:
            return ""
        parts = [f"{task.description} {_done(task)}{self.unit}"]
        if task.elapsed and task.completed:
            rate = task.completed / task.elapsed
            parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s")
        if left := time_left(task.completed, task.total, task.elapsed):
            parts.append(f"{left} left")
        return ", ".join(parts)

    def _speak(self) -> None:
        while not self._ended.wait(SECONDS):
            if line := self.line():
                self.console.print(line)


@contextlib.contextmanager
def phase(console: Console, description: str, quiet: bool = False) -> Iterator[Progress]:
    """Progress with one task, whose length is not known."""
    with Progress(console, quiet=quiet) as bar:
        bar.begin(description)
        yield bar
        for task in bar.task_ids:  # nothing of it stays on the terminal
            bar.remove_task(task)


class _Done(progress.ProgressColumn):
    def render(self, task: progress.Task) -> Text:
        return Text(_done(task), style="progress.download")


class _Left(progress.ProgressColumn):
    def render(self, task: progress.Task) -> Text:
        return Text(time_left(task.completed, task.total, task.elapsed), style="progress.remaining")


def time_left(done: int | float, total: int | float | None, seconds: int | float | None) -> str:
    """An estimate such as `1:05`; empty before MIN_SECONDS and MIN_FRACTION of the work are done."""
    if not total or not seconds or seconds < MIN_SECONDS or done < MIN_FRACTION * total:
        return ""
    minutes, left = divmod(math.ceil(seconds * (total - done) / done), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def _done(task: progress.Task) -> str:
    if task.total is None:
        return f"{task.completed:,.0f}" if task.completed else f"for {task.elapsed or 0:,.0f} s"
    return f"{task.completed:,.0f} of {task.total:,.0f}"

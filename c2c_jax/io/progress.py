"""Progress display: bars on a terminal, otherwise a status line every few seconds."""

import contextlib
import contextvars
import math
import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from rich import progress
from rich.text import Text

from c2c_jax.io.console import stderr_console

SECONDS = 5.0  # between status lines
MIN_SECONDS, MIN_FRACTION = 5.0, 0.03  # of work done before the remaining time is estimated

T = TypeVar("T")


_is_hidden = contextvars.ContextVar("is_hidden", default=False)


@contextlib.contextmanager
def show_progress(shown: bool) -> Iterator[None]:
    """Context manager in which all progress is hidden, unless `shown`."""
    token = _is_hidden.set(not shown or _is_hidden.get())
    try:
        yield
    finally:
        _is_hidden.reset(token)


class Progress(progress.Progress):
    """rich's Progress on stderr. If stderr is not a terminal, it prints a status line of the current task every
    SECONDS.

    A separate thread prints the lines, so they appear even during a long step. unit: what is counted, for these lines.
    quiet: shows nothing; for all processes but the first.
    """

    def __init__(self, unit: str = "", quiet: bool = False):
        console = stderr_console()
        quiet = quiet or _is_hidden.get()
        super().__init__(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            _CompletedColumn(),
            _RemainingColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self.unit = f" {unit}" if unit else ""
        self._current: progress.TaskID | None = None
        self._ended = threading.Event()
        self._prints_lines = not (quiet or console.is_terminal)

    def start(self) -> None:
        """Starts the bars, or without a terminal the thread that prints status lines."""
        super().start()
        if self._prints_lines:
            threading.Thread(target=self._print_lines, name="progress", daemon=True).start()

    def stop(self) -> None:
        """Stops the display and the thread that prints status lines."""
        self._ended.set()
        super().stop()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def add_task(self, *arguments: object, **options: object) -> progress.TaskID:  # type: ignore[override]
        """Adds a task with rich's arguments, makes it the current one and returns its id."""
        self._current = super().add_task(*arguments, **options)  # type: ignore[arg-type]
        return self._current

    def begin(self, description: str, total: int | float | None = None) -> progress.TaskID:
        """Adds a task that replaces the current one."""
        if self._current is not None:
            self.remove_task(self._current)
        return self.add_task(description, total=total)

    def counted(self, items: Iterable[T]) -> Iterator[T]:
        """Yields the items and counts them in the current task, which is updated only a few times a second."""
        task, count, shown = self._current, 0, time.monotonic()
        for item in items:
            yield item
            count += 1
            if task is not None and time.monotonic() - shown > 0.2:
                self.advance(task, count)
                count, shown = 0, time.monotonic()

    def advance(self, task_id: progress.TaskID, advance: int | float = 1) -> None:
        """Adds to a task's completed steps and makes it the current one."""
        self._current = task_id
        super().advance(task_id, advance)

    def status_line(self) -> str:
        """The status line of the current task; "" if there is none or it is finished."""
        task = next((task for task in self.tasks if task.id == self._current and task.visible), None)
        if task is None or task.finished:
            return ""
        parts = [f"{task.description} {_completed(task)}{self.unit}"]
        if task.elapsed and task.completed:
            rate = task.completed / task.elapsed
            parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s")
        if left := time_left(task.completed, task.total, task.elapsed):
            parts.append(f"{left} left")
        return ", ".join(parts)

    def _print_lines(self) -> None:
        while not self._ended.wait(SECONDS):
            if line := self.status_line():
                self.console.print(line)


@contextlib.contextmanager
def phase(description: str, quiet: bool = False) -> Iterator[Progress]:
    """Context manager that shows progress of one task of unknown length."""
    with Progress(quiet=quiet) as bar:
        bar.begin(description)
        yield bar
        for task in bar.task_ids:  # leaves nothing on the terminal
            bar.remove_task(task)


class _CompletedColumn(progress.ProgressColumn):
    def render(self, task: progress.Task) -> Text:
        return Text(_completed(task), style="progress.download")


class _RemainingColumn(progress.ProgressColumn):
    def render(self, task: progress.Task) -> Text:
        return Text(time_left(task.completed, task.total, task.elapsed), style="progress.remaining")


def time_left(done: int | float, total: int | float | None, seconds: int | float | None) -> str:
    """Estimates the remaining time, such as `1:05`; "" before MIN_SECONDS and MIN_FRACTION of the work are done."""
    if not total or not seconds or seconds < MIN_SECONDS or done < MIN_FRACTION * total:
        return ""
    minutes, rest = divmod(math.ceil(seconds * (total - done) / done), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _completed(task: progress.Task) -> str:
    if task.total is None:
        return f"{task.completed:,.0f}" if task.completed else f"for {task.elapsed or 0:,.0f} s"
    return f"{task.completed:,.0f} of {task.total:,.0f}"

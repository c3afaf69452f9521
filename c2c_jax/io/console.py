"""Terminal output: log messages and progress on stderr with control characters escaped, and results on stdout."""

import contextlib
import errno
import functools
import io
import logging
import os
import sys
from collections.abc import Iterator

from rich.console import Console

from c2c_jax.io import system
from c2c_jax.io.text import CONTROL, UNSAFE, printable


def print_fields(*fields: object) -> None:
    """Prints one line of tab-separated fields on stdout. Control characters inside a field, such as tabs and line ends,
    are escaped; on a terminal, all characters that `printable` escapes."""
    unsafe = UNSAFE if sys.stdout.isatty() else CONTROL
    line = "\t".join(printable(field, unsafe) for field in fields)
    if sys.stdout.errors == "strict":  # a stream that `prepare_streams` does not configure
        line = line.encode("utf-8", "backslashreplace").decode("utf-8")
    print(line, flush=True)  # noqa: T201


class SafeConsole(Console):
    """rich's Console, which prints each string on one line, escaped by `printable`."""

    def print(self, *objects: object, **options: object) -> None:  # type: ignore[override]
        """Prints objects as rich does, after escaping unsafe characters in strings."""
        safe = (printable(item) if isinstance(item, str) else item for item in objects)
        super().print(*safe, **options)  # type: ignore[arg-type]

    def on_broken_pipe(self) -> None:
        """Raises BrokenPipeError when the reader of the output has closed it."""
        self._buffer.clear()  # so that the next stream does not get what could not be written
        raise BrokenPipeError  # rich's own ends the process with exit code 1


@functools.cache
def stderr_console() -> SafeConsole:
    """Returns the shared console for progress and messages: no markup, no wrapping. It prints on the current
    `sys.stderr`. Since it is shared, messages appear above live progress bars."""
    return SafeConsole(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False, force_jupyter=False)


class ConsoleHandler(logging.Handler):
    """Prints each record's message as one escaped line on stderr. Drops it if stderr is closed.

    Raises BrokenPipeError if the reader of stderr has closed it, and OSError for other failed writes.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Prints the message of a record, above progress bars."""
        console = stderr_console()
        if not console.file.closed:
            console.print(record.getMessage())


@contextlib.contextmanager
def log_to_stderr() -> Iterator[None]:
    """Context manager in which the loggers of `c2c_jax` print notes and warnings on stderr, one line each, and do not
    pass them to other handlers. Afterwards, logging is configured as before."""
    logger, handler = logging.getLogger("c2c_jax"), ConsoleHandler()
    if any(isinstance(other, ConsoleHandler) for other in logger.handlers):  # nested
        yield
        return
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


@contextlib.contextmanager
def unchanged_root_logger() -> Iterator[None]:
    """Context manager for imports of libraries that configure the root logger, which belongs to the program."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def stdout_console() -> SafeConsole:
    """Makes the console for tables on a terminal: no markup."""
    return SafeConsole(highlight=False, markup=False, emoji=False)


def is_closed_pipe(error: OSError) -> bool:
    """Whether an error means that the reader of the output has closed it. Windows sometimes reports EINVAL then."""
    is_odd = system.IS_WINDOWS and error.errno == errno.EINVAL and error.filename is None
    return isinstance(error, BrokenPipeError) or is_odd


def prepare_streams() -> None:
    """Configures stdout and stderr so that any file name can be printed.

    On a terminal, characters that its encoding lacks and bytes that are not UTF-8 are escaped. Elsewhere, names are
    written with the bytes that they have in the file system. If the process was started without a stream (`>&-`),
    output to it is dropped.
    """
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        if type(stream) is not io.TextIOWrapper:  # a test or a notebook replaced it
            continue
        if stream.isatty():
            stream.reconfigure(errors="backslashreplace")
        else:
            stream.reconfigure(encoding="utf-8", errors=sys.getfilesystemencodeerrors())

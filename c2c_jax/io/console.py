"""Terminal output: messages on stderr with control characters escaped, and results on stdout."""

import errno
import io
import os
import re
import sys

from rich.console import Console

from c2c_jax.io import system

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def printable(text: object) -> str:
    """Returns text on one line, with control, direction and undecodable characters as escapes (`\\n`, `\\x1b`)."""
    return _UNSAFE.sub(_escaped, str(text))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # Python decodes bytes of a file name that are not UTF-8 to these
        return f"\\x{code - 0xDC00:02x}"
    return match[0].encode("unicode_escape").decode("ascii")


def print_fields(*fields: object) -> None:
    """Prints one line of tab-separated fields on stdout. Control characters inside a field, such as tabs and line ends,
    are escaped; on a terminal, all characters that `printable` escapes."""
    unsafe = _UNSAFE if sys.stdout.isatty() else _CONTROL
    line = "\t".join(unsafe.sub(_escaped, str(field)) for field in fields)
    if sys.stdout.errors == "strict":  # a stream that `prepare_streams` does not configure
        line = line.encode("utf-8", "backslashreplace").decode("utf-8")
    print(line, flush=True)


class SafeConsole(Console):
    """rich's Console, which prints each string on one line, escaped by `printable`."""

    def print(self, *objects: object, **options: object) -> None:  # type: ignore[override]
        """Prints objects as rich does, after escaping unsafe characters in strings."""
        safe = (printable(item) if isinstance(item, str) else item for item in objects)
        super().print(*safe, **options)  # type: ignore[arg-type]

    def on_broken_pipe(self) -> None:
        """Raises BrokenPipeError when the reader of the output has closed it."""
        raise BrokenPipeError  # rich's own ends the process with exit code 1


def stderr_console() -> SafeConsole:
    """Makes the console for progress and notes: no markup, no wrapping."""
    return SafeConsole(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


def stdout_console() -> SafeConsole:
    """Makes the console for tables on a terminal: no markup."""
    return SafeConsole(highlight=False, markup=False, emoji=False)


def is_closed_pipe(error: OSError) -> bool:
    """Whether an error means that the reader of the output has closed it. Windows reports EINVAL in some such cases."""
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

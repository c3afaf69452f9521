"""Lines for people on stderr, with nothing in a file's name that a terminal would act on; names on stdout, byte for
byte."""

import io
import os
import re
import sys

from rich.console import Console

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def printable(text: object) -> str:
    """Text on one line, its control, direction and undecodable characters written as escapes (`\\n`, `\\x1b`)."""
    return _UNSAFE.sub(_escaped, str(text))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file's name that is not UTF-8, as Python decodes it
        return f"\\x{code - 0xDC00:02x}"
    return match[0].encode("unicode_escape").decode("ascii")


def print_fields(*fields: object) -> None:
    """Prints one line of tab-separated fields on stdout. Tabs, line ends and other control characters inside a field
    are written as escapes; on a terminal so is all that `printable` escapes."""
    unsafe = _UNSAFE if sys.stdout.isatty() else _CONTROL
    line = "\t".join(unsafe.sub(_escaped, str(field)) for field in fields)
    if sys.stdout.errors == "strict":  # a stream that `prepare_streams` leaves as it is
        line = line.encode("utf-8", "backslashreplace").decode("utf-8")
    print(line, flush=True)


class SafeConsole(Console):
    """rich's console for plain lines: a string is printed as `printable` writes it, on one line."""

    def print(self, *objects: object, **options: object) -> None:  # type: ignore[override]
        """Prints objects as rich does, after escaping unsafe characters in strings."""
        safe = (printable(one) if isinstance(one, str) else one for one in objects)
        super().print(*safe, **options)  # type: ignore[arg-type]

    def on_broken_pipe(self) -> None:
        """Raises BrokenPipeError when the reader of the output has closed it."""
        raise BrokenPipeError  # rich's own ends the process with exit code 1


def stderr_console() -> SafeConsole:
    """Where progress and notes go: no markup, no wrapping."""
    return SafeConsole(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


def stdout_console() -> SafeConsole:
    """Where tables go on a terminal: no markup."""
    return SafeConsole(highlight=False, markup=False, emoji=False)


def prepare_streams() -> None:
    """Makes stdout and stderr take every name. On a terminal, characters that its encoding lacks and bytes that are not
    UTF-8 are escaped; elsewhere names are written as the bytes that they are in the file system. What goes to a stream
    that the process was started without (`>&-`) is dropped."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")
    for stream in (sys.stdout, sys.stderr):
        if type(stream) is not io.TextIOWrapper:  # one that a test or a notebook has put there
            continue
        if stream.isatty():
            stream.reconfigure(errors="backslashreplace")
        else:
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")

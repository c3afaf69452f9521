"""Ctrl-C, SIGTERM and SIGHUP: an exception in the main thread, and a hard end where that does not suffice."""

import contextlib
import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any, NoReturn

GRACE_S = 4.0  # for the main thread to unwind; a hard end loses nothing, since all writes are atomic
LATER_S = 0.01  # for which a signal is put off
SAME_S = 0.5  # signals this close together count as one: a terminal and a wrapper such as make may both send it
_WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "the terminal was closed"}
ENDING = {int(getattr(signal, name)): words for name, words in _WORDS.items() if hasattr(signal, name)}

_end = threading.Lock()  # taken by the thread that ends the process


class Interrupted(KeyboardInterrupt):
    """Raised in the main thread by Ctrl-C, SIGTERM and SIGHUP, within `ending_on_signals`."""

    def __init__(self, number: int):
        super().__init__(ENDING[number])
        self.number = number


@contextlib.contextmanager
def ending_on_signals(program: str, codes: Mapping[int, int] | None = None) -> Iterator[None]:
    """Context in which Ctrl-C, SIGTERM and SIGHUP raise Interrupted in the main thread, once.

    The process ends at once, after one line on stderr, on a second signal, and where the main thread has not left the
    context GRACE_S seconds after the first: Python raises nothing while compiled code runs, and a library may swallow
    the exception.

    program: begins that line. codes: exit codes by signal, where they are not 128 + its number. Signals that were
    ignored before stay ignored (nohup). Outside of the main thread, which alone gets signals, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    first: list[int] = []
    put_off: list[int] = []  # signals that will be sent again

    def interrupt(number: int, frame: FrameType | None) -> None:
        if first:
            return
        if _is_collecting(frame):  # where Python prints exceptions and drops them
            put_off.append(number)
            threading.Timer(LATER_S, signal.raise_signal, [number]).start()
            return
        first.append(number)
        raise Interrupted(number)

    def end(number: int) -> NoReturn:
        end_now(f"{program}: {ENDING[number]}", (codes or {}).get(number, 128 + number))

    read_end, write_end = socket.socketpair()
    write_end.setblocking(False)
    watcher = threading.Thread(target=_watch, args=(read_end, interrupt, put_off, end), name="signals", daemon=True)
    watcher.start()
    wakeup_before = signal.set_wakeup_fd(write_end.fileno(), warn_on_full_buffer=False)
    before = {one: signal.getsignal(one) for one in ENDING if signal.getsignal(one) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    except Exception as error:
        if first:  # a library wrapped it
            raise Interrupted(first[0]) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(wakeup_before)
        write_end.close()
        watcher.join()
        read_end.close()
    if first:  # a library swallowed it
        raise Interrupted(first[0])


def _is_collecting(frame: FrameType | None) -> bool:
    """Whether a frame is in a callback of the garbage collector; JAX has one."""
    callbacks = {getattr(one, "__code__", None) for one in gc.callbacks}
    while frame and frame.f_code not in callbacks:
        frame = frame.f_back
    return frame is not None


def _watch(
    arrivals: socket.socket, handler: Callable[..., Any], put_off: list[int], end: Callable[[int], NoReturn]
) -> None:
    """Reads the number of each signal as it arrives, even while the main thread runs compiled code, until the socket is
    closed. Calls `end` on a second signal for `handler`, and GRACE_S seconds after the first. put_off: signals that are
    sent again, which count once."""
    first, since = 0, 0.0
    try:
        while byte := arrivals.recv(1):
            if signal.getsignal(byte[0]) is not handler:  # see `noted`
                continue
            if not first:
                first, since = byte[0], time.monotonic()
                arrivals.settimeout(GRACE_S)
            elif put_off:
                put_off.pop()
            elif time.monotonic() - since > SAME_S:
                end(byte[0])
    except TimeoutError:
        end(first)


@contextlib.contextmanager
def noted(number: int) -> Iterator[Callable[[], bool]]:
    """Context in which a signal does not end the process; yields a function that returns whether it has arrived (always
    False outside of the main thread)."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    received: list[int] = []
    before = signal.signal(number, lambda *_: received.append(number))
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(number, before)


def end_now(line: str, code: int) -> NoReturn:
    """Ends the process from any thread, after one line on stderr; only the first of several callers does. Writes past
    Python's streams, whose locks the main thread may hold, and runs no clean-up."""
    _end.acquire()
    shown = b"\x1b[?25h\n" if os.isatty(2) else b""  # a progress bar hides the cursor
    with contextlib.suppress(OSError):
        os.write(2, shown + os.fsencode(line) + b"\n")
    os._exit(code)

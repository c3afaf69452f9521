"""Handles signals such as Ctrl-C: raises an exception in the main thread, or ends the process if that fails."""

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

GRACE_S = 4.0  # for the main thread to unwind; a forced exit loses nothing, since all writes are atomic
RETRY_S = 0.01  # after which a postponed signal is sent again
MERGE_S = 0.5  # signals this close together count as one: a terminal and a wrapper such as make may both send it
# Windows sends SIGBREAK for Ctrl-Break and when a console is closed; it has no SIGHUP and sends no SIGTERM.
_WORDS = {
    "SIGINT": "interrupted",
    "SIGTERM": "terminated",
    "SIGHUP": "the terminal was closed",
    "SIGBREAK": "interrupted",
}
SIGNALS = {int(getattr(signal, name)): words for name, words in _WORDS.items() if hasattr(signal, name)}

_exit_lock = threading.Lock()  # held by the thread that ends the process


class Interrupted(KeyboardInterrupt):
    """Raised in the main thread by Ctrl-C, SIGTERM, SIGHUP and Ctrl-Break within `raise_on_signals`."""

    def __init__(self, number: int):
        super().__init__(SIGNALS[number])
        self.number = number


@contextlib.contextmanager
def raise_on_signals(program: str, codes: Mapping[int, int] | None = None) -> Iterator[None]:
    """Context manager in which the first Ctrl-C, SIGTERM, SIGHUP or Ctrl-Break raises Interrupted in the main thread.

    A second signal ends the process at once, with one line on stderr. So does the first one if the main thread is still
    inside after GRACE_S seconds: Python raises nothing during compiled code, and a library may swallow the exception.

    program: begins that line. codes: exit codes by signal; the default is 128 + its number. Signals that were ignored
    before stay ignored (nohup). Does nothing outside the main thread, which alone receives signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    first: list[int] = []
    postponed: list[int] = []  # signals that will be sent again

    def interrupt(number: int, frame: FrameType | None) -> None:
        if first:
            return
        if _is_collecting(frame):  # Python drops exceptions there
            postponed.append(number)
            threading.Timer(RETRY_S, signal.raise_signal, [number]).start()
            return
        first.append(number)
        raise Interrupted(number)

    def end(number: int) -> NoReturn:
        exit_now(f"{program}: {SIGNALS[number]}", (codes or {}).get(number, 128 + number))

    read_end, write_end = socket.socketpair()
    write_end.setblocking(False)
    watcher = threading.Thread(target=_watch, args=(read_end, interrupt, postponed, end), name="signals", daemon=True)
    watcher.start()
    wakeup_before = signal.set_wakeup_fd(write_end.fileno(), warn_on_full_buffer=False)
    before = {number: handler for number in SIGNALS if (handler := signal.getsignal(number)) is not signal.SIG_IGN}
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
    """Whether a frame runs inside a callback of the garbage collector; JAX has one."""
    codes = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while frame and frame.f_code not in codes:
        frame = frame.f_back
    return frame is not None


def _watch(
    arrivals: socket.socket, handler: Callable[..., Any], postponed: list[int], end: Callable[[int], NoReturn]
) -> None:
    """Reads signal numbers from the socket until it is closed, even while the main thread runs compiled code.

    Calls `end` on a second signal for `handler`, and GRACE_S seconds after the first. postponed: signals that are sent
    again, which count once.
    """
    first, since = 0, 0.0
    try:
        while byte := arrivals.recv(1):
            elapsed = time.monotonic() - since
            if signal.getsignal(byte[0]) is not handler:  # see `record_signal`
                continue
            if not first:
                first, since, elapsed = byte[0], time.monotonic(), 0.0
            elif postponed:
                postponed.pop()
            elif elapsed > MERGE_S:
                end(byte[0])
            arrivals.settimeout(max(GRACE_S - elapsed, 1e-3))  # a signal that is sent again does not restart it
    except TimeoutError:
        end(first)


@contextlib.contextmanager
def record_signal(number: int) -> Iterator[Callable[[], bool]]:
    """Context manager in which a signal is only recorded. Yields a function that returns whether it has arrived, always
    False outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    received: list[int] = []
    before = signal.signal(number, lambda *_: received.append(number))
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(number, before)


def exit_now(line: str, code: int) -> NoReturn:
    """Ends the process from any thread after one line on stderr, without clean-up; only the first caller does.

    Bypasses Python's streams, because the main thread may hold their locks.
    """
    _exit_lock.acquire()
    prefix = b"\x1b[?25h\n" if os.isatty(2) else b""  # a progress bar hides the cursor
    with contextlib.suppress(OSError):
        os.write(2, prefix + os.fsencode(line) + b"\n")
    os._exit(code)

"""Signals that end the program wherever it is: inside a garbage collection, in compiled code, at a barrier of hosts."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any, NoReturn

GRACE_S = 5.0  # for the main thread to unwind; nothing is lost by a hard end, since all writes are atomic
SAME_S = 0.5  # signals this close together are one: a terminal and a wrapper such as make may both send it
WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "the terminal was closed"}  # no SIGHUP on Windows
ENDING = {int(getattr(signal, name)): words for name, words in WORDS.items() if hasattr(signal, name)}
_LOST, _DONE = 254, 255  # bytes to the watcher, beside the numbers of signals

_noted: set[int] = set()
_end = threading.Lock()  # taken by the one that ends the process


class Interrupted(KeyboardInterrupt):
    """Raised in the main thread by Ctrl-C, SIGTERM and SIGHUP, within `ending_on_signals`."""

    def __init__(self, number: int):
        super().__init__(ENDING[number])
        self.number = number


@contextlib.contextmanager
def ending_on_signals(program: str, codes: Mapping[int, int] | None = None) -> Iterator[None]:
    """Within it Ctrl-C, SIGTERM and SIGHUP raise Interrupted in the main thread, whatever it does.

    Where Python drops the exception because it was raised in a callback (of the garbage collector, `__del__`, a weak
    reference, C code), it is raised again. The process ends at once, after one line on stderr, when a second signal
    comes, and when the main thread has not left the block GRACE_S seconds after the first.

    program: begins that line. codes: exit codes by signal, where they are not 128 + its number. Signals that were
    ignored before stay ignored (nohup). Outside of the main thread, which alone gets signals, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    watcher = _Watcher(program, codes or {})
    watcher.start()
    try:
        yield
    except Interrupted:
        raise
    except Exception as error:
        if watcher.first:  # a library wrapped it
            raise Interrupted(watcher.first) from error
        raise
    finally:
        watcher.stop()
    if watcher.first:  # a library swallowed it
        raise Interrupted(watcher.first)


@contextlib.contextmanager
def noted(number: int) -> Iterator[Callable[[], bool]]:
    """Context in which a signal does not end the process; yields a function that returns whether it has arrived (always
    False outside of the main thread)."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    received: list[int] = []
    before = signal.signal(number, lambda *_: received.append(number))
    _noted.add(number)
    try:
        yield lambda: bool(received)
    finally:
        _noted.discard(number)
        signal.signal(number, before)


class _Watcher:
    """A thread that sees every signal as it arrives, through `signal.set_wakeup_fd`, while the main thread may not."""

    def __init__(self, program: str, codes: Mapping[int, int]):
        self.program, self.codes = program, codes
        self.first = 0  # the signal that was raised
        self.raise_again = False
        self.own = 0  # signals sent by this thread that it will see itself
        self.main = threading.get_ident()

    def start(self) -> None:
        self.read_end, self.write_end = socket.socketpair()
        self.write_end.setblocking(False)
        self.thread = threading.Thread(target=self._watch, name="signals", daemon=True)
        self.thread.start()
        self.hook_before, sys.unraisablehook = sys.unraisablehook, self._unraisable
        self.wakeup_before = signal.set_wakeup_fd(self.write_end.fileno(), warn_on_full_buffer=False)
        self.handlers_before = {number: signal.getsignal(number) for number in ENDING}
        for number, before in self.handlers_before.items():
            if before is not signal.SIG_IGN:
                signal.signal(number, self._raise)

    def stop(self) -> None:
        for number, before in self.handlers_before.items():
            signal.signal(number, before if before is not None else signal.SIG_DFL)
        signal.set_wakeup_fd(self.wakeup_before)
        sys.unraisablehook = self.hook_before
        self._tell(_DONE)
        self.thread.join()
        self.read_end.close()
        self.write_end.close()

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if self.first and not self.raise_again:
            return  # it is on its way up already: what is being closed is not disturbed
        self.first, self.raise_again = number, False
        raise Interrupted(number)

    def _unraisable(self, unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, Interrupted):
            self._tell(_LOST)
        else:
            self.hook_before(unraisable)

    def _tell(self, byte: int) -> None:
        with contextlib.suppress(BlockingIOError):  # a full buffer has woken the thread already
            self.write_end.send(bytes([byte]))

    def _watch(self) -> None:
        first, since = 0, 0.0
        while True:
            self.read_end.settimeout(max(since + GRACE_S - time.monotonic(), 1e-3) if first else None)
            try:
                byte = self.read_end.recv(1)[0]
            except TimeoutError:
                self._end(first)
            if byte == _DONE:
                return
            if byte == _LOST:
                time.sleep(0.01)  # until the callback that swallowed it is left
                self.raise_again = True
                self.own += 1
                self._signal_main(first)
            elif byte in _noted or byte not in ENDING or self.handlers_before[byte] is signal.SIG_IGN:
                continue
            elif self.own:
                self.own -= 1
            elif not first:
                first, since = byte, time.monotonic()
            elif time.monotonic() - since > SAME_S:
                self._end(byte)

    def _signal_main(self, number: int) -> None:
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(self.main, number)
        else:
            signal.raise_signal(number)

    def _end(self, number: int) -> NoReturn:
        end_now(f"{self.program}: {ENDING[number]}", self.codes.get(number, 128 + number))


def end_now(line: str, code: int) -> NoReturn:
    """Ends the process from any thread, after one line on stderr; the first of several callers does. It writes past
    Python's streams, whose locks the main thread may hold, and runs nothing that is left to do."""
    _end.acquire()
    shown = b"\x1b[?25h\n" if os.isatty(2) else b""  # a progress bar hides the cursor
    with contextlib.suppress(OSError):
        os.write(2, shown + os.fsencode(line) + b"\n")
    os._exit(code)

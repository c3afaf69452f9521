"""Signals take effect whatever Python is doing when they arrive."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from c2c_jax.io.signals import SIGNALS, Interrupted, raise_on_signals, record_signal
from tests.fixtures.programs import ROOT


@pytest.fixture(autouse=True)
def not_ignored():
    """`nohup` starts programs with SIGHUP ignored, which `raise_on_signals` respects."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def in_collection(call: Callable[[], None]) -> None:
    def callback(phase: str, info: dict) -> None:
        if phase == "start":
            call()

    gc.callbacks.append(callback)
    gc.collect(0)
    gc.callbacks.remove(callback)


def in_plain_code(call: Callable[[], None]) -> None:
    call()


def swallowed_by_a_library(call: Callable[[], None]) -> None:
    with contextlib.suppress(BaseException):
        call()


def wrapped_by_a_library(call: Callable[[], None]) -> None:
    try:
        call()
    except BaseException as error:
        raise RuntimeError("a callback failed") from error


def raised_from(context: Callable, number: int, works_on: bool = True) -> int:
    """Returns the signal that ends the block when one is raised in a context."""
    with pytest.raises(Interrupted) as caught, raise_on_signals("c2c x"):
        context(lambda: signal.raise_signal(number))
        while works_on:
            time.sleep(0.001)
    return caught.value.number


@pytest.mark.parametrize("context", [in_plain_code, in_collection])
def test_acts_every_time(context):
    for _ in range(30):
        for number in SIGNALS:
            assert raised_from(context, number) == number


@pytest.mark.parametrize("context", [swallowed_by_a_library, wrapped_by_a_library])
def test_is_not_lost_in_a_library(context):
    assert raised_from(context, signal.SIGTERM, works_on=False) == signal.SIGTERM


def test_everything_is_put_back():
    before = [signal.getsignal(number) for number in SIGNALS], threading.active_count()
    with raise_on_signals("c2c x"):
        assert signal.getsignal(signal.SIGINT) is not before[0][0]
    assert ([signal.getsignal(number) for number in SIGNALS], threading.active_count()) == before
    assert signal.set_wakeup_fd(-1) == -1
    with pytest.raises(ValueError, match="own"), raise_on_signals("c2c x"):
        raise ValueError("of its own")


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup leaves it
    try:
        with raise_on_signals("c2c x"):
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_noted():
    with raise_on_signals("c2c x"), record_signal(signal.SIGTERM) as is_terminated:
        assert not is_terminated()
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
        assert is_terminated()
    assert raised_from(in_plain_code, signal.SIGTERM) == signal.SIGTERM


def test_in_another_thread_nothing_is_done():
    before, results = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with raise_on_signals("c2c x"), record_signal(signal.SIGTERM) as is_terminated:
            results.append((signal.getsignal(signal.SIGINT), is_terminated()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == [(before, False)]


# The main thread is in C code that no signal interrupts; keeps on swallowing; waits for a thread that does not end; or
# is nearly always in a callback of the garbage collector.
STUCK = {
    "C code": """
mutex = ctypes.create_string_buffer(64)
for _ in range(2): ctypes.CDLL(None).pthread_mutex_lock(mutex)
""",
    "swallowing": """
while True:
    try: time.sleep(1)
    except BaseException: pass
""",
    "thread": """
with ThreadPoolExecutor(1) as pool: pool.submit(lambda: [time.sleep(1) for _ in iter(int, 1)])
""",
    "collection": """
gc.callbacks.append(lambda phase, info: time.sleep(0.1))
while True: gc.collect()
""",
}
PROGRAM = """
import ctypes, gc, signal, sys, time
from concurrent.futures import ThreadPoolExecutor
from c2c_jax.cli import main, miniworld
from c2c_jax.io import signals
for number in signals.SIGNALS: signal.signal(number, signal.default_int_handler)  # whatever this was started by
signals.GRACE_S = float(sys.argv[1])
def run(args):
    print("up", flush=True)
    exec(sys.argv[2], globals())
miniworld.run = run
main.program(["miniworld", "show"])
"""


@pytest.mark.parametrize(("context", "number"), list(zip(STUCK, [*SIGNALS, signal.SIGINT], strict=True)))
@pytest.mark.parametrize("grace", [0.2, 1000.0], ids=["once", "again and again"])
def test_ends_a_main_thread_that_is_stuck(context, number, grace):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(grace), STUCK[context]], cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout and process.stderr and process.stdout.readline() == "up\n"
    process.send_signal(number)
    while grace > 1 and process.poll() is None:
        time.sleep(0.05)
        process.send_signal(number)
    error = process.stderr.read()
    assert process.wait() == 128 + number and error == f"c2c miniworld: {SIGNALS[number]}\n"
    process.stdout.close()
    process.stderr.close()

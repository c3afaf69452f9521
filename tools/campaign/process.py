"""Runs functions in child processes with limits, which can be killed.

Children are forked from a parent that has imported all heavy modules but has not started a JAX backend. A fork takes
milliseconds instead of the ten seconds of a program start, and loses no threads of a backend.
"""

import atexit
import contextlib
import dataclasses
import importlib
import os
import pickle
import pkgutil
import resource
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

POLL = 0.05  # maximum seconds between two checks of a child
PAGE = resource.getpagesize()
TICKS = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exit:
    """The end of a child process. code: exit code, or minus the number of a signal. why: the exceeded limit, "hang",
    "memory" or "". memory_growth: bytes of resident memory above those at its start. result: of the function."""

    code: int
    out: str
    err: str
    cpu: float
    memory_growth: int
    why: str = ""
    result: Any = None

    @property
    def lines(self) -> list[str]:
        """The lines of stderr that are not empty."""
        return [line for line in self.err.splitlines() if line.strip()]

    @property
    def last(self) -> str:
        """The last line of stderr."""
        return self.lines[-1] if self.lines else ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a child process. cpu: seconds. idle: seconds without CPU use. memory: growth in bytes."""

    cpu: float = 20.0
    idle: float = 30.0
    memory: int = 2 * 2**30


def warm_up() -> None:
    """Imports the package and its lazy imports without starting a JAX backend, and enables the compilation cache."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path.home() / ".cache/c2c_jax/xla"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    import matplotlib.pyplot  # noqa: F401
    import safetensors.torch  # noqa: F401
    import torch  # noqa: F401
    from diffusers import AudioLDMPipeline, AutoencoderKL, UNet2DConditionModel  # noqa: F401
    from transformers import AutoTokenizer, ClapModel, CLIPModel, SpeechT5HifiGan  # noqa: F401

    import c2c_jax

    for module in pkgutil.walk_packages(c2c_jax.__path__, "c2c_jax."):
        if module.name != "c2c_jax.publishing.onnx":  # needs an extra
            importlib.import_module(module.name)
    from jax._src import xla_bridge

    assert not xla_bridge._backends, "a JAX backend was started before the fork"


class Child:
    """A forked process that runs a function in the working directory `cwd`, with output to files in `place`."""

    def __init__(self, function: Callable[[], Any], place: Path, cwd: Path, limits: Limits = Limits()):  # noqa: B008
        self.place, self.limits = place, limits
        place.mkdir(parents=True, exist_ok=True)
        for name in ("out", "err", "result"):
            (place / name).unlink(missing_ok=True)
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about forks with threads; the parent's threads hold no locks
            self.pid = os.fork()
        if not self.pid:
            _run_child(function, place, cwd, limits)
        self._status: int | None = None
        self._cpu, self._peak, self._why = 0.0, 0, ""
        self._base = _resident(self.pid)
        self._active = time.monotonic()

    @property
    def cpu(self) -> float:
        """CPU seconds so far."""
        self._look()
        return self._cpu

    @property
    def is_running(self) -> bool:
        self._look()
        return self._status is None

    def send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self._status is None:
                os.kill(self.pid, number)

    def wait(self) -> Exit:
        """Waits for the end; kills the process if it exceeds its limits."""
        pause = 0.002
        while self.is_running:
            time.sleep(pause)
            pause = min(pause * 1.5, POLL)
        assert self._status is not None
        result, memory_growth = None, max(self._peak - self._base, 0)
        if (self.place / "result").is_file():
            result, memory_growth = pickle.loads((self.place / "result").read_bytes())
        out, err = ((self.place / name).read_text("utf-8", "backslashreplace") for name in ("out", "err"))
        why, code = self._why, os.waitstatus_to_exitcode(self._status)
        if code == -signal.SIGXCPU:
            why = "hang"
        if memory_growth > self.limits.memory:
            why = "memory"
        return Exit(code=code, out=out, err=err, cpu=self._cpu, memory_growth=memory_growth, why=why, result=result)

    def _look(self) -> None:
        if self._status is not None:
            return
        pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        if pid:
            self._status, self._cpu = status, usage.ru_utime + usage.ru_stime
            return
        cpu, resident = _cpu(self.pid), _resident(self.pid)
        if cpu > self._cpu:
            self._cpu, self._active = cpu, time.monotonic()
        self._peak = max(self._peak, resident)
        if self._peak - self._base > self.limits.memory:
            self._end("memory")
        elif time.monotonic() - self._active > self.limits.idle:
            self._end("hang")

    def _end(self, why: str) -> None:
        self._why = why
        os.kill(self.pid, signal.SIGKILL)


def call(function: Callable[[], Any], place: Path, cwd: Path, limits: Limits = Limits()) -> Exit:  # noqa: B008
    """Runs a function in a child until it ends."""
    return Child(function, place, cwd, limits).wait()


def run_verb(argv: list[str]) -> int:
    """Runs `c2c ARGV`, and returns its exit code; for `call`."""
    from c2c_jax.cli.main import main

    return main(argv)


def _run_child(function: Callable[[], Any], place: Path, cwd: Path, limits: Limits) -> None:
    """Runs the function in the child. Skips the parent's exit handlers, but waits for threads as a program does."""
    code: int = 1
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (int(limits.cpu) + 1, int(limits.cpu) + 3))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGXCPU, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN if number == signal.SIGPIPE else signal.SIG_DFL)
        # Does not raise, as JAX's callbacks could lose an exception.
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
        atexit._clear()
        warnings.resetwarnings()
        warnings.simplefilter("ignore", DeprecationWarning)
        for stream, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), stream)
        (place / "in").write_text("y\n" * 100)  # would confirm any question; c2c must not ask any
        os.dup2(os.open(place / "in", os.O_RDONLY), 0)
        sys.stdin = open(0, encoding="utf-8", closefd=False)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
        os.chdir(cwd)
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # resets the memory peak
        from c2c_jax.io.console import log_to_stderr

        base = _peak()
        with log_to_stderr():
            result = function()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the program, after its verb has ended
        (place / "result").write_bytes(pickle.dumps((result, max(_peak() - base, 0))))
        code = result if isinstance(result, int) else 0
        if sys.stdout:  # None if a case has closed it
            sys.stdout.flush()
        threading._shutdown()  # type: ignore[attr-defined]
    except SystemExit as error:
        code = int(error.code or 0) if not isinstance(error.code, str) else 1
    except BaseException:  # a program would print its traceback and exit
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _peak() -> int:
    """Returns the peak of resident memory in bytes."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS

"""`c2c VERB`: parses flags, runs one function, and turns an error of ours into one line and exit code 2."""

import argparse
import contextlib
import importlib
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from c2c_jax import __version__
from c2c_jax.cli import hosts
from c2c_jax.errors import C2CError
from c2c_jax.io.console import prepare_streams, printable
from c2c_jax.io.signals import SIGNALS, Interrupted, exit_now, raise_on_signals

NAMES = "train embed evaluate infer calibrate export import-checkpoint miniworld report search".split()
VERBS = {name: importlib.import_module(f"c2c_jax.cli.{name.replace('-', '_')}") for name in NAMES}
EXIT_CODES = """
exit codes: 0 success, 2 error (one line on stderr), 130 Ctrl-C, 143 SIGTERM (0 for `train`), 129 terminal closed,
141 output pipe closed by its reader"""
_OVERRIDE = re.compile(r"--(no)?config\.")
WRITTEN_IN_S = 60  # a compiled program, and what belongs to it, after it
PIPE_CLOSED = 141  # as of programs that SIGPIPE ends


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code, see EXIT_CODES. Refusals are printed as one line on stderr."""
    return _run(argv)[0]


def program(argv: Sequence[str] | None = None) -> None:
    """Runs one verb and ends the process with its exit code. After a signal it does not wait for other threads, nor for
    those of XLA after a multi-host run: they may wait for minutes for collectives of hosts that have ended."""
    code, is_interrupted = _run(argv)
    if is_interrupted or hosts.was_joined():
        os._exit(code)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is written: an interruption of the exit would only be noise
    sys.exit(code)


def _run(argv: Sequence[str] | None) -> tuple[int, bool]:
    """The exit code, and whether a signal ended the verb."""
    prepare_streams()
    keep_compiled()
    argv = sys.argv[1:] if argv is None else list(argv)
    args, rest = _parser().parse_known_args(argv)
    verb = VERBS[args.verb]
    codes = getattr(verb, "EXIT_CODES", {})
    try:
        if rest and not hasattr(args, "config"):
            raise C2CError(f"unknown argument {rest[0]}; see c2c {args.verb} --help")
        if unknown := next((one for one in rest if one.startswith("--") and not _OVERRIDE.match(one)), None):
            raise C2CError(f"unknown argument {unknown}; overrides are written --config.FIELD=VALUE")
        if nul := next((one for one in argv if "\0" in one), None):
            raise C2CError(f"argument {printable(nul)} contains a NUL character, which no file's name can have")
        args.overrides = rest
        with raise_on_signals(f"c2c {args.verb}", codes):
            verb.run(args)
            sys.stdout.flush()
    except C2CError as error:
        return _end(args.verb, str(error), 2), False
    except BrokenPipeError:
        _discard_output()
        return PIPE_CLOSED, False
    except OSError as error:  # a full disk, a folder in a file's place, no permission: the system says it in one line
        return _end(args.verb, f"{error.filename or 'input or output'}: {error.strerror or error}", 2), False
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, Interrupted) else int(signal.SIGINT)
        return _end(args.verb, SIGNALS[number], codes.get(number, 128 + number)), True
    return 0, False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="c2c",
        description="Translates CLIP vectors to CLAP vectors, so that an image becomes a sound.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"c2c_jax {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, module in VERBS.items():
        lines = (module.__doc__ or "").strip().splitlines()
        verb = verbs.add_parser(
            name,
            help=lines[0],
            description=lines[0],
            epilog="\n".join(lines[1:]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(verb)
    return parser


def keep_compiled() -> None:
    """Makes XLA keep what it compiles in the user's cache folder, 1 GiB at most, so that the next start is quick. JAX's
    own variables come first; they are read when JAX is imported."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:  # the user's own, with a size of its own
        return
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "c2c_jax" / "xla"
        cache.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # a home that may not be written to, or none
        return
    if not os.access(cache, os.W_OK):
        return
    _sweep_compiled(cache)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(2**30))
    # A process may have been killed in the last minute, see `_sweep_compiled`.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache")


def _sweep_compiled(cache: Path) -> None:
    """Removes programs that a process was killed in writing. JAX writes each, and then the time of its last use beside
    it; it would read such a part for ever, and write nothing more while there is one without its time."""
    for entry in cache.glob("*-cache"):
        with contextlib.suppress(OSError):  # another process may do the same
            is_timed = entry.with_name(entry.name.removesuffix("-cache") + "-atime").exists()
            if not is_timed and time.time() - entry.stat().st_mtime > WRITTEN_IN_S:
                entry.unlink()


def _end(verb: str, message: str, code: int) -> int:
    """Prints the line. In a multi-host run it then exits at once: a normal exit would wait for the other hosts, which
    wait for this one."""
    line = f"c2c {verb}: {printable(message)}"
    if "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized():
        exit_now(line, code)
    try:
        print(line, file=sys.stderr, flush=True)
        sys.stdout.flush()
    except OSError:  # nobody reads, the terminal is gone, or the disk is full
        _discard_output()
    return code


def _discard_output() -> None:
    """What cannot be written would fail again when Python ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    program()

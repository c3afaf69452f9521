"""`c2c COMMAND`: parses flags and runs the command. Errors that a user can fix become one line and exit code 2."""

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

from c2c_jax.cli import hosts
from c2c_jax.errors import C2CError
from c2c_jax.io.console import is_closed_pipe, log_to_stderr, prepare_streams, printable
from c2c_jax.io.signals import SIGNALS, Interrupted, exit_now, raise_on_signals
from c2c_jax.version import __version__

NAMES = "train embed evaluate infer calibrate export import-checkpoint miniworld report search".split()
VERBS = {name: importlib.import_module(f"c2c_jax.cli.{name.replace('-', '_')}") for name in NAMES}
EXIT_CODES = """
exit codes: 0 success, 2 error (one line on stderr), 130 Ctrl-C, 143 SIGTERM (0 for `train`), 129 terminal closed,
141 output pipe closed by its reader"""
_OVERRIDE = re.compile(r"--(no)?config\.")
WRITE_S = 60  # maximum time between writing a compiled program and its time of use
PIPE_CLOSED = 141  # like programs that SIGPIPE ends


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code, see EXIT_CODES. Errors are printed as one line on stderr."""
    return _run(argv)[0]


def program(argv: Sequence[str] | None = None) -> None:
    """Runs a command and ends the process with its exit code. After a signal or a multi-host run, the process does not
    wait for its threads: XLA's may wait for minutes for collectives of hosts that have ended."""
    code, is_interrupted = _run(argv)
    if is_interrupted or hosts.is_multihost():
        os._exit(code)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # everything is written; Ctrl-C would only print a traceback
    sys.exit(code)


def _run(argv: Sequence[str] | None) -> tuple[int, bool]:
    """Runs a command. Returns its exit code, and whether a signal ended it."""
    prepare_streams()
    keep_compiled()
    argv = sys.argv[1:] if argv is None else list(argv)
    args, rest = _parser(argv).parse_known_args(argv)
    verb = VERBS[args.verb]
    codes = getattr(verb, "EXIT_CODES", {})
    try:
        if rest and not hasattr(args, "config"):
            raise C2CError(f"unknown argument {rest[0]}; see c2c {args.verb} --help")
        if unknown := next(
            (argument for argument in rest if argument.startswith("--") and not _OVERRIDE.match(argument)), None
        ):
            raise C2CError(f"unknown argument {unknown}; overrides are written --config.FIELD=VALUE")
        if nul := next((argument for argument in argv if "\0" in argument), None):
            raise C2CError(f"argument {printable(nul)} contains a NUL character, which file names cannot have")
        args.overrides = rest
        with log_to_stderr(), raise_on_signals(f"c2c {args.verb}", codes):
            verb.run(args)
            sys.stdout.flush()
    except C2CError as error:
        return _end(args.verb, str(error), 2), False
    except OSError as error:  # a full disk, a folder instead of a file, no permission
        if is_closed_pipe(error):
            _discard_output()
            return PIPE_CLOSED, False
        return _end(args.verb, f"{error.filename or 'input or output'}: {error.strerror or error}", 2), False
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, Interrupted) else int(signal.SIGINT)
        return _end(args.verb, SIGNALS[number], codes.get(number, 128 + number)), True
    return 0, False


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of all commands. Only the one that argv names gets its flags: they need further imports."""
    parser = argparse.ArgumentParser(
        prog="c2c",
        description="Turns images into sounds: a translator maps CLIP vectors of images to CLAP vectors, which\n"
        "prompt a sound generator or search a library of sounds. The translator is trained on captions alone.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"c2c_jax {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
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
        if name in argv[:1]:
            module.add_arguments(verb)
    return parser


def keep_compiled() -> None:
    """Makes XLA cache compiled programs in the user's cache folder (up to 1 GiB), so that later starts are quick.
    Environment variables that the user has set take precedence. Must run before JAX is imported."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:  # set by the user
        return
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "c2c_jax" / "xla"
        cache.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home folder, or a read-only one
        return
    if not os.access(cache, os.W_OK):
        return
    _sweep_compiled(cache)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(2**30))
    # These warnings appear if a process was killed in the last minute, see `_sweep_compiled`.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache")


def _sweep_compiled(cache: Path) -> None:
    """Removes compiled programs that a killed process left unfinished. JAX writes a program, then a file with the time
    of its last use. While a program has no such file, JAX reads it again and again and caches nothing new."""
    for entry in cache.glob("*-cache"):
        with contextlib.suppress(OSError):  # another process may remove it
            is_timed = entry.with_name(entry.name.removesuffix("-cache") + "-atime").exists()
            if not is_timed and time.time() - entry.stat().st_mtime > WRITE_S:
                entry.unlink()


def _end(verb: str, message: str, code: int) -> int:
    """Prints an error line and returns the exit code. In a multi-host run it exits at once, because a normal exit would
    wait for the other hosts, which wait for this one."""
    line = f"c2c {verb}: {printable(message)}"
    if "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized():
        exit_now(line, code)
    try:
        print(line, file=sys.stderr, flush=True)
        sys.stdout.flush()
    except OSError:  # the reader or the terminal is gone, or the disk is full
        _discard_output()
    return code


def _discard_output() -> None:
    """Redirects streams that cannot be written to the null device, so that Python does not fail again on exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    program()

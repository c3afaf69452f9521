"""`c2c VERB`: parses flags, runs one function, and turns an error of ours into one line and exit code 2."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from c2c_jax import __version__
from c2c_jax.cli import calibrate, embed, evaluate, export, import_checkpoint, infer, miniworld, report, search, train
from c2c_jax.errors import C2CError

VERBS = {
    "train": train,
    "embed": embed,
    "evaluate": evaluate,
    "infer": infer,
    "calibrate": calibrate,
    "export": export,
    "import-checkpoint": import_checkpoint,
    "miniworld": miniworld,
    "report": report,
    "search": search,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; gives the exit code: 0 done, 2 refused in one line on stderr, 130 interrupted."""
    parser = argparse.ArgumentParser(
        prog="c2c", description="Carries CLIP vectors to CLAP vectors, so that a picture becomes a sound."
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
    args, rest = parser.parse_known_args(argv)
    keep_compiled()
    try:
        if rest and not hasattr(args, "config"):
            parser.error(f"unknown argument {rest[0]}; see c2c {args.verb} --help")
        args.overrides = rest
        VERBS[args.verb].run(args)
    except C2CError as error:
        return _told(args.verb, str(error), 2)
    except OSError as error:  # a full disk, a folder in a file's place, no permission: the system says it in one line
        return _told(args.verb, f"{error.filename or 'input or output'}: {error.strerror or error}", 2)
    except KeyboardInterrupt:
        return _told(args.verb, "interrupted", 130)
    return 0


def keep_compiled() -> None:
    """What XLA compiles is kept in the user's cache folder, 1 GiB at most, so that the next start is quick. JAX's own
    variables come before; they are read when JAX is imported."""
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "c2c_jax" / "xla"
        cache.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # a home that may not be written to, or none
        return
    if not os.access(cache, os.W_OK):
        return
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(2**30))


def _told(verb: str, message: str, code: int) -> int:
    """Of several hosts this one ends here and now: the usual end waits for the others, which wait for this one."""
    print(f"c2c {verb}: {message}", file=sys.stderr, flush=True)
    if "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized():
        sys.stdout.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())

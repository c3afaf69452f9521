"""Runs verbs with unusual stdout: closed, not read, full, or ASCII."""

import functools
import io
import os
import pty
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tools.campaign.cases import Case, Context, Outcome
from tools.campaign.inputs import CLAP
from tools.campaign.process import Exit
from tools.campaign.verbs import VERBS, Undisturbed, Verb, differences, prepare, undisturbed

STREAMED: dict[str, Verb] = {
    **{name: VERBS[name] for name in ("search", "infer-vector", "evaluate", "export", "report", "world-text")},
    "search-names": Verb(
        name="search-names", needs=("names",), prints=True,
        argv=("search", "--text", "ein Hündchen 犬", "--library", "names", "--index", "index", "--clap", CLAP),
    ),
}  # fmt: skip


def _to(descriptor: int) -> None:
    os.dup2(descriptor, 1)
    os.close(descriptor)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)


def _closed() -> None:
    os.close(1)
    sys.stdout = None  # type: ignore[assignment] # as when Python starts without stdout


def _unread() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    _to(writing)


def _ascii() -> None:
    sys.stdout = io.TextIOWrapper(open(1, "wb", closefd=False), "ascii")
    sys.stderr = io.TextIOWrapper(open(2, "wb", closefd=False), "ascii", "backslashreplace", line_buffering=True)


def _terminal() -> None:
    ours, theirs = pty.openpty()
    if not os.fork():  # copies output until the other end is closed
        os.close(theirs)
        try:
            while os.write(1, os.read(ours, 4096)):
                pass
        finally:
            os._exit(0)
    os.close(ours)
    _to(theirs)
    _ascii()


# For each kind of stdout: description, function that sets it up, and valid exit codes.
STREAMS: dict[str, tuple[str, Callable[[], None], tuple[int, ...]]] = {
    "closed": ("stdout is closed", _closed, (0, 2)),
    "unread": ("nobody reads the pipe", _unread, (0, 141)),
    "full": ("stdout is /dev/full", lambda: _to(os.open("/dev/full", os.O_WRONLY)), (2,)),
    "ascii": ("stdout is a file in ASCII", _ascii, (0,)),
    "terminal": ("stdout is a terminal in ASCII", _terminal, (0,)),
}


def cases(context: Context, names: Sequence[str], count: int, seed: int) -> list[Case]:
    """Returns a case for each verb and kind of stdout."""
    return [
        Case(
            key=f"streams-{name}-{key}", kind="streams", group=name, how=how,
            run=functools.partial(_streamed, STREAMED[name], key),
        )
        for name in names
        for key, (how, _, _) in STREAMS.items()
    ]  # fmt: skip


def _streamed(verb: Verb, stream: str, context: Context, place: Path) -> Outcome:
    known = undisturbed(verb, context.inputs, context.undisturbed)
    folder = prepare(verb, context.inputs, place / "folder")
    (ended,) = verb.run(folder, place / "log", STREAMS[stream][1])
    return judge_stream(verb, stream, known, ended, folder)


def judge_stream(verb: Verb, stream: str, known: Undisturbed, ended: Exit, folder: Path) -> Outcome:
    """Returns the verdict of a case. A verb that prints nothing must end normally."""

    def outcome(verdict: str, what: str = "") -> Outcome:
        return Outcome(verdict=verdict, what=what, cpu=ended.cpu)

    codes = STREAMS[stream][2] if known.out else (0,)
    if ended.why:
        return outcome(ended.why, f"{ended.cpu:.1f} s of CPU time; {ended.last}")
    if fault := verb.unclean(ended, (0, 2, 141)):
        return outcome("traceback", fault)
    if ended.code not in codes:
        verdict = "traceback" if ended.code else "wrong in silence"
        return outcome(verdict, f"ends with {ended.code}, not {codes}: {ended.err[-500:]}")
    if ended.code:
        return outcome("refused")
    if wrong := differences(known, folder):
        return outcome(wrong[0].partition(":")[0], "\n".join(wrong))
    if stream == "ascii" and verb.prints and ended.out != known.out:
        return outcome("not the same", f"it prints {ended.out[:500]!r}")
    return outcome("same")

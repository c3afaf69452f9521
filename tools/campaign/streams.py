"""Verbs whose output goes where it cannot: closed, to nobody, to a full disk, to an ASCII terminal."""

import functools
import io
import os
import pty
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tools.campaign.cases import Case, Context, Outcome, evenly
from tools.campaign.inputs import CLAP
from tools.campaign.process import Ended
from tools.campaign.verbs import VERBS, Unbroken, Verb, differences, prepare, unbroken

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
    sys.stdout = None  # type: ignore[assignment] # as Python itself starts then


def _unread() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    _to(writing)


def _ascii() -> None:
    sys.stdout = io.TextIOWrapper(open(1, "wb", closefd=False), "ascii")
    sys.stderr = io.TextIOWrapper(open(2, "wb", closefd=False), "ascii", "backslashreplace", line_buffering=True)


def _terminal() -> None:
    ours, theirs = pty.openpty()
    if not os.fork():  # drains it, until all of the other end is closed
        os.close(theirs)
        try:
            while os.write(1, os.read(ours, 4096)):
                pass
        finally:
            os._exit(0)
    os.close(ours)
    _to(theirs)
    _ascii()


# How stdout is arranged → in words, what does it, and the exit codes that are right.
STREAMS: dict[str, tuple[str, Callable[[], None], tuple[int, ...]]] = {
    "closed": ("stdout is closed", _closed, (0, 2)),
    "unread": ("nobody reads the pipe", _unread, (0, 141)),
    "full": ("stdout is /dev/full", lambda: _to(os.open("/dev/full", os.O_WRONLY)), (2,)),
    "ascii": ("stdout is a file in ASCII", _ascii, (0,)),
    "terminal": ("stdout is a terminal in ASCII", _terminal, (0,)),
}


def cases(count: int, names: Sequence[str] = tuple(STREAMED)) -> list[Case]:
    """Each way to arrange stdout, for verbs that print."""
    return evenly(
        [
            Case(
                key=f"streams-{name}-{key}", kind="streams", group=name, how=STREAMS[key][0], flags="streams",
                run=functools.partial(_streamed, STREAMED[name], key),
            )
            for name in names
            for key in STREAMS
        ],
        count,
    )  # fmt: skip


def _streamed(one: Verb, stream: str, context: Context, place: Path) -> Outcome:
    known = unbroken(one, context.inputs, context.unbroken)
    folder = prepare(one, context.inputs, place / "folder")
    (ended,) = one.run(folder, place / "log", STREAMS[stream][1])
    return judged(one, stream, known, ended, folder)


def judged(one: Verb, stream: str, known: Unbroken, ended: Ended, folder: Path) -> Outcome:
    """What came of it. A verb that prints nothing must not mind."""

    def outcome(verdict: str, what: str = "") -> Outcome:
        return Outcome(verdict=verdict, what=what, cpu=ended.cpu)

    codes = STREAMS[stream][2] if known.out else (0,)
    if ended.why:
        return outcome(ended.why, f"{ended.cpu:.1f} s of CPU time; {ended.lines[-1:]}")
    if "Traceback" in ended.err or "Exception ignored" in ended.err or ended.code not in (0, 2, 141):
        return outcome("traceback", f"ends with {ended.code}: {ended.err[-2000:]}")
    if ended.code not in codes:
        verdict = "traceback" if ended.code else "wrong in silence"
        return outcome(verdict, f"ends with {ended.code}, not {codes}: {ended.err[-500:]}")
    if ended.code == 2 and not (ended.lines and ended.lines[-1].startswith(f"c2c {one.argv[0]}: ")):
        return outcome("traceback", f"no line of its own at the end: {ended.lines[-1:]}")
    if ended.code:
        return outcome("refused")
    if wrong := differences(known, folder):
        return outcome(wrong[0].partition(":")[0], "\n".join(wrong))
    if stream == "ascii" and one.prints and ended.out != known.out:
        return outcome("not the same", f"it prints {ended.out[:500]!r}")
    return outcome("same")

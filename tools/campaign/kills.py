"""Verbs that are killed: at random moments, before every step of a replacement, in the middle of a write."""

import functools
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tools.campaign import steps
from tools.campaign.cases import Case, Context, Outcome, evenly
from tools.campaign.process import Child, Ended, call
from tools.campaign.verbs import LIMITS, VERBS, Unbroken, Verb, differences, prepare, unbroken

ACT_SECONDS = 20.0  # in which a signal must have ended a process
SWALLOWED = 0.3  # a share of the usual CPU time: what goes on for longer after a signal, and ends well, ignored it
SIGNALS = (signal.SIGKILL,) * 7 + (signal.SIGTERM, signal.SIGINT, signal.SIGINT)
ENDING_CPU = 0.5  # seconds: what any process may take to end
# Exit codes after a signal. Training and embedding end well after SIGTERM: what is done is saved.
CODES = {signal.SIGKILL: (-9,), signal.SIGTERM: (-15, 143), signal.SIGINT: (130,)}
SAVING = ("embed", "grow", "repair", "train")
ABORTED = (-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGFPE)
EVENLY = 40  # targeted kills of a verb, at most


def random_cases(seed: int, count: int, names: Sequence[str] = tuple(VERBS)) -> list[Case]:
    """Kills after a random part of a verb's CPU time, or before a random step; a quarter of the cases is killed twice.
    The verbs take turns."""
    cases = []
    for number in range(count):
        chance = random.Random(f"kills {seed} {number}")
        one = VERBS[names[number % len(names)]]
        blows = [_blow(one, chance) for _ in range(2 if chance.random() < 0.25 else 1)]
        how = ", then ".join(str(blow) for blow in blows)
        cases.append(
            Case(
                key=f"kills-{seed}-{number}-{one.name}", kind="kills", group=one.name, how=how,
                flags=f"kills --seed {seed} --cases {number + 1}",
                run=functools.partial(_killed, one, blows),
            )
        )  # fmt: skip
    return cases


def targeted_cases(context: Context, names: Sequence[str] = tuple(VERBS), limit: int = EVENLY) -> list[Case]:
    """Kills before each step of a verb, `limit` of them spread evenly where there are more; the same from the first
    exchange of names on where the system has none; and torn writes."""
    cases = []
    for one in (VERBS[name] for name in names if VERBS[name].processes == 1):
        known = unbroken(one, context.inputs, context.unbroken)
        blows = [Blow(step=number) for number in evenly(range(len(known.steps)), limit)]
        if "exchange" in known.steps:
            first = known.steps.index("exchange")
            blows += [Blow(step=number, fallback=True) for number in evenly(range(first, len(known.steps) + 3), limit)]
        sizes = sorted({path.stat().st_size for path in _written(one, context)})
        blows += [Blow(torn=size - 1) for size in evenly(sizes, 3) if size > 1]
        for number, blow in enumerate(blows):
            step = known.steps[blow.step] if blow.step is not None and blow.step < len(known.steps) else ""
            cases.append(
                Case(
                    key=f"targeted-{one.name}-{number}", kind="targeted", group=one.name,
                    how=f"{blow}{f' ({step})' if step else ''}", flags="targeted",
                    run=functools.partial(_killed, one, [blow]),
                )
            )  # fmt: skip
    return cases


def _written(one: Verb, context: Context) -> list[Path]:
    folder = context.unbroken / f"{one.name}.0" / "folder"
    return [path for path in folder.rglob("*") if path.is_file()]


class Blow:
    """How a process is killed: by signal `number` after `share` of its usual CPU time, or by SIGKILL before step `step`
    or in a write beyond `torn` bytes. process: which one. fallback: run as if names could not be exchanged."""

    def __init__(
        self, *, number: signal.Signals = signal.SIGKILL, share: float | None = None, process: int = 0,
        step: int | None = None, torn: int | None = None, fallback: bool = False,
    ):  # fmt: skip
        self.number, self.share, self.process = number, share, process
        self.step, self.torn, self.fallback = step, torn, fallback

    def __str__(self) -> str:
        if self.step is not None:
            return f"SIGKILL before step {self.step}{', without exchange' if self.fallback else ''}"
        if self.torn is not None:
            return f"killed in the write beyond {self.torn} bytes"
        return f"{self.number.name} to process {self.process} after {self.share:.0%} of its CPU time"

    def before(self, folder: Path) -> None:
        """What is laid in the child before the verb starts."""
        if self.fallback:
            steps.without_exchange()
        if self.step is not None:
            steps.stopping_before(folder, self.step)
        if self.torn is not None:
            steps.torn_at(self.torn)


def _blow(one: Verb, chance: random.Random) -> Blow:
    if one.processes == 1 and chance.random() < 0.3:
        return Blow(step=chance.randrange(200))
    number, share = chance.choice(SIGNALS), chance.uniform(0, 1.05)
    return Blow(number=number, share=share, process=chance.randrange(one.processes))


def _killed(one: Verb, blows: Sequence[Blow], context: Context, place: Path) -> Outcome:
    """Kills a verb, looks whether what was there before still is, starts it again and compares with an unbroken run."""
    known = unbroken(one, context.inputs, context.unbroken)
    folder, log = prepare(one, context.inputs, place / "folder"), place / "log"
    cpu, faults = 0.0, []
    for blow in blows:
        if blow.step is not None and not blow.fallback and blow.step >= len(known.steps):
            blow = Blow(step=blow.step % max(len(known.steps), 1))
        ended, found = _struck(one, blow, known, folder, log)
        faults += found
        cpu += sum(end.cpu for end in ended)
        if not blow.fallback:  # without an exchange it is put back at the next start
            after = call(one.kept, log / "kept", folder, LIMITS)
            if after.code:
                faults.append(("lost", f"after the kill: {after.lines[-1]}"))
        if all(end.code == 0 for end in ended) and not differences(known, folder):
            return _outcome(faults, cpu)
    return _outcome(faults + again(one, known, folder, log), cpu)


def again(one: Verb, known: Unbroken, folder: Path, log: Path) -> list[tuple[str, str]]:
    """Starts a verb once more, to its end; gives what differs from an unbroken run then, as (verdict, line)."""
    ended = one.run(folder, log)
    wrong = differences(known, folder)
    faults = []
    if any(end.code for end in ended) and (wrong or one.name != "import"):  # a finished import is not done again
        faults.append(("lost", f"the next start ends with {[end.code for end in ended]}: {_last(ended)}"))
    if one.prints and not faults and ended[0].out != known.out:
        faults.append(("not the same", f"it prints {ended[0].out[-300:]}"))
    if any("Traceback" in end.err for end in ended):
        faults.append(("traceback", _last(ended)))
    return faults + [(line.partition(":")[0], line) for line in wrong]


def _outcome(faults: list[tuple[str, str]], cpu: float) -> Outcome:
    if not faults:
        return Outcome(verdict="same", cpu=cpu)
    return Outcome(verdict=faults[0][0], what="\n".join(line for _, line in faults), cpu=cpu)


def _last(ended: Sequence[Ended]) -> str:
    return " / ".join(end.lines[-1] if end.lines else "" for end in ended)


def _struck(
    one: Verb, blow: Blow, known: Unbroken, folder: Path, log: Path
) -> tuple[list[Ended], list[tuple[str, str]]]:
    """Starts a verb and strikes it; gives how its processes ended, and what of that is wrong."""
    children = one.start(folder, log, lambda: blow.before(folder))
    at = used = None
    if blow.share is not None:
        struck = children[blow.process]
        _wait(struck, lambda: struck.cpu >= (blow.share or 0) * known.cpu[blow.process])
        used = struck.cpu
        struck.send(blow.number)
        at = time.monotonic()
        _wait(struck, lambda: time.monotonic() - at > ACT_SECONDS)
    faults = []
    if at and children[blow.process].is_running:
        faults.append(("signal", f"{blow.number.name} did not end it within {ACT_SECONDS:g} seconds"))
        children[blow.process].send(signal.SIGKILL)
    ended = [child.wait() for child in children]
    for number, end in enumerate(ended):
        is_struck = number == blow.process
        if end.why:
            faults.append((end.why, f"process {number}: {_last([end])}"))
        elif "Traceback" in end.err or end.code in ABORTED or end.code == 1:
            faults.append(("traceback", f"process {number} ends with {end.code}: {end.err[-2000:]}"))
        elif is_struck and used is not None and end.code not in (0, *CODES[blow.number]):
            faults.append(("signal", f"{blow.number.name} → exit code {end.code}: {_last([end])}"))
        elif is_struck and used is not None and end.code == 0 and not faults:
            saves = blow.number == signal.SIGTERM and one.name.startswith(SAVING)
            went_on = end.cpu - used > max(SWALLOWED * known.cpu[number], ENDING_CPU)
            if blow.number != signal.SIGKILL and went_on and not saves:
                faults.append(("signal", f"{blow.number.name} was swallowed: it went on to exit code 0"))
    return ended, faults


def _wait(child: Child, until: Callable[[], bool]) -> None:
    while child.is_running and not until():
        time.sleep(0.002)

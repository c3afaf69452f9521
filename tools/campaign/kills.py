"""Kills verbs: at random moments, before each step that changes files, and in the middle of a write."""

import dataclasses
import functools
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tools.campaign import steps
from tools.campaign.cases import Case, Context, Outcome, evenly_spaced
from tools.campaign.process import Child, Ended, call
from tools.campaign.verbs import LIMITS, VERBS, Unbroken, Verb, differences, prepare, unbroken

ACT_SECONDS = 20.0  # within which a signal must end a process
SWALLOWED = 0.3  # fraction of the usual CPU time: a process that runs longer after a signal and ends well ignored it
SIGNALS = (signal.SIGKILL,) * 7 + (signal.SIGTERM, signal.SIGINT, signal.SIGINT)
ENDING_CPU = 0.5  # seconds that any process may take to end
# Exit codes after a signal. Training and embedding end well after SIGTERM: they save what is done.
CODES = {signal.SIGKILL: (-9,), signal.SIGTERM: (-15, 143), signal.SIGINT: (130,)}
SAVING = ("embed", "grow", "repair", "train")
ABORTED = (-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGFPE)
EVENLY = 40  # maximum targeted kills of a verb

Fault = tuple[str, str]  # verdict and line


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blow:
    """How a process is killed: by signal `number` after `share` of its usual CPU time, or by SIGKILL before step `step`
    or in a write beyond `torn` bytes. process: which one. fallback: run as if names could not be exchanged."""

    number: int = signal.SIGKILL
    share: float | None = None
    process: int = 0
    step: int | None = None
    torn: int | None = None
    fallback: bool = False

    def __str__(self) -> str:
        if self.step is not None:
            return f"SIGKILL before step {self.step}{', without exchange' if self.fallback else ''}"
        if self.torn is not None:
            return f"killed in the write beyond {self.torn} bytes"
        return f"{self.signal} to process {self.process} after {self.share:.0%} of its CPU time"

    @property
    def signal(self) -> str:
        return signal.Signals(self.number).name

    def before(self, folder: Path) -> None:
        """Prepares the child before the verb starts."""
        if self.fallback:
            steps.without_exchange()
        if self.step is not None:
            steps.stopping_before(folder, self.step)
        if self.torn is not None:
            steps.torn_at(self.torn)


def random_cases(context: Context, names: Sequence[str], count: int, seed: int) -> list[Case]:
    """Kills at a random fraction of a verb's CPU time, or before a random step; a quarter of the cases is killed twice.
    The verbs take turns."""
    cases = []
    for number in range(count):
        chance = random.Random(f"kills {seed} {number}")
        one = VERBS[names[number % len(names)]]
        blows = [_blow(one, chance) for _ in range(2 if chance.random() < 0.25 else 1)]
        cases.append(
            Case(
                key=f"kills-{seed}-{number}-{one.name}", kind="kills", group=one.name,
                how=", then ".join(map(str, blows)), run=functools.partial(_killed, one, blows),
            )
        )  # fmt: skip
    return cases


def _blow(one: Verb, chance: random.Random) -> Blow:
    if one.processes == 1 and chance.random() < 0.3:
        return Blow(step=chance.randrange(200))
    number, share = chance.choice(SIGNALS), chance.uniform(0, 1.05)
    return Blow(number=number, share=share, process=chance.randrange(one.processes))


def targeted_cases(context: Context, names: Sequence[str], count: int, seed: int) -> list[Case]:
    """Kills before at most EVENLY steps of each verb of one process; again from the first exchange of names on, as on
    systems that cannot exchange names; and in three writes."""
    cases = []
    for one in (VERBS[name] for name in names if VERBS[name].processes == 1):
        known = unbroken(one, context.inputs, context.unbroken)
        blows = [Blow(step=number) for number in evenly_spaced(range(len(known.steps)), EVENLY)]
        if "exchange" in known.steps:
            first = known.steps.index("exchange")
            blows += [
                Blow(step=number, fallback=True) for number in evenly_spaced(range(first, len(known.steps) + 3), EVENLY)
            ]
        written = (context.unbroken / f"{one.name}.0" / "folder").rglob("*")
        sizes = sorted({path.stat().st_size for path in written if path.is_file()})
        blows += [Blow(torn=size - 1) for size in evenly_spaced(sizes, 3) if size > 1]
        for number, blow in enumerate(blows):
            step = known.steps[blow.step] if blow.step is not None and blow.step < len(known.steps) else ""
            cases.append(
                Case(
                    key=f"targeted-{one.name}-{number}", kind="targeted", group=one.name,
                    how=f"{blow}{f' ({step})' if step else ''}", run=functools.partial(_killed, one, [blow]),
                )
            )  # fmt: skip
    return cases


def _killed(one: Verb, blows: Sequence[Blow], context: Context, place: Path) -> Outcome:
    """Kills a verb, checks that existing data can be read, starts it again and compares with an undisturbed run."""
    known = unbroken(one, context.inputs, context.unbroken)
    folder, log = prepare(one, context.inputs, place / "folder"), place / "log"
    cpu, faults = 0.0, []
    for blow in blows:
        if blow.step is not None and not blow.fallback and blow.step >= len(known.steps):
            blow = Blow(step=blow.step % max(len(known.steps), 1))
        ended, found = _struck(one, blow, known, folder, log)
        faults += found
        cpu += sum(end.cpu for end in ended)
        if not blow.fallback:  # without an exchange the data are restored at the next start
            after = call(one.kept, log / "kept", folder, LIMITS)
            if after.code:
                faults.append(("lost", f"after the kill: {after.last}"))
        if all(end.code == 0 for end in ended) and not differences(known, folder):
            return _outcome(faults, cpu)
    return _outcome(faults + again(one, known, folder, log), cpu)


def again(one: Verb, known: Unbroken, folder: Path, log: Path) -> list[Fault]:
    """Starts a verb once more, to its end; returns the differences to an undisturbed run."""
    ended = one.run(folder, log)
    wrong = differences(known, folder)
    faults = []
    if any(end.code for end in ended) and (wrong or one.name != "import"):  # a finished import is not repeated
        faults.append(("lost", f"the next start ends with {[end.code for end in ended]}: {_last(ended)}"))
    if one.prints and not faults and ended[0].out != known.out:
        faults.append(("not the same", f"it prints {ended[0].out[-300:]}"))
    if any("Traceback" in end.err for end in ended):
        faults.append(("traceback", _last(ended)))
    return faults + [(line.partition(":")[0], line) for line in wrong]


def _outcome(faults: list[Fault], cpu: float) -> Outcome:
    verdict = faults[0][0] if faults else "same"
    return Outcome(verdict=verdict, what="\n".join(line for _, line in faults), cpu=cpu)


def _last(ended: Sequence[Ended]) -> str:
    return " / ".join(end.last for end in ended)


def _struck(one: Verb, blow: Blow, known: Unbroken, folder: Path, log: Path) -> tuple[list[Ended], list[Fault]]:
    """Starts a verb and kills it; returns how its processes ended, and what is wrong with that."""
    children = one.start(folder, log, lambda: blow.before(folder))
    struck, used, faults = children[blow.process], None, []
    if blow.share is not None:
        usual = blow.share * known.cpu[blow.process]
        _wait(struck, lambda: struck.cpu >= usual)
        used = struck.cpu
        struck.send(blow.number)
        since = time.monotonic()
        _wait(struck, lambda: time.monotonic() - since > ACT_SECONDS)
        if struck.is_running:
            faults.append(("signal", f"{blow.signal} did not end it within {ACT_SECONDS:g} seconds"))
            struck.send(signal.SIGKILL)
    ended = [child.wait() for child in children]
    for number, end in enumerate(ended):
        if end.why:
            faults.append((end.why, f"process {number}: {end.last}"))
        elif "Traceback" in end.err or end.code in ABORTED or end.code == 1:
            faults.append(("traceback", f"process {number} ends with {end.code}: {end.err[-2000:]}"))
        elif number != blow.process or used is None:
            continue
        elif end.code not in (0, *CODES[signal.Signals(blow.number)]):
            faults.append(("signal", f"{blow.signal} → exit code {end.code}: {end.last}"))
        elif end.code == 0 and not faults and blow.number != signal.SIGKILL:
            saves = blow.number == signal.SIGTERM and one.name.startswith(SAVING)
            if end.cpu - used > max(SWALLOWED * known.cpu[number], ENDING_CPU) and not saves:
                faults.append(("signal", f"{blow.signal} was swallowed: it went on to exit code 0"))
    return ended, faults


def _wait(child: Child, until: Callable[[], bool]) -> None:
    while child.is_running and not until():
        time.sleep(0.002)

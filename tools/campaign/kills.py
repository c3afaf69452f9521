"""Kills verbs at random times, before each step that changes files, and in the middle of a write."""

import dataclasses
import functools
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tools.campaign import steps
from tools.campaign.cases import Case, Context, Outcome, evenly_spaced
from tools.campaign.process import Child, Exit, call
from tools.campaign.verbs import LIMITS, VERBS, Undisturbed, Verb, differences, prepare, undisturbed

ACT_SECONDS = 20.0  # maximum time until a signal ends a process
IGNORED = 0.3  # fraction of the usual CPU time; a process that runs longer after a signal and succeeds ignored it
SIGNALS = (signal.SIGKILL,) * 7 + (signal.SIGTERM, signal.SIGINT, signal.SIGINT)
ENDING_CPU = 0.5  # seconds of CPU time that any process may take to end
# Exit codes after a signal. Training and embedding exit with 0 after SIGTERM: they save their state.
CODES = {signal.SIGKILL: (-9,), signal.SIGTERM: (-15, 143), signal.SIGINT: (130,)}
SAVING = ("embed", "grow", "repair", "train")
ABORTED = (-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGFPE)
MAX_TARGETED = 40  # kills of each verb

Fault = tuple[str, str]  # verdict and message


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kill:
    """How a process is killed: by signal `number` after a fraction of its usual CPU time, or by SIGKILL before step
    `step`, or in a write beyond `write_limit` bytes. process: its index. fallback: disable the exchange of names."""

    number: int = signal.SIGKILL
    fraction: float | None = None
    process: int = 0
    step: int | None = None
    write_limit: int | None = None
    fallback: bool = False

    def __str__(self) -> str:
        if self.step is not None:
            return f"SIGKILL before step {self.step}{', without exchange' if self.fallback else ''}"
        if self.write_limit is not None:
            return f"killed in the write beyond {self.write_limit} bytes"
        return f"{self.signal} to process {self.process} after {self.fraction:.0%} of its CPU time"

    @property
    def signal(self) -> str:
        return signal.Signals(self.number).name

    def before(self, folder: Path) -> None:
        """Prepares the kill in the child, before the verb starts."""
        if self.fallback:
            steps.disable_exchange()
        if self.step is not None:
            steps.kill_before(folder, self.step)
        if self.write_limit is not None:
            steps.kill_in_write(self.write_limit)


def random_cases(context: Context, names: Sequence[str], count: int, seed: int) -> list[Case]:
    """Returns cases that kill verbs after a random fraction of their CPU time, or before a random step; a quarter kill
    twice. The verbs take turns."""
    cases = []
    for number in range(count):
        chance = random.Random(f"kills {seed} {number}")
        verb = VERBS[names[number % len(names)]]
        kills = [_random_kill(verb, chance) for _ in range(2 if chance.random() < 0.25 else 1)]
        cases.append(
            Case(
                key=f"kills-{seed}-{number}-{verb.name}", kind="kills", group=verb.name,
                how=", then ".join(map(str, kills)), run=functools.partial(_killed, verb, kills),
            )
        )  # fmt: skip
    return cases


def _random_kill(verb: Verb, chance: random.Random) -> Kill:
    if verb.processes == 1 and chance.random() < 0.3:
        return Kill(step=chance.randrange(200))
    number, fraction = chance.choice(SIGNALS), chance.uniform(0, 1.05)
    return Kill(number=number, fraction=fraction, process=chance.randrange(verb.processes))


def targeted_cases(context: Context, names: Sequence[str], count: int, seed: int) -> list[Case]:
    """Returns cases that kill each verb of one process before at most MAX_TARGETED steps, and in three writes; and,
    from the first exchange of names on, as on systems that cannot exchange names."""
    cases = []
    for verb in (VERBS[name] for name in names if VERBS[name].processes == 1):
        known = undisturbed(verb, context.inputs, context.undisturbed)
        kills = [Kill(step=number) for number in evenly_spaced(range(len(known.steps)), MAX_TARGETED)]
        if "exchange" in known.steps:
            first = known.steps.index("exchange")
            kills += [
                Kill(step=number, fallback=True)
                for number in evenly_spaced(range(first, len(known.steps) + 3), MAX_TARGETED)
            ]
        written = (context.undisturbed / f"{verb.name}.0" / "folder").rglob("*")
        sizes = sorted({path.stat().st_size for path in written if path.is_file()})
        kills += [Kill(write_limit=size - 1) for size in evenly_spaced(sizes, 3) if size > 1]
        for number, kill in enumerate(kills):
            step = known.steps[kill.step] if kill.step is not None and kill.step < len(known.steps) else ""
            cases.append(
                Case(
                    key=f"targeted-{verb.name}-{number}", kind="targeted", group=verb.name,
                    how=f"{kill}{f' ({step})' if step else ''}", run=functools.partial(_killed, verb, [kill]),
                )
            )  # fmt: skip
    return cases


def _killed(verb: Verb, kills: Sequence[Kill], context: Context, place: Path) -> Outcome:
    """Kills a verb, checks that existing data can be read, runs it again and compares with an undisturbed run."""
    known = undisturbed(verb, context.inputs, context.undisturbed)
    folder, log = prepare(verb, context.inputs, place / "folder"), place / "log"
    cpu, faults = 0.0, []
    for kill in kills:
        if kill.step is not None and not kill.fallback and kill.step >= len(known.steps):
            kill = Kill(step=kill.step % max(len(known.steps), 1))
        ended, kill_faults = _kill(verb, kill, known, folder, log)
        faults += kill_faults
        cpu += sum(end.cpu for end in ended)
        if not kill.fallback:  # without an exchange, the next start restores the data
            after = call(verb.check_data, log / "kept", folder, LIMITS)
            if after.code:
                faults.append(("lost", f"after the kill: {after.last}"))
        if all(end.code == 0 for end in ended) and not differences(known, folder):
            return _outcome(faults, cpu)
    return _outcome(faults + again(verb, known, folder, log), cpu)


def again(verb: Verb, known: Undisturbed, folder: Path, log: Path) -> list[Fault]:
    """Runs a verb again, to its end; returns the differences from an undisturbed run."""
    ended = verb.run(folder, log)
    wrong = differences(known, folder)
    faults = []
    if any(end.code for end in ended) and (wrong or verb.name != "import"):  # a finished import is not repeated
        faults.append(("lost", f"the next run ends with {[end.code for end in ended]}: {_last(ended)}"))
    if verb.prints and not faults and ended[0].out != known.out:
        faults.append(("not the same", f"it prints {ended[0].out[-300:]}"))
    if any("Traceback" in end.err for end in ended):
        faults.append(("traceback", _last(ended)))
    return faults + [(line.partition(":")[0], line) for line in wrong]


def _outcome(faults: list[Fault], cpu: float) -> Outcome:
    verdict = faults[0][0] if faults else "same"
    return Outcome(verdict=verdict, what="\n".join(line for _, line in faults), cpu=cpu)


def _last(ended: Sequence[Exit]) -> str:
    return " / ".join(end.last for end in ended)


def _kill(verb: Verb, kill: Kill, known: Undisturbed, folder: Path, log: Path) -> tuple[list[Exit], list[Fault]]:
    """Runs and kills a verb; returns the exits of its processes, and faults in them."""
    children = verb.start(folder, log, lambda: kill.before(folder))
    target, used, faults = children[kill.process], None, []
    if kill.fraction is not None:
        usual = kill.fraction * known.cpu[kill.process]
        _wait(target, lambda: target.cpu >= usual)
        used = target.cpu
        target.send(kill.number)
        since = time.monotonic()
        _wait(target, lambda: time.monotonic() - since > ACT_SECONDS)
        if target.is_running:
            faults.append(("signal", f"{kill.signal} did not end it within {ACT_SECONDS:g} seconds"))
            target.send(signal.SIGKILL)
    ended = [child.wait() for child in children]
    for number, end in enumerate(ended):
        if end.why:
            faults.append((end.why, f"process {number}: {end.last}"))
        elif "Traceback" in end.err or end.code in ABORTED or end.code == 1:
            faults.append(("traceback", f"process {number} ends with {end.code}: {end.err[-2000:]}"))
        elif number != kill.process or used is None:
            continue
        elif end.code not in (0, *CODES[signal.Signals(kill.number)]):
            faults.append(("signal", f"{kill.signal} → exit code {end.code}: {end.last}"))
        elif end.code == 0 and not faults and kill.number != signal.SIGKILL:
            saves = kill.number == signal.SIGTERM and verb.name.startswith(SAVING)
            if end.cpu - used > max(IGNORED * known.cpu[number], ENDING_CPU) and not saves:
                faults.append(("signal", f"{kill.signal} was ignored: it ended with exit code 0"))
    return ended, faults


def _wait(child: Child, until: Callable[[], bool]) -> None:
    while child.is_running and not until():
        time.sleep(0.002)

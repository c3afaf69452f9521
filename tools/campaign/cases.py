"""Cases of the campaign: run side by side, recorded as they end so that none runs twice, and counted in a table."""

import concurrent.futures
import dataclasses
import functools
import json
import multiprocessing
import shutil
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from tools.campaign.inputs import Inputs

OK = ("right", "refused", "reported", "undetectable", "same")
FAILS = ("traceback", "hang", "memory", "wrong in silence", "mark", "lost", "left over", "not the same", "signal",
         "escape")  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """What came of a case. group: a verb or a reader; how: what was done to it; verdict: one of OK or FAILS; what: of
    failures, in lines; smallest: the least that still fails, where it was looked for."""

    key: str
    kind: str
    group: str
    how: str
    verdict: str
    what: str = ""
    repeat: str = ""
    smallest: str = ""
    cpu: float = 0.0

    @property
    def is_failure(self) -> bool:
        return self.verdict not in OK


@dataclasses.dataclass(frozen=True, kw_only=True)
class Context:
    """Where cases work. inputs are shared, each case has a folder of its own."""

    folder: Path

    @functools.cached_property
    def inputs(self) -> Inputs:
        return Inputs(self.folder / "inputs")

    @property
    def unbroken(self) -> Path:
        return self.folder / "unbroken"

    def place(self, key: str) -> Path:
        """An empty folder for a case."""
        place = self.folder / "cases" / key
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        return place


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One case. key: its name, the same in every campaign with its seed; flags: those that run it alone."""

    key: str
    kind: str
    group: str
    how: str
    flags: str
    run: Callable[[Context, Path], "Outcome"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    verdict: str
    what: str = ""
    smallest: str = ""
    cpu: float = 0.0


def run_case(case: Case, context: Context) -> Record:
    """Runs a case in its folder, which is kept where it fails. A fault of the campaign itself is a failure too."""
    place = context.place(case.key)
    try:
        outcome = case.run(context, place)
    except Exception:
        outcome = Outcome(verdict="campaign", what=traceback.format_exc())
    record = Record(
        key=case.key, kind=case.kind, group=case.group, how=case.how,
        repeat=f"python -m tools.campaign {case.flags} --only {case.key}", **dataclasses.asdict(outcome),
    )  # fmt: skip
    if not record.is_failure:
        shutil.rmtree(place, ignore_errors=True)
    return record


def run_cases(
    cases: Sequence[Case], context: Context, jobs: int, on_record: Callable[[Record, int, int], None]
) -> list[Record]:
    """Runs those cases that the folder has no record of, and gives the records of all. on_record: is called for each
    new record, with how many of how many are there."""
    notes = context.folder / "records.jsonl"
    there = read_records(notes)
    context.folder.mkdir(parents=True, exist_ok=True)
    left = [case for case in cases if case.key not in there]
    done = len(cases) - len(left)
    if left:
        pool = concurrent.futures.ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("fork"))
        _LEFT[:], _CONTEXT[:] = left, [context]  # the workers are forked at the first submit, and have them from there
        with pool, open(notes, "a", encoding="utf-8") as file:
            for ended in concurrent.futures.as_completed([pool.submit(_run, number) for number in range(len(left))]):
                record = ended.result()
                file.write(json.dumps(dataclasses.asdict(record)) + "\n")
                file.flush()
                there[record.key] = record
                on_record(record, done := done + 1, len(cases))
    return [there[case.key] for case in cases]


_LEFT: list[Case] = []
_CONTEXT: list[Context] = []


def _run(number: int) -> Record:
    return run_case(_LEFT[number], _CONTEXT[0])


def read_records(notes: Path) -> dict[str, Record]:
    """Key → record; a last line that a kill cut short is passed over."""
    lines = notes.read_text(encoding="utf-8").splitlines(keepends=True) if notes.is_file() else []
    records = (Record(**json.loads(line)) for line in lines if line.endswith("\n"))
    return {record.key: record for record in records}


T = TypeVar("T")


def evenly(things: Sequence[T], count: int) -> list[T]:
    """`count` of some things, spread over all of them; all where there are fewer."""
    if len(things) <= count:
        return list(things)
    return [things[len(things) * number // count] for number in range(count)]


def table(records: Iterable[Record]) -> str:
    """Counts of verdicts by kind and group, in Markdown; columns that are empty are left out."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for record in records:
        counts.setdefault((record.kind, record.group), Counter())[record.verdict] += 1
    total = sum(counts.values(), Counter())
    columns = [verdict for verdict in (*OK, *FAILS, "campaign") if total[verdict]]
    lines = ["| kind | of | cases | " + " | ".join(f"**{c}**" if c not in OK else c for c in columns) + " |"]
    lines.append("|---|---|--:|" + "--:|" * len(columns))
    rows = [(kind, group, count) for (kind, group), count in sorted(counts.items())] + [("all", "", total)]
    for kind, group, count in rows:
        cells = [str(count[column] or "·") for column in columns]
        lines.append(f"| {kind} | {group} | {count.total()} | {' | '.join(cells)} |")
    return "\n".join(lines)


def report(record: Record) -> str:
    """A failure, in some lines: what, where, and how to repeat it."""
    lines = [f"FAIL {record.verdict}: {record.kind} of {record.group}: {record.how}"]
    lines += [f"    {line}" for line in record.what.strip().splitlines()[-6:]]
    lines += [f"    smallest: {record.smallest}"] if record.smallest else []
    return "\n".join([*lines, f"    {record.repeat}"])

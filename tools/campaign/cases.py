"""Cases of the campaign: run in parallel, recorded as they end, and counted in a table."""

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
FAILURES = ("traceback", "hang", "memory", "wrong in silence", "mark", "lost", "left over", "not the same", "signal",
            "escape", "campaign")  # fmt: skip
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Context:
    """Where cases work, and the command line that runs them. Inputs are shared; each case has a folder of its own."""

    folder: Path
    command: str = "python -m tools.campaign all"

    @functools.cached_property
    def inputs(self) -> Inputs:
        return Inputs(self.folder / "inputs")

    @property
    def undisturbed(self) -> Path:
        return self.folder / "unbroken"

    def place(self, key: str) -> Path:
        """An empty folder for a case."""
        place = self.folder / "cases" / key
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        return place


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """verdict: one of OK or FAILURES; what: the lines of a failure; cpu: seconds of the programs that were tried."""

    verdict: str
    what: str = ""
    cpu: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """key: a name that is the same in every campaign with the same seed; group: a verb or a reader; how: what is done
    to it."""

    key: str
    kind: str
    group: str
    how: str
    run: Callable[[Context, Path], Outcome]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """A case and its outcome. repeat: the command that runs it alone."""

    key: str
    kind: str
    group: str
    how: str
    repeat: str
    verdict: str
    what: str
    cpu: float

    @property
    def is_failure(self) -> bool:
        return self.verdict not in OK


def run_case(case: Case, context: Context) -> Record:
    """Runs a case in its folder, which is kept if it fails. A fault of the campaign itself is a failure, too."""
    place = context.place(case.key)
    try:
        outcome = case.run(context, place)
    except Exception:
        outcome = Outcome(verdict="campaign", what=traceback.format_exc())
    record = Record(
        key=case.key, kind=case.kind, group=case.group, how=case.how, repeat=f"{context.command} --only {case.key}",
        **dataclasses.asdict(outcome),
    )  # fmt: skip
    if not record.is_failure:
        shutil.rmtree(place, ignore_errors=True)
    return record


def run_cases(
    cases: Sequence[Case], context: Context, jobs: int, on_record: Callable[[Record, int, int], None]
) -> list[Record]:
    """Runs the cases that have no record in the folder yet, and returns the records of all. on_record: called with each
    new record, the number of records and the number of cases."""
    notes = context.folder / "records.jsonl"
    records = read_records(notes)
    context.folder.mkdir(parents=True, exist_ok=True)
    left = [case for case in cases if case.key not in records]
    done = len(cases) - len(left)
    if left:
        pool = concurrent.futures.ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("fork"))
        _SHARED[:] = [left, context]  # the workers are forked at the first submit, and inherit it
        with pool, open(notes, "a", encoding="utf-8") as file:
            for ended in concurrent.futures.as_completed([pool.submit(_run, number) for number in range(len(left))]):
                record = ended.result()
                file.write(json.dumps(dataclasses.asdict(record)) + "\n")
                file.flush()
                records[record.key] = record
                on_record(record, done := done + 1, len(cases))
    return [records[case.key] for case in cases]


_SHARED: list = []


def _run(number: int) -> Record:
    cases, context = _SHARED
    return run_case(cases[number], context)


def read_records(notes: Path) -> dict[str, Record]:
    """Records by their keys; an incomplete last line is skipped."""
    lines = notes.read_text(encoding="utf-8").splitlines(keepends=True) if notes.is_file() else []
    records = (Record(**json.loads(line)) for line in lines if line.endswith("\n"))
    return {record.key: record for record in records}


def evenly_spaced(things: Sequence[T], count: int) -> list[T]:
    """At most `count` of the things, spread evenly over all of them."""
    if len(things) <= count:
        return list(things)
    return [things[len(things) * number // count] for number in range(count)]


def table(records: Iterable[Record]) -> str:
    """Counts of verdicts by kind and group as a Markdown table; empty columns are left out."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for record in records:
        counts.setdefault((record.kind, record.group), Counter())[record.verdict] += 1
    total = sum(counts.values(), Counter())
    columns = [verdict for verdict in (*OK, *FAILURES) if total[verdict]]
    lines = ["| kind | of | cases | " + " | ".join(f"**{c}**" if c not in OK else c for c in columns) + " |"]
    lines.append("|---|---|--:|" + "--:|" * len(columns))
    for (kind, group), count in [*sorted(counts.items()), (("all", ""), total)]:
        cells = [str(count[column] or "·") for column in columns]
        lines.append(f"| {kind} | {group} | {count.total()} | {' | '.join(cells)} |")
    return "\n".join(lines)


def report(record: Record) -> str:
    """A failure in a few lines, with the command that repeats it."""
    lines = [f"FAIL {record.verdict}: {record.kind} of {record.group}: {record.how}"]
    lines += [f"    {line}" for line in record.what.strip().splitlines()[-6:]]
    return "\n".join([*lines, f"    {record.repeat}"])

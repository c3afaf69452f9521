"""Runs the campaign's cases in parallel, records their outcomes, and counts them in a table."""

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
    """The campaign's work folder and the command line that runs it. Cases share inputs; each has its own folder."""

    folder: Path
    command: str = "python -m tools.campaign all"

    @functools.cached_property
    def inputs(self) -> Inputs:
        return Inputs(self.folder / "inputs")

    @property
    def undisturbed(self) -> Path:
        return self.folder / "unbroken"

    def place(self, key: str) -> Path:
        """Creates an empty folder for a case."""
        place = self.folder / "cases" / key
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        return place


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a case. verdict: one of OK or FAILURES. what: describes a failure. cpu: seconds of CPU time."""

    verdict: str
    what: str = ""
    cpu: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A test case. key: unique name, the same for every campaign with the same seed. group: a verb or a reader. how:
    description of the fault."""

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
    """Runs a case in its folder, which is kept if the case fails. Errors of the campaign itself are failures, too."""
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
    """Runs the cases without a record and returns the records of all. on_record: called with each new record, and the
    numbers of finished and of all cases."""
    notes = context.folder / "records.jsonl"
    records = read_records(notes)
    context.folder.mkdir(parents=True, exist_ok=True)
    left = [case for case in cases if case.key not in records]
    done = len(cases) - len(left)
    if left:
        pool = concurrent.futures.ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("fork"))
        _SHARED[:] = [left, context]  # inherited by the workers, which are forked at the first submit
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
    """Reads records, by key; skips an incomplete last line."""
    lines = notes.read_text(encoding="utf-8").splitlines(keepends=True) if notes.is_file() else []
    records = (Record(**json.loads(line)) for line in lines if line.endswith("\n"))
    return {record.key: record for record in records}


def evenly_spaced(items: Sequence[T], count: int) -> list[T]:
    """Returns at most `count` evenly spaced items."""
    if len(items) <= count:
        return list(items)
    return [items[len(items) * number // count] for number in range(count)]


def table(records: Iterable[Record]) -> str:
    """Formats the counts of verdicts by kind and group as a Markdown table without empty columns."""
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
    """Formats a failure, with the command that repeats it."""
    lines = [f"FAIL {record.verdict}: {record.kind} of {record.group}: {record.how}"]
    lines += [f"    {line}" for line in record.what.strip().splitlines()[-6:]]
    return "\n".join([*lines, f"    {record.repeat}"])

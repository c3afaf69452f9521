"""Stress tests: kills commands, fills their disks, and damages the files that readers read.

    python -m tools.campaign kills --seed 0 --cases 200
    python -m tools.campaign targeted
    python -m tools.campaign disks
    python -m tools.campaign mutations --seed 0 --cases 2000
    python -m tools.campaign directed
    python -m tools.campaign folders
    python -m tools.campaign streams
    python -m tools.campaign all                       (all of these)

Every case is recorded when it ends: an interrupted campaign resumes when it is started again with the same --folder.
At the end, failures are printed with the commands that repeat them, then a table. The exit code is 1 if a case failed.
"""

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.campaign import disks, folders, kills, mutations, streams
from tools.campaign.cases import Case, Context, Record, evenly_spaced, read_records, report, run_cases, table
from tools.campaign.process import warm_up
from tools.campaign.readers import READERS
from tools.campaign.verbs import VERBS

# For each kind: the function that creates its cases, the verbs or readers, and the default number of cases (None: all).
KINDS: Mapping[str, tuple[Any, Mapping[str, Any], int | None]] = {
    "kills": (kills.random_cases, VERBS, 200),
    "targeted": (kills.targeted_cases, VERBS, None),
    "disks": (disks.cases, VERBS, None),
    "mutations": (mutations.random_cases, READERS, 2000),
    "directed": (mutations.directed_cases, READERS, 800),
    "folders": (folders.cases, folders.FOLDERS, None),
    "streams": (streams.cases, streams.STREAMED, None),
}
EVERY_SECONDS = 10  # between progress messages


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.campaign", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    counts = ", ".join(f"{kind}: {count:,}" for kind, (_, _, count) in KINDS.items() if count)
    parser.add_argument("kind", choices=(*KINDS, "all"))
    parser.add_argument("--seed", type=int, default=0, help="seed of random cases (default: %(default)s)")
    parser.add_argument(
        "--cases", type=int, metavar="N", help=f"maximum number of cases of each kind (default: {counts}; others: all)"
    )
    parser.add_argument(
        "--of", action="append", default=[], metavar="NAME", help="only this verb or reader; may be repeated"
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("build/campaign"), help="work folder (default: %(default)s)"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="parallel cases (default: number of cores)"
    )
    parser.add_argument("--only", metavar="KEY", help="run only this case, again if necessary")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all records to a file")
    args = parser.parse_args(argv)
    command = f"python -m tools.campaign {args.kind} --seed {args.seed}"
    command += f" --cases {args.cases}" if args.cases else ""
    context = Context(folder=args.folder.absolute(), command="".join([command, *(f" --of {name}" for name in args.of)]))
    warm_up()
    cases = [case for kind in (KINDS if args.kind == "all" else (args.kind,)) for case in _cases(kind, args, context)]
    if args.only:
        cases = [case for case in cases if case.key == args.only]
        if not cases:
            parser.error(f"there is no case {args.only}")
        _forget(context.folder / "records.jsonl", args.only)
    records = run_cases(cases, context, args.jobs, Progress())
    if args.json:
        args.json.write_text(json.dumps([dataclasses.asdict(record) for record in records], indent=1) + "\n")
    failures = [record for record in records if record.is_failure]
    print("\n".join([*map(report, failures), table(records)]))
    cpu = sum(record.cpu for record in records)
    print(f"{len(records):,} cases, {len(failures):,} failed, {cpu:,.0f} s of CPU time in child processes")
    return 1 if failures else 0


def _cases(kind: str, args: argparse.Namespace, context: Context) -> list[Case]:
    make, known, count = KINDS[kind]
    names = [name for name in known if not args.of or name in args.of]
    count = args.cases or count or 10**9
    return evenly_spaced(make(context, names, count, args.seed), count) if names else []


def _forget(notes: Path, key: str) -> None:
    """Removes the record of a case, so that the case runs again."""
    lines = (json.dumps(dataclasses.asdict(record)) for record in read_records(notes).values() if record.key != key)
    notes.parent.mkdir(parents=True, exist_ok=True)
    notes.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


class Progress:
    """Prints failures, and the number of finished cases every few seconds."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def __call__(self, record: Record, done: int, total: int) -> None:
        if record.is_failure:
            print(report(record), file=sys.stderr, flush=True)
        if time.monotonic() - self.last > EVERY_SECONDS or done == total:
            self.last = time.monotonic()
            print(f"{done:,} of {total:,} cases", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""Stress tests: kills commands, fills their disks, and damages the files that readers read.

    python -m tools.campaign kills --seed 0 --cases 200
    python -m tools.campaign targeted
    python -m tools.campaign disks
    python -m tools.campaign mutations --seed 0 --cases 2000
    python -m tools.campaign directed
    python -m tools.campaign folders
    python -m tools.campaign streams
    python -m tools.campaign all                       (all of these)

Every case is recorded as it ends: a campaign that was stopped goes on when started again with the same --folder. At
the end come a table and every failure, with the command that repeats it alone. The exit code is 1 where one failed.
"""

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.campaign.cases import Case, Context, Record, evenly, read_records, report, run_cases, table
from tools.campaign.process import warm_up

KINDS = ("kills", "targeted", "disks", "mutations", "directed", "folders", "streams")
CASES = {"kills": 200, "mutations": 2000, "directed": 800}
EVERY_SECONDS = 10  # a line of progress


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what the flags ask for; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.campaign", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=(*KINDS, "all"))
    parser.add_argument("--seed", type=int, default=0, help="of random cases (default: 0)")
    parser.add_argument("--cases", type=int, metavar="N", help=f"of a kind, at most (default: {CASES}; else all)")
    parser.add_argument("--of", action="append", default=[], metavar="NAME", help="only these verbs or readers")
    parser.add_argument("--folder", type=Path, default=Path("build/campaign"), help="default: %(default)s")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cases side by side (default: the cores)")
    parser.add_argument("--only", metavar="KEY", help="run only this case again and keep its files")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every record there")
    args = parser.parse_args(argv)
    args.folder = args.folder.absolute()
    context = Context(folder=args.folder)
    warm_up()
    cases = [case for kind in (KINDS if args.kind == "all" else (args.kind,)) for case in cases_of(kind, args, context)]
    if args.only:
        cases = [case for case in cases if case.key == args.only]
        if not cases:
            parser.error(f"there is no case {args.only}")
        forget(args.folder / "records.jsonl", args.only)
    records = run_cases(cases, context, args.jobs, Progress())
    if args.json:
        args.json.write_text(json.dumps([dataclasses.asdict(record) for record in records], indent=1) + "\n")
    failures = [record for record in records if record.is_failure]
    for record in failures:
        print(report(record))
    print(table(records))
    cpu = sum(record.cpu for record in records)
    print(f"{len(records):,} cases, {len(failures):,} failed, {cpu:,.0f} s of CPU time in the programs tried")
    return 1 if failures else 0


def cases_of(kind: str, args: argparse.Namespace, context: Context) -> list[Case]:
    """The cases of a kind, in order."""
    from tools.campaign import disks, folders, kills, mutations, streams
    from tools.campaign.folders import FOLDERS
    from tools.campaign.readers import READERS
    from tools.campaign.streams import STREAMED
    from tools.campaign.verbs import VERBS

    count = args.cases or CASES.get(kind, 10**9)
    of_kind: dict[str, dict[str, Any]] = {
        "mutations": READERS, "directed": READERS, "folders": FOLDERS, "streams": STREAMED,
    }  # fmt: skip
    known = of_kind.get(kind, VERBS)
    names = [name for name in known if not args.of or name in args.of]
    if not names:
        return []
    if kind == "kills":
        return kills.random_cases(args.seed, count, names)
    if kind == "targeted":
        return evenly(kills.targeted_cases(context, names), count)
    if kind == "disks":
        return evenly(disks.cases(context, names), count)
    if kind == "mutations":
        return mutations.random_cases(args.seed, count, names)
    if kind == "folders":
        return folders.cases(count, names)
    if kind == "streams":
        return streams.cases(count, names)
    return mutations.directed_cases(context, count, names)


def forget(notes: Path, key: str) -> None:
    """Takes a record out, so that its case runs again."""
    records = read_records(notes)
    if records.pop(key, None):
        lines = (json.dumps(dataclasses.asdict(record)) for record in records.values())
        notes.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


class Progress:
    """A line for each failure, and one every few seconds."""

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

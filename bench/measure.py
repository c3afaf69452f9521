"""Shared by all benchmarks: command lines, timing, peak memory, and figures as a table and as JSON."""

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table


def bench_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """The command line of a bench: `--json`, to which it adds its own flags."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as one flat object")
    return parser


def write_figures(path: Path | None, figures: Mapping[str, float | str]) -> None:
    """Writes figures as one flat JSON object, if there is a path."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def report(title: str, figures: Mapping[str, float], path: Path | None) -> None:
    """Prints all figures as a table, and writes them."""
    table = Table("figure", "value", title=title)
    for name, value in figures.items():
        is_small, is_large = 0 < abs(value) < 1e-3, abs(value) >= 1000
        table.add_row(name, f"{value:.2e}" if is_small else f"{value:,.0f}" if is_large else f"{value:.5g}")
    Console().print(table)
    write_figures(path, figures)


def timed(work: Callable[[], object], pause: float = 0.0) -> float:
    """Seconds that a call takes. pause: seconds to wait before it, because threads spin for a while after their last
    work."""
    time.sleep(pause)
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def medians(contestants: Mapping[str, Callable[[], object]], rounds: int, pause: float = 0.0) -> dict[str, float]:
    """Median seconds of each contestant. They take turns, so that a slow moment of the machine affects all of them."""
    times: dict[str, list[float]] = {who: [] for who in contestants}
    for _ in range(rounds):
        for who, work in contestants.items():
            times[who].append(timed(work, pause))
    return {who: statistics.median(spent) for who, spent in times.items()}


def peak_gib(process: int | str = "self") -> float:
    """Peak resident memory of a process so far; 0 for one that has ended."""
    status = Path(f"/proc/{process}/status").read_text().splitlines()
    return sum(int(line.split()[1]) / 2**20 for line in status if line.startswith("VmHWM"))


def run_watched(command: Sequence[str], on_poll: Callable[[float], object] = lambda peak: None) -> tuple[float, float]:
    """Runs a program; returns its seconds and its peak resident GiB. on_poll: called with the peak twice a second.

    Raises SystemExit if the program fails.
    """
    start, peak = time.perf_counter(), 0.0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, peak_gib(process.pid))
        on_poll(peak)
        time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with exit code {process.returncode}")
    return time.perf_counter() - start, peak

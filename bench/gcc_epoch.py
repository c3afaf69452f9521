"""An epoch over as many vectors as Google's Conceptual Captions has captions, by the training program itself.

examples:
  python -m bench.gcc_epoch
  python -m bench.gcc_epoch --store /scratch/gcc --batch-size 32 --feeds resident
  python -m bench.gcc_epoch --quick --json epoch.json

Makes a store of 3.3 million pairs of random vectors 512 wide (6.8 GB; 33,000 with --quick), then trains the paper's
4-layer MLP with its inverse-Euclidean objective for an epoch, once for each feed: the store resident on the devices,
and streamed from disk. Peak memory is the program's resident set; the time has all but the program's start in it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from c2c_jax.data.arrays import store_of_arrays
from c2c_jax.spaces.space import SpaceId

ROWS, DIM, CHUNK = 3_300_000, 512, 4096
BASE = 65_536  # different random vectors; the others are these, their coordinates turned round


class TurnedVectors:
    """An array [rows, DIM] that is made as it is read: random vectors, turned by another number of places each time."""

    def __init__(self, rows: int, seed: int):
        self.shape = rows, DIM
        self.base = np.random.default_rng(seed).normal(size=(BASE, DIM)).astype(np.float16)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, last = rows.start // BASE, (rows.stop - 1) // BASE
        turns = [np.roll(self.base, turn, axis=1) for turn in range(first, last + 1)]
        return np.concatenate(turns)[rows.start - first * BASE : rows.stop - first * BASE]


def make_store(path: Path, rows: int) -> None:
    """Does nothing where it is there already."""
    spaces = [SpaceId(name=f"random {side}", dim=DIM, fingerprint=side * 64) for side in "st"]
    store_of_arrays(path, TurnedVectors(rows, 0), TurnedVectors(rows, 1), (spaces[0], spaces[1]), chunk_rows=CHUNK)


def epoch(store: Path, workdir: Path, feed: str, batch_size: int) -> dict[str, float]:
    """Minutes, rows per second and peak GiB of the training program over one epoch."""
    command = [
        sys.executable, "train.py", "--config", "configs/mlp.py", "--workdir", str(workdir),
        "--config.source=", "--config.target=", f"--config.data.store={store}", f"--config.data.loader={feed}",
        f"--config.batch_size={batch_size}", "--config.epochs=1",
    ]  # fmt: skip
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0.0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = max([peak, *(int(line.split()[1]) / 2**20 for line in status.splitlines() if line.startswith("VmHWM"))])
        time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"training ended with {process.returncode}")
    seconds = time.perf_counter() - started
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    rates = [line["rows_per_second"] for line in lines if line["phase"] == "train"]
    return {"minutes": seconds / 60, "rows_per_s": float(np.median(rates)), "peak_gib": peak}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.gcc_epoch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, default=1024, help="default: 1024; the paper's is 32")
    parser.add_argument("--feeds", nargs="+", choices=("resident", "streamed"), default=("resident", "streamed"))
    parser.add_argument("--store", type=Path, help="keep the store there, or take the one that is there")
    parser.add_argument("--quick", action="store_true", help="a hundredth of the rows")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as one flat object")
    flags = parser.parse_args(arguments)
    rows = ROWS // 100 if flags.quick else ROWS
    figures: dict[str, float] = {"rows": rows, "batch_size": flags.batch_size}
    with tempfile.TemporaryDirectory() as scratch:
        store = flags.store or Path(scratch) / "store"
        make_store(store, rows)
        for feed in flags.feeds:
            measured = epoch(store, Path(scratch) / feed, feed, flags.batch_size)
            figures |= {f"{feed}_{name}": value for name, value in measured.items()}
    table = Table("figure", "value", title=f"an epoch of {rows:,} pairs, batch {flags.batch_size:,}")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.2f}")
    Console().print(table)
    if flags.json:
        flags.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

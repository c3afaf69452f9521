"""Measures an epoch of training on as many vectors as Google's Conceptual Captions has captions.

examples:
  python -m bench.gcc_epoch
  python -m bench.gcc_epoch --store /scratch/gcc --batch-size 32 --feeds resident
  python -m bench.gcc_epoch --quick --json epoch.json

Makes a store of 3.3 million pairs of random vectors 512 wide (6.8 GB; 33,000 with --quick), then trains the paper's
4-layer MLP with its inverse-Euclidean objective for an epoch, once with each loader: the store resident on the devices,
and streamed from disk. Peak memory is the resident set of the program; its time includes its start.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.measure import bench_parser, report, run_watched
from c2c_jax.data.arrays import store_of_arrays
from c2c_jax.spaces.space_id import SpaceId

ROWS, DIM, CHUNK = 3_300_000, 512, 4096
BASE = 65_536  # independent random vectors; the others have their coordinates rotated


class RotatedVectors:
    """An array [rows, DIM] of random vectors, computed as it is read: blocks of BASE vectors with rotated
    coordinates."""

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
    """Writes the store, unless it is complete already."""
    spaces = [SpaceId(name=f"random {side}", dim=DIM, fingerprint=side * 64) for side in "st"]
    store_of_arrays(path, RotatedVectors(rows, 0), RotatedVectors(rows, 1), (spaces[0], spaces[1]), chunk_rows=CHUNK)


def epoch(store: Path, workdir: Path, loader: str, batch_size: int) -> dict[str, float]:
    """Minutes, rows per second and peak GiB of the training program over one epoch."""
    command = [
        sys.executable, "train.py", "--config", "configs/mlp.py", "--workdir", str(workdir),
        "--config.source=", "--config.target=", f"--config.data.store={store}", f"--config.data.loader={loader}",
        f"--config.batch_size={batch_size}", "--config.epochs=1",
    ]  # fmt: skip
    seconds, peak = run_watched(command)
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    rates = [line["rows_per_second"] for line in lines if line["phase"] == "train"]
    return {"minutes": seconds / 60, "rows_per_s": float(np.median(rates)), "peak_gib": peak}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = bench_parser("bench.gcc_epoch", __doc__)
    parser.add_argument("--batch-size", type=int, default=1024, help="default: 1024; the paper's is 32")
    parser.add_argument("--feeds", nargs="+", choices=("resident", "streamed"), default=("resident", "streamed"))
    parser.add_argument("--store", type=Path, help="write the store there, or reuse it")
    parser.add_argument("--quick", action="store_true", help="a hundredth of the rows")
    flags = parser.parse_args(arguments)
    rows = ROWS // 100 if flags.quick else ROWS
    figures: dict[str, float] = {"rows": rows, "batch_size": flags.batch_size}
    with tempfile.TemporaryDirectory() as scratch:
        store = flags.store or Path(scratch) / "store"
        make_store(store, rows)
        for loader in flags.feeds:
            measured = epoch(store, Path(scratch) / loader, loader, flags.batch_size)
            figures |= {f"{loader}_{name}": value for name, value in measured.items()}
    report(f"an epoch of {rows:,} pairs, batch {flags.batch_size:,}", figures, flags.json)


if __name__ == "__main__":
    main()

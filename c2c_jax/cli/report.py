"""Writes an HTML report on a translator: images with their sounds, the two spaces, scores, curves and settings.

examples:
  c2c report runs/mlp
  c2c report runs/mlp --sounds sounds --evaluation evaluated --out mlp.html

Run c2c infer with --control for sounds to compare with and with --ranker for CLAP scores. The report is a single HTML
file with all images and sounds embedded; it works offline and on phones. A section without data says how to produce
that data.
"""

import argparse
import re
from pathlib import Path

from c2c_jax.cli import arguments
from c2c_jax.errors import ConfigError, ReportError
from c2c_jax.io.console import print_fields, stderr_console
from c2c_jax.io.files import is_regular, path_exists, user_path
from c2c_jax.io.output_paths import require_output_file
from c2c_jax.io.progress import phase

HTML = re.compile(rb"\s*<!doctype html|\s*<html", re.IGNORECASE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `c2c report`."""
    arguments.add_run(parser)
    parser.add_argument(
        "--sounds", type=user_path, metavar="DIR", help="output folder of c2c infer: sounds with their records"
    )
    parser.add_argument(
        "--evaluation", type=user_path, metavar="DIR",
        help="output folder of c2c evaluate (default: RUN/evaluation, if it exists)",
    )  # fmt: skip
    parser.add_argument("--most", type=int, default=24, metavar="N", help="maximum number of images (default: 24)")
    parser.add_argument(
        "--out", type=user_path, default=Path("report.html"), metavar="FILE.html",
        help="file to write (default: %(default)s)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Runs `c2c report`. Raises ConfigError for invalid flags, and BundleError, CheckpointError or ReportError for
    missing or damaged inputs.

    The report is written before the ReportError for records that could not be shown is raised.
    """
    arguments.require_range(args, "most", 1)
    _require_page_place(args.out)
    arguments.require_bundle(args.run)
    arguments.require_folder(args.sounds, "a folder of sounds with their records", ReportError)
    arguments.require_folder(args.evaluation, "an output folder of c2c evaluate", ReportError)

    from c2c_jax.evaluation.report.page import write_report
    from c2c_jax.evaluation.training_store import work_directory

    evaluation, workdir = args.evaluation, work_directory(args.run)
    if not evaluation and workdir and path_exists(workdir / "evaluation/metrics.json"):
        evaluation = workdir / "evaluation"
    with phase("writing the report"):
        left_out = write_report(args.run, args.out, evaluation=evaluation, generated=args.sounds, max_rows=args.most)
    for error in left_out:
        stderr_console().print(f"left out: {error}")
    print_fields(f"{args.out}  {args.out.stat().st_size / 1e6:.2f} MB")
    if left_out:
        raise ReportError(f"{len(left_out)} of the files in {args.sounds} could not be shown; they are named above")


def _require_page_place(out: Path) -> None:
    """Raises ConfigError if the report cannot be written, or would replace a file that is not an HTML page."""
    require_output_file(out, "--out")
    if is_regular(out) and out.stat().st_size:
        with open(out, "rb") as file:
            if not HTML.match(file.read(64)):
                raise ConfigError(f"--out {out} exists and is not an HTML page: pass another file")

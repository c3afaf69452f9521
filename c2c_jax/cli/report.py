"""Writes a page of a translator: pictures with their sounds, the two spaces, scores, curves and settings.

examples:
  c2c report runs/mlp
  c2c report runs/mlp --sounds sounds --evaluation evaluated --out mlp.html

RUN is the work directory of train.py, or a bundle folder. --sounds is a folder that infer.py filled (with --control for
control sounds and --ranker for CLAP scores), --evaluation one that c2c evaluate filled: RUN/evaluation, if it is there,
unless told otherwise. The page is one file of HTML
with all pictures and sounds in it: it opens offline, on phones too. A section without its part says how to make that.
"""

import argparse
from pathlib import Path

from c2c_jax.cli.places import require_bundle, require_folder
from c2c_jax.errors import ConfigError, ReportError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="the work directory of a run, or a bundle folder")
    parser.add_argument("--sounds", type=Path, metavar="DIR", help="sounds of infer.py, with their records")
    parser.add_argument(
        "--evaluation",
        type=Path,
        metavar="DIR",
        help="what c2c evaluate wrote (default: RUN/evaluation, if it is there)",
    )
    parser.add_argument("--most", type=int, default=24, metavar="N", help="pictures that are shown (default: 24)")
    parser.add_argument(
        "--out", type=Path, default=Path("report.html"), metavar="FILE.html", help="the page (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    if args.most < 1:
        raise ConfigError(f"--most is {args.most}: take 1 or more")
    if args.out.is_dir():
        raise ConfigError(f"--out {args.out} is a folder: name a file in it, such as {args.out / 'report.html'}")
    require_bundle(args.run)
    require_folder(args.sounds, "a folder of sounds with their records", ReportError)
    require_folder(args.evaluation, "what c2c evaluate wrote", ReportError)
    from rich.console import Console

    from c2c_jax.evaluation.report.page import write_report
    from c2c_jax.evaluation.trained_on import work_directory

    evaluation, workdir = args.evaluation, work_directory(args.run)
    if not evaluation and workdir and (workdir / "evaluation/metrics.json").is_file():
        evaluation = workdir / "evaluation"
    left_out = write_report(args.run, args.out, evaluation=evaluation, sounds=args.sounds, most=args.most)
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)
    for error in left_out:
        console.print(f"left out: {error}")
    print(f"{args.out}  {args.out.stat().st_size / 1e6:.2f} MB", flush=True)
    if left_out:
        raise ReportError(f"{len(left_out)} of the files below {args.sounds} could not be shown; they are named above")

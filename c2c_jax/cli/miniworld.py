"""Shows or exports the mini world, a procedural world of images, sounds and captions.

examples:
  c2c miniworld show --out world                          (a contact sheet, and a page with audio players)
  c2c miniworld captions --count 100000 --out captions.txt
  c2c miniworld export --split test --out pairs           (png, wav and manifest.csv, for c2c evaluate --pairs)

Nothing is downloaded, and the same seed gives the same files. To train on the mini world's captions, pass
--data miniworld:24000 to c2c train.
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

from c2c_jax.cli.arguments import MAX_SEED, require_range
from c2c_jax.errors import ConfigError
from c2c_jax.io.console import print_fields
from c2c_jax.io.files import is_regular, user_path
from c2c_jax.io.output_paths import require_output_file, require_replaceable_folder

MAX_COUNT = {"show": 2_000, "captions": 100_000_000, "export": 99_999}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `c2c miniworld`."""
    from c2c_jax.miniworld.captions import STYLES  # imports NumPy
    from c2c_jax.miniworld.world import CELLS, SPLITS

    tasks = parser.add_subparsers(dest="task", required=True, metavar="SUBCOMMAND")
    show = tasks.add_parser("show", help="write a contact sheet with mel-spectrograms, and a page with audio players")
    show.add_argument(
        "--out", type=user_path, default=Path("miniworld"), metavar="DIR", help="folder to write (default: %(default)s)"
    )
    show.add_argument(
        "--count", type=int, default=48, metavar="N", help="number of scenes (default: %(default)s, two per source)"
    )
    text = tasks.add_parser("captions", help="write captions, one per line")
    text.add_argument("--out", type=user_path, required=True, metavar="FILE.txt", help="file to write")
    text.add_argument("--count", type=int, required=True, metavar="N", help="number of captions")
    text.add_argument(
        "--style", choices=STYLES, help="style of the captions (default: all three, with equal probability)"
    )
    export = tasks.add_parser("export", help="write images, sounds and a manifest of both")
    export.add_argument("--out", type=user_path, required=True, metavar="DIR", help="folder to write")
    export.add_argument(
        "--count", type=int, default=5 * CELLS, metavar="N", help="number of scenes (default: %(default)s)"
    )
    export.add_argument("--style", choices=STYLES, default="mixed", help="style of the captions (default: %(default)s)")
    for task, split in ((show, "test"), (text, "train"), (export, "test")):
        task.add_argument("--split", choices=SPLITS, default=split, help="scenes of this split (default: %(default)s)")
        task.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Runs `c2c miniworld`; raises ConfigError for a number out of range or an unusable --out."""
    require_range(args, "count", 1, MAX_COUNT[args.task])
    require_range(args, "seed", 0, MAX_SEED)
    if args.task == "captions":
        return _write_captions(args)
    if args.task == "show":
        for name in ("miniworld.png", "miniworld.html"):
            require_output_file(args.out / name, "--out")
    else:
        _require_export_place(args.out)
    from c2c_jax.miniworld.show import export, show

    if args.task == "show":
        for path in show(args.out, args.split, args.count, args.seed):
            print_fields(path)
    else:
        print_fields(export(args.out, args.split, args.count, args.seed, args.style))


def _write_captions(args: argparse.Namespace) -> None:
    from c2c_jax.io.atomic import atomic_write
    from c2c_jax.miniworld.captions import STYLES, captions

    require_output_file(args.out, "--out")
    styles = (args.style,) if args.style else STYLES

    def lines() -> Iterator[str]:
        return (f"{text}\n" for text in captions(args.split, args.count, args.seed, styles))

    if is_regular(args.out) and args.out.stat().st_size:
        if not _has_lines(args.out, lines()):
            raise ConfigError(f"--out {args.out} exists and is not empty: pass another file, or move it away")
    else:
        with atomic_write(args.out) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(lines())
    print_fields(args.out)


def _has_lines(path: Path, lines: Iterator[str]) -> bool:
    """Whether a file holds exactly these lines, because the same command has run before."""
    with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
        return all(existing == line for existing, line in itertools.zip_longest(file, lines))


def _require_export_place(out: Path) -> None:
    """Raises ConfigError if the folder holds anything but an earlier export, which would be replaced."""
    from c2c_jax.miniworld.show import is_export

    require_replaceable_folder(out, "--out")
    if out.is_dir() and any(out.iterdir()) and not is_export(out):
        raise ConfigError(f"--out {out} exists and is not an earlier export: pass another folder, or move it away")

"""Estimates where pictures' and sounds' vectors lie, so that a translator carries pictures over the modality gap.

examples:
  c2c calibrate runs/residual --images photos/                            (into runs/residual/bundle)
  c2c calibrate runs/residual --images photos/ 'more/*.jpg' --sounds SOUNDS --clap laion/clap-htsat-unfused
  c2c calibrate published/mlp --images photos/ --out bundles/mlp-photos
  c2c calibrate runs/residual --remove

The files need no captions, no labels and no pairs; some hundreds that are like those to come serve best. Their mean
goes into the bundle beside the captions', and every use of it then corrects pictures' vectors, and with --sounds the
translated ones. What cannot be read is named and left out, and the exit code is 2 at the end.
"""

import argparse
import sys
from typing import TYPE_CHECKING

from c2c_jax.cli.places import (
    require_bundle,
    require_checkpoints,
    require_folder,
    require_images,
    require_store,
)
from c2c_jax.errors import C2CError, ConfigError
from c2c_jax.io.console import print_fields, printable, stderr_console
from c2c_jax.io.files import user_path

if TYPE_CHECKING:  # JAX is imported once the flags have been read
    from c2c_jax.calibration import Calibration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", type=user_path, metavar="RUN", help="the work directory of a run, a bundle folder, or a hub name"
    )
    parser.add_argument(
        "--images", nargs="+", default=[], metavar="PATH", help="pictures, folders of pictures, or patterns of names"
    )
    parser.add_argument("--sounds", type=user_path, metavar="FOLDER", help="sounds, with the folders inside it")
    parser.add_argument(
        "--out", type=user_path, metavar="BUNDLE", help="folder to write (default: RUN's bundle itself)"
    )
    parser.add_argument("--remove", action="store_true", help="take the statistics of pictures and sounds out again")

    where = parser.add_argument_group("where things lie")
    where.add_argument("--clip", metavar="NAME", help="the CLIP checkpoint (default: the one the bundle names)")
    where.add_argument(
        "--clap", metavar="NAME", help="the whole CLAP: hub name, folder or file (default: the one the bundle names)"
    )
    where.add_argument(
        "--store", type=user_path,
        help="the store that RUN was trained on, for a bundle without captions' means (default: where it says)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> None:
    if args.remove and (args.images or args.sounds):
        raise ConfigError("--remove takes statistics out: it goes without --images and --sounds")
    if not (args.remove or args.images or args.sounds):
        raise ConfigError("nothing to estimate from: pass --images PATH... or --sounds FOLDER")
    bundle = require_bundle(args.run)
    require_images(args.images)
    require_folder(args.sounds, "a folder of sounds")
    if args.store:
        require_store(args.store)
    require_checkpoints(
        (args.clip or bundle.get("source")) if args.images else None,
        (args.clap or bundle.get("target")) if args.sounds else None,
    )
    if args.remove:
        from c2c_jax.calibration import remove

        return show(remove(args.run, args.out))
    from c2c_jax.images import find_pictures

    pictures = find_pictures(args.images, stderr_console().print)
    from c2c_jax.calibration import calibrate

    done = calibrate(
        args.run,
        pictures=pictures,
        sounds=args.sounds,
        clip=args.clip,
        clap=args.clap,
        store=args.store,
        out=args.out,
        console=stderr_console(),
    )
    show(done)
    if done.left_out:
        raise C2CError(f"{len(done.left_out):,} files could not be read; they are named above")


def show(done: "Calibration") -> None:
    """The gaps' lengths, the statistics and the bundle's folder on stdout; warnings on stderr."""
    for kind, found in (("pictures", done.pictures), ("sounds", done.sounds)):
        if found:
            after = f" before, {done.pictures_after:.4f} after" if kind == "pictures" else ""
            print(f"{found.files:,} {kind}: gap to captions {found.length:.4f}{after}")
            if found.files < len(found.mean):
                print(
                    f"the mean of {found.files:,} {kind} may be off by {found.error:.4f}, "
                    f"{found.error / found.length:.0%} of the gap's length: more {kind} make it surer",
                    file=sys.stderr,
                )
    if done.translated:
        print("translated pictures: gap to sounds {:.4f} before, {:.4f} after".format(*done.translated))
    print(f"statistics in the bundle: {', '.join(done.gap.known) or 'none'}")
    print(f"in use: {', '.join(done.gap.used) or 'none'}")
    if done.stale:
        print(
            f"{' and '.join(done.stale)} in {printable(done.folder)} use the old statistics: run c2c export again",
            file=sys.stderr,
        )
    print_fields(done.folder)

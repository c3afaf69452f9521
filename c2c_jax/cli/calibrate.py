"""Estimates the mean vectors of images, sounds and texts with which a translator centres its inputs and outputs.

examples:
  c2c calibrate runs/mine --images photos/                            (changes runs/mine/bundle)
  c2c calibrate runs/mine --images photos/ 'more/*.jpg' --sounds SOUNDS --clap laion/clap-htsat-unfused
  c2c calibrate runs/mine --images clip_vectors.npy                   (raw vectors, without a checkpoint)
  c2c calibrate runs/mine --texts queries.txt --out bundles/queries   (for text queries unlike the captions)
  c2c calibrate published/mlp --images photos/ --out bundles/mlp-photos
  c2c calibrate runs/mine --remove

The files need no labels and no pairs. Use a few hundred general images, so that their mean holds only what all
images have in common. The mean of a narrow set (one kind of object, one film) centres other images badly; a warning
is then printed. docs/calibration.md has measurements. Unreadable files are reported and skipped, and the exit code is
then 2.
"""

import argparse
import sys
from typing import TYPE_CHECKING

from c2c_jax.cli import arguments
from c2c_jax.errors import AudioError, C2CError, CaptionError, ConfigError, ImageError
from c2c_jax.io.console import print_fields, printable
from c2c_jax.io.files import describe_path, is_array, is_regular, user_path
from c2c_jax.io.names import split_name

if TYPE_CHECKING:  # JAX is imported after the flags are parsed
    from c2c_jax.evaluation.calibration import Calibration, Estimate


TEXTS_CENTRE_IMAGES = (
    "this bundle has no mean of images, so images use the mean of texts, which --texts replaces: translations of "
    "images change too; pass --images to store a mean of images"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `c2c calibrate`."""
    arguments.add_run(parser)
    parser.add_argument(
        "--images", nargs="+", default=[], metavar="PATH",
        help="images, folders of images, or glob patterns; or an .npy file of raw CLIP vectors [N, S], where a "
        "single vector with a norm below 1 is used as the mean",
    )  # fmt: skip
    parser.add_argument(
        "--sounds", type=user_path, metavar="FOLDER",
        help="folder of sounds, searched recursively; or an .npy file of raw CLAP audio vectors [N, E] or their mean",
    )  # fmt: skip
    parser.add_argument(
        "--texts", metavar="FILE",
        help="examples of text queries: a file with one text per line, or a caption source as in training. Their means "
        "replace those of the training captions: text queries are then centred with the mean of these texts, and "
        "results are un-centred with the mean of their CLAP vectors. --remove does not restore the old means; pass "
        "--out to keep them",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=user_path, metavar="BUNDLE", help="folder to write (default: RUN's bundle itself)"
    )
    parser.add_argument("--remove", action="store_true", help="remove the means of images and sounds")
    arguments.add_checkpoints(parser).add_argument(
        "--store", type=user_path,
        help="store that RUN was trained on, for bundles without means of captions (default: the path it recorded)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Runs `c2c calibrate`. Raises C2CError for invalid flags, missing inputs and unreadable files.

    The means of the readable files are written before the error for unreadable files is raised.
    """
    if args.remove == bool(args.images or args.sounds or args.texts):
        if args.remove:
            raise ConfigError("--remove cannot be combined with --images, --sounds or --texts")
        raise ConfigError("nothing to estimate from: pass --images PATH..., --sounds FOLDER or --texts FILE")
    bundle = arguments.require_bundle(args.run)
    arrays = [path for path in map(user_path, args.images) if is_array(path)]
    if arrays and len(args.images) > 1:
        raise ConfigError(f"--images takes images or one .npy file of vectors, found {len(args.images)} arguments")
    for path in arrays:
        arguments.require_path(path, "an .npy file of vectors", ImageError)
    arguments.require_images([] if arrays else args.images)
    sounds = None if args.sounds is None or is_array(args.sounds) else args.sounds
    arguments.require_folder(sounds, "a folder of sounds")
    if not sounds:
        arguments.require_path(args.sounds, "an .npy file of vectors", AudioError)
    if args.texts and not is_regular(user_path(args.texts)):
        if len(split_name(args.texts)) < 2:
            raise CaptionError(
                f"expected texts at {args.texts}, found {describe_path(user_path(args.texts))}: pass a file with one "
                "text per line, or a caption source such as csv:FILE:COLUMN"
            )
        arguments.require_captions(args.texts)
    arguments.require_store(args.store)
    arguments.require_checkpoints(
        (args.clip or bundle.get("source")) if (args.images and not arrays) or args.texts else None,
        (args.clap or bundle.get("target")) if sounds or args.texts else None,
    )
    from c2c_jax.evaluation.calibration import calibrate, remove
    from c2c_jax.io.images import find_images

    if args.remove:
        return show(remove(args.run, args.out))
    flags = {name: getattr(args, name) for name in ("texts", "clip", "clap", "store", "out")}
    images = arrays or find_images(args.images)
    calibration = calibrate(args.run, images=images, audio=args.sounds, **flags)
    show(calibration)
    if calibration.left_out:
        raise C2CError(f"{len(calibration.left_out):,} files could not be read; they are named above")


def show(calibration: "Calibration") -> None:
    """Prints the estimates, the bundle's means and its folder on stdout, and warnings on stderr."""
    from c2c_jax.translator.mean_estimates import error_line

    if calibration.texts:
        for space, estimate in zip(("CLIP", "CLAP"), calibration.texts, strict=True):
            moved = (
                ""
                if estimate.distance is None
                else f", {estimate.distance:.4f} from the mean of captions that it replaces"
            )
            print(f"{estimate.count:,} texts, {space}: {_lengths(estimate)}{moved}")
            print(error_line(estimate, f"texts, {space}"))
        if calibration.is_centred and calibration.means.source_image is None:
            print(TEXTS_CENTRE_IMAGES, file=sys.stderr)
    for kind, mean in (("images", calibration.images), ("sounds", calibration.audio)):
        if mean:
            number = f"mean of {kind} as given" if mean.count is None else f"{mean.count:,} {kind}"
            moved = ""
            if kind == "images" and calibration.shifted_distance is not None:
                moved = f" before, {calibration.shifted_distance:.4f} after"
            print(f"{number}: {_lengths(mean)}, distance to the mean of captions {mean.distance:.4f}{moved}")
            if mean.count:
                print(error_line(mean, kind))
    if calibration.narrow_warning:
        print(calibration.narrow_warning, file=sys.stderr)
    if calibration.translated_distances:
        before, after = calibration.translated_distances
        print(f"translated images: distance to sounds {before:.4f} before, {after:.4f} after")
    print(f"means in the bundle: {', '.join(calibration.means.known) or 'none'}")
    if not calibration.is_centred:
        print(f"in use: {', '.join(calibration.means.used) or 'none'}")
    elif calibration.means.target_audio is not None:
        print("results are un-centred with the mean of captions; infer --output-mean audio uses the mean of sounds")
    if calibration.stale:
        exports = f"{' and '.join(calibration.stale)} in {printable(calibration.folder)}"
        print(f"{exports} use the old means; run c2c export again", file=sys.stderr)
    print_fields(calibration.folder)


def _lengths(estimate: "Estimate") -> str:
    return f"norm of the mean {estimate.mean_length:.4f}, spread {estimate.spread:.4f}"

"""Scores a translator and baselines: retrieval of captions, images and sounds, modality gaps, generated sounds.

Retrieval is scored by cosine, by centred cosine (metrics "centred_..."), and by centred cosine minus hubness (metrics
"nnn_...").

examples:
  c2c evaluate runs/residual                                            (held-out captions of the run)
  c2c evaluate runs/residual --pairs pairs.csv --clap laion/clap-htsat-unfused
  c2c evaluate runs/residual --pairs VGGSOUND --clap 630k-audioset-best.pt --out evaluations/vggsound
  c2c evaluate runs/residual --sounds sounds --reference AUDIOCAPS --clap laion/clap-htsat-unfused
  c2c evaluate published/mlp --captions csv:audiocaps/test.csv:caption --csls --out evaluations/audiocaps
  c2c evaluate runs/residual --geometry --out evaluations/geometry      (describes the two spaces)

pairs.csv has the columns image, audio and, optionally, label and caption. Folders of VGGSound, VGG-SS, Flickr-SoundNet,
ESC-50, UrbanSound8K and ImageHear are read as well (docs/evaluation.md). The results are metrics.json, table.md,
table.tex and vectors.npz. Unreadable files are reported and skipped; the exit code is then 2.
"""

import argparse
from pathlib import Path

from c2c_jax.cli import arguments
from c2c_jax.errors import ConfigError, ManifestError
from c2c_jax.io.console import print_fields, stderr_console, stdout_console
from c2c_jax.io.files import user_path

MAX_RESAMPLES = 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `c2c evaluate`."""
    arguments.add_run(parser)
    parser.add_argument(
        "--out", type=user_path, metavar="DIR",
        help="folder to write (default: RUN/evaluation, unless it holds results with other settings)",
    )  # fmt: skip

    inputs = parser.add_argument_group("inputs")
    inputs.add_argument(
        "--captions", metavar="SPEC",
        help="a caption source, such as txt:FILE, or a store folder; captions that were used for training are excluded "
        "(default: the captions that training held out)",
    )  # fmt: skip
    inputs.add_argument(
        "--pairs",
        type=user_path,
        metavar="PATH",
        help="a CSV manifest of images and sounds, or the folder of a supported data set",
    )
    inputs.add_argument(
        "--sounds", type=user_path, metavar="DIR",
        help="output folder of c2c infer: generated sounds with their records",
    )  # fmt: skip
    inputs.add_argument(
        "--reference", type=user_path, metavar="DIR",
        help="folder of real sounds to compare --sounds with (default: the sounds of --pairs)",
    )  # fmt: skip

    arguments.add_checkpoints(parser).add_argument(
        "--store", type=user_path, help="store that RUN was trained on (default: the path it recorded)"
    )

    figures = parser.add_argument_group("metrics")
    figures.add_argument(
        "--csls",
        nargs="?",
        type=int,
        const=10,
        metavar="K",
        help="also score retrieval by CSLS with K neighbours (default of K: 10)",
    )
    figures.add_argument(
        "--no-centre", action="store_true", help="skip the scores by centred cosine, with and without hubness"
    )
    figures.add_argument("--no-hubness", action="store_true", help="skip the scores by centred cosine minus hubness")
    figures.add_argument(
        "--geometry", action="store_true",
        help="also describe both spaces: their means, modality gap and cosines of pairs, and how close the map between "
        "their text vectors is to a rotation",
    )  # fmt: skip
    figures.add_argument(
        "--bootstrap",
        type=int,
        default=1000,
        metavar="N",
        help="bootstrap resamples of intervals (default: %(default)s)",
    )
    figures.add_argument(
        "--seed", type=int, default=0, help="random seed of intervals, folds and subsets (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Runs `c2c evaluate`. Raises C2CError for invalid flags, missing inputs, and skipped files or rows.

    The results are written before the ManifestError for skipped files or rows is raised.
    """
    arguments.require_range(args, "bootstrap", 0, MAX_RESAMPLES)
    arguments.require_range(args, "seed", 0, arguments.MAX_SEED)
    arguments.require_range(args, "csls", 1)
    if args.reference and not args.sounds:
        raise ConfigError("--reference needs --sounds DIR, the generated sounds to compare with it")
    arguments.require_bundle(args.run)
    if args.captions and not Path(args.captions).is_dir():
        arguments.require_captions(args.captions)
    arguments.require_path(args.pairs, "a manifest or the folder of a data set")
    arguments.require_folder(args.sounds, "a folder of sounds with their records")
    arguments.require_folder(args.reference, "a folder of sounds")
    arguments.require_store(args.store)
    arguments.require_checkpoints(args.clip, args.clap)
    from c2c_jax.evaluation.bootstrap import Bootstrap
    from c2c_jax.evaluation.evaluate import EvalRequest, evaluate
    from c2c_jax.evaluation.results import markdown, notes, require_results_place, show, tables, write
    from c2c_jax.evaluation.training_store import work_directory

    workdir = work_directory(args.run)
    out = args.out or (workdir and workdir / "evaluation")
    if not out:
        raise ConfigError(f"{args.run} is a bundle outside of a work directory: pass --out, the folder for the results")
    require_results_place(out)
    fields = ("run", "captions", "store", "pairs", "reference", "clip", "clap", "csls", "geometry")
    bootstrap = Bootstrap(resamples=args.bootstrap, seed=args.seed)
    flags = {name: getattr(args, name) for name in fields}
    request = EvalRequest(
        **flags,
        generated=args.sounds,
        centre=not args.no_centre,
        hubness=not args.no_hubness,
        bootstrap=bootstrap,
    )
    results = evaluate(request, keep=None if args.out else out)
    write(results, out)
    shown = stdout_console()
    for table in tables(results.rows):
        show(table, shown) if shown.is_terminal else print(markdown(table))
    for line in notes(results):
        stderr_console().print(line)
    print_fields(out)
    if results.left_out:
        raise ManifestError(f"{len(results.left_out):,} files or rows were skipped or only partly used; see above")

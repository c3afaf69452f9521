"""Turns images into sounds.

examples:
  c2c infer photo.png --translator runs/mlp/bundle --audioldm cvssp/audioldm-l-full
  c2c infer photos/ 'more/*.jpg' --translator runs/mlp/bundle --audioldm FOLDER --out sounds --candidates 3 \\
      --ranker laion/clap-htsat-unfused
  c2c infer photo.png ... --control "a dog barks"                 (also photo.control.wav, from the text)
  c2c infer photo.png ... --prompt "heavy rain" --mix 0.3         (0.7 of the image, 0.3 of the text)
  c2c infer frames/ ... --average                                 (frames.wav, from the mean of all images)
  c2c infer photo.png --translator runs/mlp/bundle --scheduler ddim --steps 200 ...      (as in the paper)
  c2c infer photo.png --translator runs/mlp/bundle --save-embedding photo.npy
  c2c infer photo.png --translator bundles/calibrated --output-mean audio ...    (see c2c calibrate --sounds)
  c2c infer drawing.png                (with the mini world's translator and AudioLDM, which are included)

For each sound, its mel-spectrogram (photo.mel.png) and a record of all settings that reproduce it (photo.sound.json)
are written next to it. --save-embedding writes the unit CLAP vector [E] of the image, float32; it needs no AudioLDM.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from c2c_jax.cli import arguments
from c2c_jax.errors import ConfigError
from c2c_jax.generation.sampling import (
    DTYPES,
    MINIWORLD_AUDIOLDM,
    MINIWORLD_CLAP,
    STEPS,
    Sampling,
    checkpoint_sampling,
    require_torch,
)
from c2c_jax.io.console import print_fields
from c2c_jax.io.files import user_path

if TYPE_CHECKING:  # JAX is imported after the flags are parsed
    from c2c_jax.generation.pipeline import Generation


MINIWORLD_TRANSLATOR = Path("miniworld/translator")
MINIWORLD_NOTE = "using the mini world's translator, which was trained for drawings of 24 sources, not for photographs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `c2c infer`."""
    default = Sampling()
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="images, folders of images, or glob patterns")
    parser.add_argument(
        "--translator", type=user_path, metavar="RUN", default=MINIWORLD_TRANSLATOR,
        help="work directory of a training run, bundle folder, or hub name (default: the mini world's, %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--audioldm", metavar="NAME",
        help="AudioLDM, the sound generator: a hub name or a folder in diffusers' layout "
        f"(default for translators to {MINIWORLD_CLAP}: {MINIWORLD_AUDIOLDM})",
    )  # fmt: skip
    arguments.add_checkpoints(parser, clap=False)

    files = parser.add_argument_group("output files")
    files.add_argument(
        "--out", type=user_path, help="sound file for a single image, or a folder (default: next to each image)"
    )
    files.add_argument(
        "--format", choices=("wav", "flac"), help="format of sound files (default: wav, or that of --out)"
    )
    files.add_argument(
        "--save-embedding", type=user_path, metavar="FILE.npy", help="write the CLAP vectors to this file"
    )

    vector = parser.add_argument_group("content")
    vector.add_argument(
        "--average",
        action="store_true",
        help="make one sound from the mean vector of all images in a folder, such as the frames of a video",
    )
    vector.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="text to mix in; repeatable")
    vector.add_argument(
        "--blend", action="append", default=[], type=user_path, metavar="IMAGE", help="image to mix in; repeatable"
    )
    vector.add_argument(
        "--mix", action="append", default=[], type=float, metavar="W",
        help="weights, one per --prompt then one per --blend; a single value is the total, split equally "
        "(default: 0.5)",
    )  # fmt: skip
    vector.add_argument(
        "--output-mean", choices=("text", "audio"), default="text",
        help="mean that is added to translations of centred vectors: that of CLAP's caption vectors (text), or of its "
        "sound vectors (audio; needs c2c calibrate --sounds) (default: %(default)s)",
    )  # fmt: skip
    vector.add_argument(
        "--control", action="append", default=[], metavar="TEXT",
        help="also make a sound from this text, for comparison; once, or once per image",
    )  # fmt: skip

    sampling = parser.add_argument_group("sampling", "an AudioLDM folder may set other defaults in sampling.json")
    sampling.add_argument(
        "--scheduler", choices=tuple(STEPS), help=f"ddim is the paper's (default: {default.scheduler})"
    )
    sampling.add_argument(
        "--steps", type=int, help=f"denoising steps (default: {', '.join(f'{n} for {s}' for s, n in STEPS.items())})"
    )
    sampling.add_argument("--seconds", type=float, help=f"duration of the sounds (default: {default.seconds})")
    sampling.add_argument(
        "--guidance", type=float, help=f"guidance scale; 1 = no guidance (default: {default.guidance})"
    )
    sampling.add_argument(
        "--negative-prompt", help=f"text that guidance steers away from (default: {default.negative_prompt!r})"
    )
    sampling.add_argument(
        "--seed",
        type=int,
        default=default.seed,
        help="random seed; the same seed gives the same file (default: %(default)s)",
    )
    sampling.add_argument("--candidates", type=int, default=1, metavar="N", help="sounds per image (default: 1)")
    sampling.add_argument(
        "--ranker", metavar="NAME",
        help="CLAP checkpoint that ranks the candidates: hub name, folder, or LAION's .pt or AudioLDM's .ckpt file",
    )  # fmt: skip

    device = parser.add_argument_group("device")
    device.add_argument("--device", help="PyTorch device (default: cuda if available)")
    device.add_argument(
        "--dtype", choices=DTYPES, default="float32", help="precision of AudioLDM (default: %(default)s)"
    )
    device.add_argument("--offload", action="store_true", help="keep each network on the device only while it runs")
    device.add_argument("--batch-size", type=int, default=4, help="sounds sampled at once (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Runs `c2c infer`. Raises ConfigError or GenerationError for invalid flags, ImageError for missing or unreadable
    images, and BundleError or CheckpointError for a translator or checkpoint that cannot be loaded."""
    arguments.require_range(args, "batch-size", 1)
    arguments.require_images(args.images)
    for path in args.blend:
        arguments.require_images([path])
    bundle = arguments.require_bundle(args.translator)
    arguments.require_checkpoints(args.clip or bundle.get("source"), args.audioldm, args.ranker)
    if args.audioldm or not args.save_embedding:
        require_torch()
    if not (args.audioldm or args.save_embedding):
        args.audioldm = _default_audioldm(args.translator)
    if args.translator == MINIWORLD_TRANSLATOR:
        print(MINIWORLD_NOTE, file=sys.stderr)
    from c2c_jax.generation.pipeline import Blend, images_to_audio
    from c2c_jax.io.images import find_images

    count = len(args.prompt) + len(args.blend)
    weights = args.mix or [0.5] * bool(count)
    if len(weights) == 1 and count:
        weights = [weights[0] / count] * count
    written = images_to_audio(
        find_images(args.images),
        args.translator,
        clip=args.clip,
        generation=_generation(args) if args.audioldm else None,
        blend=Blend(prompts=tuple(args.prompt), images=tuple(args.blend), weights=tuple(weights)),
        average=args.average,
        out=args.out,
        roots=[folder for folder in map(user_path, args.images) if folder.is_dir()],
        audio_format=args.format,
        save_embedding=args.save_embedding,
        output_mean=args.output_mean,
    )
    for path in written:
        print_fields(path)


def _default_audioldm(run: Path) -> str:
    """The default generator of a translator. Raises ConfigError if it has none."""
    from c2c_jax.generation.pipeline import default_generator
    from c2c_jax.io.resolve import bundle_folder
    from c2c_jax.translator.bundle import load_bundle

    if name := default_generator(load_bundle(bundle_folder(run))):
        return name
    raise ConfigError("nothing to write: pass --audioldm NAME for a sound, or --save-embedding FILE.npy")


def _generation(args: argparse.Namespace) -> "Generation":
    from c2c_jax.generation.pipeline import Generation
    from c2c_jax.spaces.weights.folders import checkpoint_folder

    fields = ("scheduler", "steps", "seconds", "guidance", "negative_prompt")
    flags = {field: getattr(args, field) for field in fields if getattr(args, field) is not None}
    sampling = checkpoint_sampling(checkpoint_folder(args.audioldm)) | flags
    return Generation(
        audioldm=args.audioldm,
        sampling=Sampling(**sampling, seed=args.seed, candidates=args.candidates),
        ranker=args.ranker,
        controls=tuple(args.control),
        device=args.device,
        dtype=args.dtype,
        offload=args.offload,
        at_once=args.batch_size,
    )

"""Turns a picture into a sound.

examples:
  python infer.py photo.png --translator runs/mlp/bundle --audioldm cvssp/audioldm-l-full
  python infer.py photo.png --translator runs/mlp/bundle --save-embedding photo.npy

The second writes the unit CLAP vector [E] of the picture, float32, and needs no AudioLDM.
"""

import argparse
from pathlib import Path

from c2c_jax.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", type=Path, help="the picture")
    parser.add_argument("--translator", required=True, type=Path, metavar="BUNDLE", help="the `bundle` folder of a run")
    parser.add_argument("--audioldm", metavar="NAME", help="AudioLDM: a hub name or a folder in diffusers' layout")
    parser.add_argument("--clip", metavar="NAME", help="the CLIP checkpoint (default: the one the bundle names)")
    parser.add_argument("--steps", type=int, default=200, help="denoising steps (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the sound (default: %(default)s)")
    parser.add_argument("--guidance", type=float, default=7.5, help="guidance scale; 1: none (default: %(default)s)")
    parser.add_argument(
        "--negative-prompt", default="Low quality", help="what the sound should not be (default: %(default)r)"
    )
    parser.add_argument("--seed", type=int, default=0, help="same seed, same file (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="the wav file to write (default: the picture's name with .wav)")
    parser.add_argument("--save-embedding", type=Path, metavar="FILE.npy", help="write the CLAP vector here")


def run(args: argparse.Namespace) -> None:
    if not (args.audioldm or args.save_embedding):
        raise ConfigError("nothing to write: pass --audioldm NAME for a sound, or --save-embedding FILE.npy")
    from c2c_jax.inference import Sampling, picture_to_sound

    sampling = Sampling(
        steps=args.steps,
        seconds=args.seconds,
        guidance=args.guidance,
        negative_prompt=args.negative_prompt,
        seed=args.seed,
    )
    written = picture_to_sound(
        args.image,
        args.translator,
        audioldm=args.audioldm,
        clip=args.clip,
        sampling=sampling,
        out=args.out,
        save_embedding=args.save_embedding,
    )
    for path in written:
        print(path)

"""Converts a checkpoint by CLIP2CLAP's author (a pickled state dict, `.pt`) to a translator bundle.

examples:
  c2c import-checkpoint linear2_contrastive_euclid_512_epoch_5.pt --out bundles/linear2
  c2c import-checkpoint linear_contrastive_loss_epoch_8.pt --out bundles/linear --source openai/clip-vit-large-patch14
  c2c import-checkpoint layers.pt --out bundles/layers --kind mlp --clamp 0

Kinds: linear, linear2, mlp (the author's linear3), mlp_layernorm (linear4), mlp5 (linear5) and transformer (the
author's encoders). No code in the file is run; anything but a state dict of float32 tensors is refused. Attention of
the encoders runs over the coordinates of a vector, as in the paper. The author's code runs it over the vectors of a
batch, so imported encoders do not reproduce the author's outputs.
"""

import argparse
from pathlib import Path

from c2c_jax.cli.arguments import require_path
from c2c_jax.errors import CheckpointError, ConfigError
from c2c_jax.io.console import print_fields, stderr_console
from c2c_jax.io.files import user_path
from c2c_jax.io.json import read_json
from c2c_jax.io.output_paths import require_replaceable_folder

BUNDLE_FILES = {"config.json", "model.safetensors"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `c2c import-checkpoint`."""
    parser.add_argument("file", type=user_path, metavar="FILE.pt", help="checkpoint to convert")
    parser.add_argument("--out", required=True, type=user_path, metavar="DIR", help="bundle folder to write")
    parser.add_argument(
        "--kind", help="translator kind of the file (default: detected from its keys, if they are unambiguous)"
    )
    parser.add_argument(
        "--clamp", type=float, help="clip outputs to ±CLAMP; 0 = no clipping (default: as in the author's code)"
    )
    parser.add_argument("--heads", type=int, help="attention heads of an encoder (default: as in the author's code)")
    parser.add_argument(
        "--source", metavar="NAME", help="CLIP checkpoint that it translates from (default: the paper's)"
    )
    parser.add_argument("--target", metavar="NAME", help="CLAP checkpoint that it translates to (default: the paper's)")


def run(args: argparse.Namespace) -> None:
    """Runs `c2c import-checkpoint`. Raises ConfigError for invalid flags and CheckpointError for an unusable file."""
    require_replaceable_folder(args.out, "--out")
    existing = {path.name for path in args.out.iterdir()} if args.out.is_dir() else set()
    if existing and not (existing == BUNDLE_FILES and _is_import(args.out)):
        raise ConfigError(f"--out {args.out} exists and is not an earlier import: pass another folder, or move it away")
    require_path(args.file, "a checkpoint file", CheckpointError)
    from c2c_jax.translator.bundle import save_bundle
    from c2c_jax.translator.clip2clap import import_checkpoint

    bundle, notes = import_checkpoint(
        args.file, kind=args.kind, clamp=args.clamp, heads=args.heads, source=args.source, target=args.target
    )
    for line in notes:
        stderr_console().print(f"{args.file}: {line}")
    save_bundle(args.out, bundle)
    print_fields(args.out)


def _is_import(folder: Path) -> bool:
    """Whether a bundle folder was written by this command, which may then replace it."""
    content = read_json(folder / "config.json", ConfigError, "pass another --out, or move it away")
    return isinstance(recipe := content.get("recipe"), dict) and "imported" in recipe

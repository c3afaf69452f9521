"""Makes a translator bundle of a checkpoint of CLIP2CLAP's author (a pickled state dict, `.pt`).

examples:
  c2c import-checkpoint linear2_contrastive_euclid_512_epoch_5.pt --out bundles/linear2
  c2c import-checkpoint linear_contrastive_loss_epoch_8.pt --out bundles/linear --source openai/clip-vit-large-patch14
  c2c import-checkpoint layers.pt --out bundles/layers --kind mlp --clamp 0

Kinds: linear, linear2, mlp (the author's linear3), mlp_layernorm (linear4), mlp5 (linear5) and transformer (his
encoders), by the keys where they tell. Nothing in the file is run: what is not a state dict of float32 tensors is
refused. The encoders' attention runs over the coordinates of a vector, as in the paper, while the author's code runs it
over the vectors of a batch: an imported one computes something else than it did there.
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
    parser.add_argument("file", type=user_path, metavar="FILE.pt", help="the author's checkpoint")
    parser.add_argument("--out", required=True, type=user_path, metavar="DIR", help="the bundle folder to make")
    parser.add_argument("--kind", help="what the file holds (default: what its keys say)")
    parser.add_argument("--clamp", type=float, help="outputs are cut to ±CLAMP; 0: not (default: as the author's kind)")
    parser.add_argument(
        "--heads", type=int, help="attention heads of an encoder (default: as the author's of its width)"
    )
    parser.add_argument("--source", metavar="NAME", help="its CLIP (default: the paper's)")
    parser.add_argument("--target", metavar="NAME", help="its CLAP (default: the paper's)")


def run(args: argparse.Namespace) -> None:
    """Runs `c2c import-checkpoint`; raises ConfigError for invalid flags and CheckpointError for an unusable file."""
    require_replaceable_folder(args.out, "--out")
    found = {path.name for path in args.out.iterdir()} if args.out.is_dir() else set()
    if found and not (found == BUNDLE_FILES and _is_import(args.out)):
        raise ConfigError(f"--out {args.out} exists and is not an earlier import: pass another folder, or move it away")
    require_path(args.file, "a checkpoint file", CheckpointError)
    from c2c_jax.translator.bundle import save_bundle
    from c2c_jax.translator.clip2clap import import_checkpoint

    bundle, told = import_checkpoint(
        args.file, kind=args.kind, clamp=args.clamp, heads=args.heads, source=args.source, target=args.target
    )
    for line in told:
        stderr_console().print(f"{args.file}: {line}")
    save_bundle(args.out, bundle)
    print_fields(args.out)


def _is_import(folder: Path) -> bool:
    """Whether a bundle folder was made by this verb: it may be made again, as after an interruption."""
    content = read_json(folder / "config.json", ConfigError, "pass another --out, or move it away")
    return isinstance(recipe := content.get("recipe"), dict) and "imported" in recipe

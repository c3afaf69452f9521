"""Exports a translator for publishing, as a bundle with a model card; uploads it to the Hugging Face hub.

examples:
  c2c export runs/mlp --out published/mlp
  c2c export runs/mlp --out published/mlp --onnx          (also model.onnx, checked against PyTorch)
  c2c export runs/mlp --push me/clip-to-clap --private    (needs a token: hf auth login, or HF_TOKEN)

The card documents the spaces and their licences, the recipe, the captions, the validation scores and the use of the
translator. Paths of this machine are cut to their last component, in the card and in config.json.
"""

import argparse

from c2c_jax.cli.arguments import add_run, require_bundle
from c2c_jax.io.console import print_fields
from c2c_jax.io.files import user_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `c2c export`."""
    add_run(parser)
    parser.add_argument("--out", type=user_path, metavar="DIR", help="folder to write; replaces an earlier export")
    parser.add_argument("--push", metavar="NAME", help="upload the export to this hub repository, OWNER/NAME")
    parser.add_argument("--private", action="store_true", help="with --push: make the repository private")
    parser.add_argument("--onnx", action="store_true", help="also write model.onnx (needs the extra `onnx`)")


def run(args: argparse.Namespace) -> None:
    """Runs `c2c export`. Raises ConfigError, BundleError, CheckpointError or ExportError."""
    require_bundle(args.run)
    from c2c_jax.publishing.export import publish

    for place in publish(args.run, out=args.out, push=args.push, private=args.private, onnx=args.onnx):
        print_fields(place)

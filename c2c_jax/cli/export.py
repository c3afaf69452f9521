"""Writes a translator for publishing: its bundle and a model card; uploads it to the Hugging Face hub.

examples:
  c2c export runs/mlp --out published/mlp
  c2c export runs/mlp --out published/mlp --onnx          (and model.onnx, checked against the torch twin)
  c2c export runs/mlp --push me/clip-to-clap --private    (needs a token: hf auth login, or HF_TOKEN)

The card tells of the spaces and their licences, the recipe, the captions, the validation and how to use the translator.
Folders of this machine are cut to their last component, in the card and in config.json.
"""

import argparse

from c2c_jax.cli.arguments import add_run, require_bundle
from c2c_jax.io.console import print_fields
from c2c_jax.io.files import user_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `c2c export`."""
    add_run(parser)
    parser.add_argument("--out", type=user_path, metavar="DIR", help="folder to write; an earlier export is replaced")
    parser.add_argument("--push", metavar="NAME", help="upload it to this repository of the hub, OWNER/NAME")
    parser.add_argument("--private", action="store_true", help="with --push: the repository is not public")
    parser.add_argument("--onnx", action="store_true", help="write model.onnx too (needs the extra `onnx`)")


def run(args: argparse.Namespace) -> None:
    """Runs `c2c export`; raises ConfigError, BundleError, CheckpointError or ExportError."""
    require_bundle(args.run)
    from c2c_jax.publishing.export import publish

    for place in publish(args.run, out=args.out, push=args.push, private=args.private, onnx=args.onnx):
        print_fields(place)

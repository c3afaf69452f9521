"""Embeds a recipe's captions in both spaces, once, into a store on disk.

example:
  c2c embed --config configs/mlp.py --out stores/gcc --config.data.captions=tsv:Train_GCC-training.tsv

Then train on it with --config.data.store=stores/gcc. A pass that was stopped goes on when started again.
"""

import argparse
from pathlib import Path

from c2c_jax.cli.train import add_config_arguments, join_hosts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument("--out", required=True, type=Path, help="folder of the store")


def run(args: argparse.Namespace) -> None:
    join_hosts(args)
    from c2c_jax.cli.recipe import read_config
    from c2c_jax.data.embed import prepare_store

    prepare_store(read_config(args.config, args.overrides), args.out)
    print(args.out)

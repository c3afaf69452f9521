"""Trains one of the mini world's checkpoints and writes it, with its model card.

    python -m c2c_jax.miniworld.pretrain clip
    python -m c2c_jax.miniworld.pretrain clap

A run that was stopped goes on from its last checkpoint in --workdir. The towers are c2c_jax's own Flax modules, trained
by its own objective and sharded step, and written by its own tables.
"""

import argparse
import dataclasses
import importlib
import os
import time
from pathlib import Path

from c2c_jax.miniworld.pretrain.cards import write_card

CHECKPOINTS = Path(__file__).parent.parent / "checkpoints"


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m c2c_jax.miniworld.pretrain",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("clip", "clap"))
    parser.add_argument("--workdir", type=Path, default=Path("build/miniworld"), help="material and checkpoints")
    parser.add_argument("--out", type=Path, default=CHECKPOINTS, help="folder of the finished checkpoints")
    parser.add_argument("--steps", type=int, help="in place of the recipe's own number")
    parser.add_argument("--seed", type=int, default=0, help="another one makes another tower, in a folder WHAT-SEED")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="that make pictures and sounds")
    flags = parser.parse_args()
    module = importlib.import_module(f"c2c_jax.miniworld.pretrain.{flags.what}")
    recipe = dataclasses.replace(module.RECIPE, seed=flags.seed, steps=flags.steps or module.RECIPE.steps)
    since = time.perf_counter()
    space, scores = module.train(flags.workdir, recipe, flags.processes)
    folder = flags.out / (f"{flags.what}-{flags.seed}" if flags.seed else flags.what)
    space.save(folder)
    minutes = (time.perf_counter() - since) / 60
    write_card(folder, scores=scores, recipe=dataclasses.asdict(recipe), minutes=minutes)
    print(folder, scores)


if __name__ == "__main__":
    main()

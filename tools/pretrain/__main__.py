"""Trains one of the mini world's checkpoints and writes it, with its model card.

    python -m tools.pretrain clip
    python -m tools.pretrain clap
    python -m tools.pretrain audioldm         (needs the CLAP, in --out/clap)

An interrupted run resumes from its last checkpoint in --workdir. CLIP and CLAP are c2c_jax's own Flax modules, trained
with its own objective and sharded step; AudioLDM's networks are diffusers' and transformers', trained in torch.
"""

import argparse
import dataclasses
import importlib
import os
from pathlib import Path

from c2c_jax.spaces.weights.folders import EMBEDDED
from tools.pretrain.cards import write_card


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.pretrain", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("clip", "clap", "audioldm"))
    parser.add_argument("--workdir", type=Path, default=Path("build/miniworld"), help="material and checkpoints")
    parser.add_argument("--out", type=Path, default=EMBEDDED, help="folder of the finished checkpoints")
    parser.add_argument("--steps", type=int, help="default: the recipe's; for AudioLDM those of the UNet")
    parser.add_argument("--seed", type=int, default=0, help="others than 0 give networks in a folder WHAT-SEED")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="number of processes that draw")
    flags = parser.parse_args()
    module = importlib.import_module(f"tools.pretrain.{flags.what}")
    recipe = dataclasses.replace(module.RECIPE, seed=flags.seed, steps=flags.steps or module.RECIPE.steps)
    of_seed = f"-{flags.seed}" if flags.seed else ""
    more = [flags.out / f"clap{of_seed}"] if flags.what == "audioldm" else []
    trained, scores, minutes = module.train(flags.workdir, recipe, flags.processes, *more)
    folder = flags.out / f"{flags.what}{of_seed}"
    trained.save(folder)
    write_card(folder, scores=scores, recipe=dataclasses.asdict(recipe), minutes=minutes)
    print(folder, scores)


if __name__ == "__main__":
    main()

"""Trains one of the mini world's checkpoints and writes it with a model card.

    python -m tools.pretrain clip
    python -m tools.pretrain clap
    python -m tools.pretrain audioldm         (needs the CLAP in --out/clap)

An interrupted run resumes from its last checkpoint in --workdir. CLIP and CLAP are c2c_jax's Flax modules, trained with
its objective and train step; AudioLDM consists of modules of diffusers and transformers, trained in torch.
"""

import argparse
import dataclasses
import importlib
import os
from pathlib import Path

from c2c_jax.io.resolve import EMBEDDED
from tools.pretrain.cards import write_card


def main() -> None:
    """Runs the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.pretrain", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("clip", "clap", "audioldm"))
    parser.add_argument(
        "--workdir", type=Path, default=Path("build/miniworld"), help="folder of training data and checkpoints"
    )
    parser.add_argument("--out", type=Path, default=EMBEDDED, help="output folder (default: %(default)s)")
    parser.add_argument(
        "--steps", type=int, help="training steps; for AudioLDM those of the UNet (default: the recipe's)"
    )
    parser.add_argument("--seed", type=int, default=0, help="values other than 0 write to a folder WHAT-SEED")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="processes that generate training data")
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

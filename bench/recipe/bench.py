"""The bench itself: flags in, tables and figures out."""

import argparse

from rich.console import Console
from rich.progress import Progress

from bench.recipe.configs import read_grid, read_recipes, read_settings
from bench.recipe.dial import Dial
from bench.recipe.ground import REFERENCES, Ground
from bench.recipe.material import Material
from bench.recipe.table import flat, print_tables, tables
from bench.recipe.trial import ceiling, chance, spaces
from c2c_jax.cli.train import sole_run
from c2c_jax.errors import ConfigError
from c2c_jax.miniworld.world import CELLS
from c2c_jax.training.check import check_rows

PAPER = "configs/mlp.py"
ALWAYS = ("paper", *REFERENCES, "ceiling", "chance", "spaces", "bench")  # names that no config may take


def run(flags: argparse.Namespace) -> dict[str, float | str]:
    """Trains, chooses, scores and prints; gives all figures as one flat object. Raises C2CError."""
    check_flags(flags)
    dial, grid = Dial.parse(flags.offset), read_grid(flags.grid)
    given = {**read_recipes(flags.configs, grid, ALWAYS), "paper": read_settings(PAPER, {})}
    if flags.calibrate and (taken := [name for name in given if f"{name}_calibrated" in given]):
        raise ConfigError(f"with --calibrate there are two rows {taken[0]}_calibrated; rename the file")
    bar = Progress(console=Console(stderr=True))
    with sole_run(flags.workdir):
        material = Material(flags.clip, flags.clap, flags.workdir / "vectors", flags.processes, bar)
        ground = Ground(flags, material, flags.captions, dial, bar)
        here = {
            name: {setting: ground.placed(config) for setting, config in of_name.items()}
            for name, of_name in given.items()
        }
        for of_name in here.values():
            for config in of_name.values():
                check_rows(config, ground.store)
        with bar:
            test = ground.drawings["test"]
            recipes = []
            for name, settings in here.items():
                recipes.append(ground.trained(name, settings))
                if flags.calibrate:
                    recipes.append(ground.trained(f"{name}_calibrated", settings, (flags.calibrate,)))
            recipes += ground.references()
            task = bar.add_task("scoring", total=len(recipes))
            results = [ground.result(recipe) for recipe in bar.track(recipes, task_id=task)]
    results += [ceiling(test), chance(test), spaces(test)]
    console = Console()
    if dial.kind == "gap":
        console.print(f"a vector of length {ground.dial.length:.4f} is added to unit pictures")
    print_tables(tables(results), console)
    settled = {"captions": ground.store.plan.rows, "seeds": flags.seeds, "draws": flags.draws, "pairs": flags.pairs}
    settled |= {"offset": flags.offset, "offset_length": ground.dial.length}
    return flat(results) | {f"bench.{name}": value for name, value in settled.items()}


def check_flags(flags: argparse.Namespace) -> None:
    """Raises ConfigError for numbers that cannot be."""
    for name in ("captions", "seeds", "draws", "pairs", "training_pairs", "processes"):
        if getattr(flags, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {getattr(flags, name)}; it must be above 0")
    if flags.pairs % CELLS:
        raise ConfigError(f"--pairs is {flags.pairs}; it must be a multiple of the {CELLS} cells")

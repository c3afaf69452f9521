"""The bench itself: flags in, tables and figures out."""

import argparse
import os
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from bench.recipe.configs import read_grid, read_recipes, read_settings
from bench.recipe.geometry import check_spaces
from bench.recipe.ground import REFERENCES, Ground
from bench.recipe.material import Material
from bench.recipe.table import flat, print_tables, tables
from bench.recipe.trial import ceiling, chance, spaces
from c2c_jax.cli.train import sole_run
from c2c_jax.errors import ConfigError
from c2c_jax.miniworld.world import CELLS
from c2c_jax.training.check import check_rows

RECOMMENDED, PAPER = "configs/recommended.py", "configs/mlp.py"
TAKEN = ("paper", *REFERENCES, "ceiling", "chance", "spaces", "bench")  # names that no config may take


def run(flags: argparse.Namespace) -> dict[str, float | str]:
    """Trains, chooses, scores and prints; gives all figures as one flat object. Raises C2CError."""
    own = {"recommended": read_settings(RECOMMENDED, {}), "paper": read_settings(PAPER, {})}
    given = own | read_recipes(flags.configs, read_grid(flags.grid), TAKEN)
    bar = Progress(console=Console(stderr=True))
    with sole_run(flags.workdir):
        material = Material(flags.clip, flags.clap, flags.workdir / "vectors", flags.processes, bar)
        check_spaces(flags.geometry, material.ids)
        ground = Ground(flags, material, bar)
        ground.natural_store.check_files()  # embeds the captions, with a bar of its own
        with bar:
            here = {
                name: {setting: ground.placed(config) for setting, config in settings.items()}
                for name, settings in given.items()
            }
            for settings in here.values():
                for config in settings.values():
                    check_rows(config, ground.store)
            test, mean_E = ground.drawings["test"], ground.gap.mean("target_text")
            recipes = [ground.trained(name, settings) for name, settings in here.items()] + ground.references()
            task = bar.add_task("scoring", total=len(recipes))
            results = [ground.result(recipe) for recipe in bar.track(recipes, task_id=task)]
    results += [ceiling(test, mean_E), chance(test), spaces(test)]
    print_tables(tables(results), Console())
    sizes = {"captions": ground.store.plan.rows, "seeds": flags.seeds, "draws": flags.draws, "pairs": flags.pairs}
    return flat(results) | {f"bench.{name}": value for name, value in (sizes | {"geometry": flags.geometry}).items()}


def ground_of(geometry: str, workdir: Path) -> Ground:
    """The mini world as other benches use it: 50,000 captions and a drawing of either split, between its own spaces."""
    flags = argparse.Namespace(
        captions=50_000, seeds=1, draws=1, pairs=1440, training_pairs=6000, geometry=geometry, workdir=workdir
    )
    bar = Progress(console=Console(stderr=True))
    material = Material("miniworld/clip", "miniworld/clap", workdir / "vectors", os.cpu_count() or 1, bar)
    return Ground(flags, material, bar)


def check_flags(flags: argparse.Namespace) -> None:
    """Raises ConfigError for numbers that cannot be."""
    for name in ("captions", "seeds", "draws", "pairs", "training_pairs", "processes"):
        if getattr(flags, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {getattr(flags, name)}; it must be above 0")
    if flags.pairs % CELLS:
        raise ConfigError(f"--pairs is {flags.pairs}; it must be a multiple of the {CELLS} cells")

"""The bench itself: flags in, tables and figures out."""

import argparse
import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import Progress

from bench.recipe.configs import Settings, placed, read_grid, read_recipes, read_settings, trained
from bench.recipe.dial import Dial
from bench.recipe.material import Draw, Material, Scenes
from bench.recipe.methods import (
    Recipe,
    closed_forms,
    label_prompts,
    nearest_captions,
    of_methods,
    oracle_ridge,
    oracle_settings,
    pair_store,
)
from bench.recipe.table import flat, print_tables, tables
from bench.recipe.trial import Result, ceiling, chance, result, spaces
from c2c_jax.cli.train import sole_run
from c2c_jax.config import Config
from c2c_jax.data.embed import prepare_store
from c2c_jax.data.store import Store
from c2c_jax.errors import ConfigError
from c2c_jax.miniworld.world import CELLS
from c2c_jax.training.check import check_rows

PAPER = "configs/mlp.py"
ALWAYS = (  # names that no config may take
    *("paper", "nearest_caption", "ridge", "procrustes", "label_prompts", "oracle_ridge", "oracle_residual"),
    *("ceiling", "chance", "spaces", "bench"),
)


def run(flags: argparse.Namespace) -> dict[str, float | str]:
    """Trains, chooses, scores and prints; gives all figures as one flat object. Raises C2CError."""
    _check(flags)
    dial, grid = Dial.parse(flags.offset), read_grid(flags.grid)
    given = {**read_recipes(flags.configs, grid, ALWAYS), "paper": read_settings(PAPER, {})}
    bar = Progress(console=Console(stderr=True))
    with sole_run(flags.workdir):
        material = Material(flags.clip, flags.clap, flags.workdir / "vectors", flags.processes, bar)
        path = flags.workdir / f"store-{flags.captions}-{material.stamp}"
        here = {
            name: {setting: placed(config, material.names, flags.captions, path) for setting, config in of_name.items()}
            for name, of_name in given.items()
        }
        store = prepare_store(placed(Config(), material.names, flags.captions, path), path)
        for of_name in here.values():
            for config in of_name.values():
                check_rows(config, store)
        with bar:
            drawings = {split: _drawings(flags, material, split, dial, store) for split in ("validation", "test")}
            pairs = material.scenes("train", 0, flags.training_pairs, dial)
            recipes = [*_trained(flags, here, store, bar), *_references(flags, material, store, pairs, bar)]
            results = _results(recipes, drawings, bar)
    results += [ceiling(drawings["test"]), chance(drawings["test"]), spaces(drawings["test"])]
    print_tables(tables(results), Console())
    settled = {"captions": store.plan.rows, "seeds": flags.seeds, "draws": flags.draws, "pairs": flags.pairs}
    return flat(results) | {f"bench.{name}": value for name, value in settled.items()} | {"bench.offset": flags.offset}


def _check(flags: argparse.Namespace) -> None:
    for name in ("captions", "seeds", "draws", "pairs", "training_pairs", "processes"):
        if getattr(flags, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {getattr(flags, name)}; it must be above 0")
    if flags.pairs % CELLS:
        raise ConfigError(f"--pairs is {flags.pairs}; it must be a multiple of the {CELLS} cells")


def _drawings(flags: argparse.Namespace, material: Material, split: str, dial: Dial, store: Store) -> list[Draw]:
    known = set(store.captions())
    return [material.draw(split, seed, flags.pairs, dial, known) for seed in range(flags.draws)]


def _trained(
    flags: argparse.Namespace, recipes: Mapping[str, Settings], store: Store, bar: Progress, *, reads_texts: bool = True
) -> list[Recipe]:
    """Each with all its settings trained."""
    runs = flags.seeds * sum(map(len, recipes.values()))
    task, made = bar.add_task(f"training {', '.join(recipes)}", total=runs), []
    for name, settings in recipes.items():
        found = []
        for setting, config in settings.items():
            since = time.perf_counter()
            methods = trained(name, config, store, flags.seeds, flags.workdir / "runs", lambda: bar.advance(task))
            seconds = time.perf_counter() - since
            bar.console.print(f"{name}{f' ({setting})' if setting else ''}: {flags.seeds} × trained, {seconds:.0f} s")
            found.append((setting, methods))
        made.append(of_methods(name, found, reads_texts=reads_texts))
    return made


def _references(
    flags: argparse.Namespace, material: Material, store: Store, pairs: Scenes, bar: Progress
) -> list[Recipe]:
    """What needs no config."""
    prompts = label_prompts(*material.prompts())
    oracle = {"oracle_residual": oracle_settings(len(pairs.cells_N))}
    of_pairs = _trained(flags, oracle, pair_store(pairs, flags.workdir), bar, reads_texts=False)
    return [nearest_captions(store), *closed_forms(store), prompts, oracle_ridge(pairs), *of_pairs]


def _results(recipes: list[Recipe], drawings: Mapping[str, list[Draw]], bar: Progress) -> list[Result]:
    task, found = bar.add_task("scoring", total=len(recipes)), []
    for recipe in recipes:
        found.append(result(recipe, drawings["validation"], drawings["test"]))
        bar.advance(task)
    return found

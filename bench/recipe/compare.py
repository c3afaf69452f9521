"""Compares recipes, or numbers of training captions."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from bench.recipe.geometry import check_spaces
from bench.recipe.ground import Ground
from bench.recipe.material import Material
from bench.recipe.scores import Result, bounds, result
from bench.recipe.table import flat, print_table, table_of
from bench.runs import read_recipe
from c2c_jax.config import PERTURBED_COSINE, PERTURBED_MRR
from c2c_jax.errors import ConfigError
from c2c_jax.miniworld.world import CELLS
from c2c_jax.training.run_state import exclusive_run

RECOMMENDED, PAPER = "configs/recommended.py", "configs/mlp.py"
RESERVED = ("paper", "nearest_caption", "procrustes", "oracle_residual", "ceiling", "chance", "spaces", "bench")
SELECTED_BY = {"recommended": PERTURBED_MRR, "recommended_noisy_cosine": PERTURBED_COSINE}
SIZES = ("captions", "seeds", "draws", "pairs", "training_pairs")


def run(flags: argparse.Namespace) -> dict[str, float | str]:
    """Trains and scores recipes, prints a table, and returns all figures as one flat object. Raises C2CError."""
    configs = {"recommended": read_recipe(RECOMMENDED), "paper": read_recipe(PAPER)}
    names = [Path(path).stem for path in flags.configs]
    for name, path in zip(names, flags.configs, strict=True):
        if name in RESERVED or names.count(name) > 1:
            raise ConfigError(f"{path}: the table already has a row {name!r}; rename the file")
        configs[name] = read_recipe(path)
    with exclusive_run(flags.workdir):
        ground = _ground(flags, flags.captions)
        with ground.bar:
            rows = [ground.trained(name, config) for name, config in configs.items()]
            rows += [ground.nearest_captions(), ground.rotation(), ground.oracle()]
            mean_E = ground.means.mean("target_text")
            results = [result(row, ground.drawings, mean_E) for row in rows] + bounds(ground.drawings, mean_E)
    print_table(table_of(results))
    sizes = {"captions": ground.store.plan.rows, "seeds": flags.seeds, "draws": flags.draws, "pairs": flags.pairs}
    return flat(results) | {f"bench.{name}": value for name, value in (sizes | {"geometry": flags.geometry}).items()}


def grow(flags: argparse.Namespace) -> dict[str, float | str]:
    """Trains and scores the recommended recipe on several numbers of captions, prints a table, and returns all figures
    as one flat object, `RECIPE.CAPTIONS.METRIC`. Raises C2CError."""
    results: list[Result] = []
    with exclusive_run(flags.workdir):
        for count in _read_counts(flags.counts):
            ground = _ground(flags, count)
            with ground.bar:
                rows = [
                    ground.trained(name, read_recipe(RECOMMENDED, f"--config.select_by={score}"))
                    for name, score in SELECTED_BY.items()
                ]
                rows += [ground.rotation(), ground.nearest_captions()]
                count_results = [result(row, ground.drawings, ground.means.mean("target_text")) for row in rows]
            results += [dataclasses.replace(scored, name=f"{scored.name}.{count}") for scored in count_results]
    print_table(table_of(results))
    return flat(results)


def _ground(flags: argparse.Namespace, captions: int) -> Ground:
    bar = Progress(console=Console(stderr=True))
    material = Material(flags.clip, flags.clap, flags.workdir / "vectors", flags.processes, bar)
    check_spaces(flags.geometry, material.ids)
    sizes = {name: getattr(flags, name) for name in SIZES} | {"captions": captions}
    ground = Ground(material=material, workdir=flags.workdir, bar=bar, geometry=flags.geometry, **sizes)
    ground.natural_store.check_files()  # embeds the captions, with a progress bar of its own
    return ground


def check_flags(flags: argparse.Namespace) -> None:
    """Raises ConfigError for invalid numbers, and for flags that exclude each other."""
    for name in (*SIZES, "processes"):
        if getattr(flags, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {getattr(flags, name)}; it must be above 0")
    if flags.pairs % CELLS:
        raise ConfigError(f"--pairs is {flags.pairs}; it must be a multiple of the {CELLS} cells")
    if flags.counts:
        _read_counts(flags.counts)
        if flags.configs:
            raise ConfigError("--counts cannot be combined with CONFIG.py")


def _read_counts(text: str) -> Sequence[int]:
    """`300,1000` as numbers. Raises ConfigError."""
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 2:
        raise ConfigError(f"--counts is {text!r}; write numbers of captions, such as 300,3000,30000")
    return counts

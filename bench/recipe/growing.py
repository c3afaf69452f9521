"""Compares the recommended recipe, by either selection score, the rotation and the nearest captions on growing sets."""

import argparse
import os
from collections.abc import Sequence

from rich.console import Console
from rich.progress import Progress

from bench.recipe import bench
from bench.recipe.configs import read_settings
from bench.recipe.geometry import check_spaces
from bench.recipe.ground import Ground
from bench.recipe.material import Material
from bench.recipe.methods import closed_forms, nearest_captions
from bench.recipe.table import print_tables
from bench.recipe.trial import Result
from c2c_jax.cli.train import sole_run
from c2c_jax.errors import ConfigError
from c2c_jax.evaluation.tables import Table
from c2c_jax.training.check import check_rows
from c2c_jax.translator.scores import NOISY_COSINE, NOISY_MRR, NOISY_SCORES

FIGURES = ("source", "cell")
RECOMMENDED = {NOISY_MRR: "recommended", NOISY_COSINE: "recommended_noisy_cosine"}


def read_counts(text: str) -> list[int]:
    """`300,1000` as numbers. Raises ConfigError."""
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 2:
        raise ConfigError(f"--counts is {text!r}; write numbers of captions, such as 300,3000,30000")
    return counts


def grow(flags: argparse.Namespace, counts: Sequence[int]) -> dict[str, float | str]:
    """Trains and scores with each number of captions; prints a table and gives all figures as one flat object:
    `RECIPE.CAPTIONS.FIGURE`, and `RECIPE.CAPTIONS.kept`, what its runs selected. Raises C2CError."""
    bar = Progress(console=Console(stderr=True))
    found: dict[int, list[Result]] = {}
    with sole_run(flags.workdir):
        material = Material(flags.clip, flags.clap, flags.workdir / "vectors", flags.processes or os.cpu_count(), bar)
        check_spaces(flags.geometry, material.ids)
        for count in counts:
            ground = Ground(argparse.Namespace(**{**vars(flags), "captions": count}), material, bar)
            ground.natural_store.check_files()
            with bar:
                recipes = []
                for score in NOISY_SCORES:
                    ((_, config),) = read_settings(bench.RECOMMENDED, {"select_by": [score]}).items()
                    config = ground.placed(config)
                    check_rows(config, ground.store)
                    recipes.append(ground.trained(RECOMMENDED[score], {"": config}))
                _, rotation = closed_forms(ground.store, ground.gap)
                recipes += [rotation, nearest_captions(ground.store, ground.gap)]
                found[count] = [ground.result(recipe) for recipe in recipes]
            kept = "; ".join(f"{row.name} selected {', '.join(row.kept)}" for row in found[count] if row.kept)
            bar.console.print(f"{count:,} captions: {kept}")
    return _shown(found)


def _shown(found: dict[int, list[Result]]) -> dict[str, float | str]:
    figures: dict[str, float | str] = {}
    names = [row.name for row in next(iter(found.values()))]
    cells = [[f"{name.replace('_', ' ')}: {figure}"] for name in names for figure in FIGURES]
    for count, rows in found.items():
        for number, row in enumerate(rows):
            for column, figure in enumerate(FIGURES):
                summary = row.figures[figure]
                cells[number * len(FIGURES) + column].append(f"{summary.mean:.3f}")
                figures[f"{row.name}.{count}.{figure}"] = summary.mean
                figures[f"{row.name}.{count}.{figure}_spread"] = summary.spread
            if row.kept:
                figures[f"{row.name}.{count}.kept"] = "; ".join(row.kept)
    header = ["recipe", *(f"{count:,} captions" for count in found)]
    title = "pictures whose nearest sound is of their source, or of their cell, by the number of captions"
    print_tables([Table(title=title, header=header, cells=cells)], Console())
    return figures

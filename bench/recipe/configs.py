"""Recipes as files and grids: read, brought to the mini world, trained once."""

import dataclasses
import hashlib
import itertools
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from c2c_jax.cli.recipe import read_config
from c2c_jax.config import Config, EmbedConfig
from c2c_jax.data.arrays import space_of_array
from c2c_jax.data.store import Store
from c2c_jax.errors import ConfigError
from c2c_jax.evaluation.translation import Method, method_of
from c2c_jax.io.atomic import atomic_write
from c2c_jax.training import log
from c2c_jax.training.check import check, check_rows
from c2c_jax.training.train import train
from c2c_jax.translator.bundle import Bundle, load_bundle

# What the bench itself sets.
OWN = ("seed", "source", "target", "embed", "log", "data.captions", "data.store", "data.drop_duplicates")
DONE = "done.json"  # in the folder of a run that came to its end

Grid = dict[str, list[str]]
Settings = dict[str, Config]  # a setting's name → the config


def read_grid(given: Sequence[str]) -> Grid:
    """Field → values, of `FIELD=V1,V2` each. Raises ConfigError."""
    grid: Grid = {}
    for text in given:
        field, equals, values = text.partition("=")
        field = field.removeprefix("config.")
        if not (equals and field and values) or field in grid:
            raise ConfigError(f"--grid {text!r} cannot be read; write FIELD=V1,V2, each field once")
        if any(field == own or field.startswith(f"{own}.") for own in OWN):
            raise ConfigError(f"--grid {field} is not for a grid: the bench sets it itself")
        grid[field] = values.split(",")
    return grid


def read_settings(path: str, grid: Mapping[str, Sequence[object]]) -> Settings:
    """The config in a file with every combination of the grid's values, by what tells it from the others. Raises
    ConfigError for a missing file, an unknown field, and values that cannot work."""
    if not Path(path.partition(":")[0]).is_file():
        raise ConfigError(f"no recipe at {path}; recipes are in configs/")
    settings: Settings = {}
    for values in itertools.product(*grid.values()):
        tried = dict(zip(grid, values, strict=True))
        config = read_config(path, [f"--config.{field}={value}" for field, value in tried.items()])
        check(config)
        settings[", ".join(f"{field}={value}" for field, value in tried.items())] = config
    return settings


def read_recipes(paths: Sequence[str], grid: Grid, taken: Collection[str]) -> dict[str, Settings]:
    """The settings of each file, by its name without a suffix. taken: names of other rows. Raises ConfigError."""
    if grid and not paths:
        raise ConfigError("--grid needs a CONFIG.py whose fields it sets")
    recipes: dict[str, Settings] = {}
    for path in paths:
        name = Path(path).stem
        if name in recipes or name in taken:
            raise ConfigError(f"{path}: there is a row {name!r} already; rename the file")
        recipes[name] = read_settings(path, grid)
    return recipes


def placed(config: Config, spaces: tuple[str, str], captions: int, store: Path) -> Config:
    """The config on the mini world's captions between two spaces, its store at `store`."""
    data = dataclasses.replace(
        config.data, captions=f"miniworld:{captions}", drop_duplicates=True, data_dir="", manual_dir="",
        store=str(store),
    )  # fmt: skip
    return dataclasses.replace(config, source=spaces[0], target=spaces[1], data=data, embed=EmbedConfig())


def run_key(config: Config, store: Store, picture_PS: Float[np.ndarray, "P S"] | None = None) -> str:
    """A hash of all that a run's result depends on: the config, but for where its store lies; what is in that store;
    and the unlabelled pictures."""
    fields = dataclasses.asdict(config)
    del fields["data"]["store"]
    pictures = "" if picture_PS is None else space_of_array("pictures", picture_PS).fingerprint
    content = [fields, dataclasses.asdict(store.plan), store.checksums, pictures]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def bundles(
    config: Config,
    store: Store,
    seeds: int,
    folder: Path,
    on_run: Callable[[], None],
    picture_PS: Float[np.ndarray, "P S"] | None = None,
) -> list[Bundle]:
    """What a config trains, one bundle for each seed. Finished runs are read from `folder`; interrupted ones resume.

    picture_PS: raw vectors of unlabelled pictures. on_run: called after each run. Raises ConfigError and TrainingError
    as `train`, and SystemExit where SIGTERM stopped it.
    """
    check_rows(config, store)
    found = []
    for seed in range(seeds):
        seeded = dataclasses.replace(config, seed=seed)
        run = folder / run_key(seeded, store, picture_PS)
        if not (run / DONE).is_file():
            _train(seeded, store, run, picture_PS)
        found.append(load_bundle(run / "bundle"))
        on_run()
    return found


def trained(
    name: str, config: Config, store: Store, seeds: int, folder: Path, on_run: Callable[[], None]
) -> tuple[Method, ...]:
    """The translators of `bundles`, trained without pictures, as methods."""
    found = bundles(config, store, seeds, folder, on_run)
    return tuple(method_of(name, bundle.translator, bundle.gap, bundle.memory) for bundle in found)


def _train(config: Config, store: Store, run: Path, picture_PS: Float[np.ndarray, "P S"] | None) -> None:
    since, was_quiet = time.perf_counter(), log.console.quiet
    log.console.quiet = True  # the bench has a line for all runs
    try:
        if not train(config, store, run, picture_PS):
            raise SystemExit("stopped as asked; start again to go on")
    finally:
        log.console.quiet = was_quiet
    with atomic_write(run / DONE) as beside:
        beside.write_text(json.dumps({"seconds": time.perf_counter() - since}) + "\n", encoding="utf-8")

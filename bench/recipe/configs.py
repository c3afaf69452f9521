"""Recipes as files and grids: read, brought to the mini world, trained once."""

import dataclasses
import hashlib
import itertools
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from bench.recipe.use import Unlabelled, as_trained, in_use
from c2c_jax.cli.recipe import read_config
from c2c_jax.config import Config, EmbedConfig
from c2c_jax.data.store import Store
from c2c_jax.errors import ConfigError
from c2c_jax.evaluation.translation import Method, method_of
from c2c_jax.io.atomic import atomic_write
from c2c_jax.training import log
from c2c_jax.training.check import check, check_rows
from c2c_jax.training.loop import train
from c2c_jax.weights.translator import load_bundle

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


def read_settings(
    path: str, grid: Mapping[str, Sequence[object]], fixed: Mapping[str, object] | None = None
) -> Settings:
    """The config in a file with every combination of the grid's values, by what tells it from the others. fixed: values
    of other fields. Raises ConfigError for a missing file, an unknown field, and values that cannot work."""
    if not Path(path.partition(":")[0]).is_file():
        raise ConfigError(f"no recipe at {path}; recipes are in configs/")
    settings: Settings = {}
    for values in itertools.product(*grid.values()):
        tried = dict(zip(grid, values, strict=True))
        all_set = {**(fixed or {}), **tried}
        config = read_config(path, [f"--config.{field}={value}" for field, value in all_set.items()])
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


def fitted(config: Config, rows: int, like: int) -> Config:
    """A config for a store of `rows` captions that takes about as many steps as it does of `like` captions.

    A tenth of the captions is held out, at most what the config holds out; a batch is the largest power of two of
    captions that are left to train on, at most the config's own; and the epochs are the whole number that comes nearest
    to the config's steps, at least 1.
    """
    steps = config.epochs * (like - config.data.holdout) / config.batch_size
    holdout = min(config.data.holdout, max(rows // 10, 1))
    training = rows - holdout
    batch = min(config.batch_size, 2 ** (training.bit_length() - 1))
    data = dataclasses.replace(config.data, holdout=holdout)
    return dataclasses.replace(config, batch_size=batch, epochs=max(round(steps * batch / training), 1), data=data)


def run_key(config: Config, store: Store) -> str:
    """Of all that training hangs on: the whole config, but for what is put beside the translator and for where its
    store lies, and what is in that store."""
    fields = dataclasses.asdict(as_trained(config))
    del fields["data"]["store"]
    content = [fields, dataclasses.asdict(store.plan), store.checksums]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def trained(
    name: str,
    config: Config,
    store: Store,
    seeds: int,
    folder: Path,
    told: Callable[[], None],
    means: Unlabelled | None = None,
) -> tuple[Method, ...]:
    """The translators of a config, one for each seed, as methods. A run that is done is read from `folder`, and
    one that was stopped goes on. told: is called after each.

    The config's memory, and the means of unlabelled files, are put beside what was trained: one run serves them all.
    Raises ConfigError and TrainingError as `train`, and SystemExit where SIGTERM stopped it.
    """
    check_rows(config, store)
    methods = []
    for seed in range(seeds):
        seeded = dataclasses.replace(config, seed=seed)
        run = folder / run_key(seeded, store)
        if not (run / DONE).is_file():
            _train(as_trained(seeded), store, run)
        bundle = in_use(load_bundle(run / "bundle"), seeded, store, means)
        methods.append(method_of(name, bundle.translator, bundle.gap, bundle.memory))
        told()
    return tuple(methods)


def _train(config: Config, store: Store, run: Path) -> None:
    since, was_quiet = time.perf_counter(), log.console.quiet
    log.console.quiet = True  # the bench has a line for all runs
    try:
        if not train(config, store, run):
            raise SystemExit("stopped as asked; start again to go on")
    finally:
        log.console.quiet = was_quiet
    with atomic_write(run / DONE) as beside:
        beside.write_text(json.dumps({"seconds": time.perf_counter() - since}) + "\n", encoding="utf-8")

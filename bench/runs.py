"""Training runs of the benchmarks, cached in a folder."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
from jaxtyping import Float

from c2c_jax.cli.recipe import read_config
from c2c_jax.config import Config
from c2c_jax.data.arrays import space_of_array
from c2c_jax.data.store import Store
from c2c_jax.errors import ConfigError
from c2c_jax.training.check import check
from c2c_jax.training.train import train
from c2c_jax.translator.bundle import Bundle, load_bundle

DONE = "done"  # an empty file in the folder of a finished run


def read_recipe(path: str, *overrides: str) -> Config:
    """The config of a recipe. overrides: `--config.FIELD=VALUE`. Raises ConfigError."""
    if not Path(path.partition(":")[0]).is_file():
        raise ConfigError(f"no recipe at {path}; recipes are in configs/")
    config = read_config(path, overrides)
    check(config)
    return config


def run_key(config: Config, store: Store, image_PS: Float[np.ndarray, "P S"] | None = None) -> str:
    """A hash of everything that a run depends on: config, contents of the store, and vectors of unlabelled images."""
    fields = dataclasses.asdict(config)
    del fields["data"]["store"]
    fingerprint = "" if image_PS is None else space_of_array("pictures", image_PS).fingerprint
    content = [fields, dataclasses.asdict(store.plan), store.checksums, fingerprint]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def trained(config: Config, store: Store, folder: Path, image_PS: Float[np.ndarray, "P S"] | None = None) -> Bundle:
    """Trains a config on a store and returns its bundle. Finished runs are read from `folder`; interrupted ones resume.

    image_PS: raw vectors of unlabelled images. Raises ConfigError and TrainingError as `train` does, and SystemExit
    if SIGTERM stopped it.
    """
    run = folder / run_key(config, store, image_PS)
    if not (run / DONE).is_file():
        if not train(config, store, run, image_PS, progress=False):  # benches print one line for each run
            raise SystemExit("training was interrupted; start again to resume")
        (run / DONE).touch()
    return load_bundle(run / "bundle")

"""A finished embedding store of random paired vectors, for tests of the trainer."""

from pathlib import Path

import numpy as np

from c2c_jax.data.arrays import store_of_arrays
from c2c_jax.data.store import Store
from c2c_jax.spaces.space import SpaceId


def random_store(path: Path, rows: int = 500, source_dim: int = 24, target_dim: int = 16) -> Store:
    """Targets are a fixed random nonlinear function of the sources, so there is something to learn."""
    rng = np.random.default_rng(0)
    source = rng.normal(size=(rows, source_dim)).astype(np.float32)
    target = np.tanh(source @ rng.normal(size=(source_dim, target_dim)) / 4).astype(np.float32)
    spaces = (
        SpaceId(name="source", dim=source_dim, fingerprint="s" * 64),
        SpaceId(name="target", dim=target_dim, fingerprint="t" * 64),
    )
    return store_of_arrays(path, source, target, spaces, chunk_rows=128)

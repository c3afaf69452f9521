"""Draws the caption memory, a random subset of the training captions that the bundle stores."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from c2c_jax.config import MemoryConfig
from c2c_jax.data.store import Store
from c2c_jax.translator.centring import ModalityMeans, centred
from c2c_jax.translator.memory import Memory

_SEED = 4  # appended to a run's seed; the loaders use 0 to 3


def draw_memory(
    config: MemoryConfig,
    store: Store,
    training: Int[np.ndarray, "N"],
    seed: int,
    means: ModalityMeans | None = None,
) -> Memory | None:
    """Draws a caption memory from a store's training rows; None if the config's size is 0.

    means: to centre the captions' vectors by; None = unit vectors. With the same seed, a smaller memory is a subset of
    a larger one. Raises StoreError for a damaged chunk.
    """
    if config.size == 0:
        return None
    count = len(training) if config.size < 0 else min(config.size, len(training))
    is_kept = np.zeros(store.plan.rows, bool)
    is_kept[np.random.default_rng((seed, _SEED)).permutation(training)[:count]] = True
    source_MS, start = np.empty((count, store.plan.source.dim), np.float16), 0
    for chunk in range(store.plan.chunks):
        kept = is_kept[store.plan.rows_of(chunk)]
        if kept.any():
            rows_NS = store.read_chunk("source", chunk)[kept].astype(np.float32)
            mean_S = np.zeros(rows_NS.shape[1], np.float32) if means is None else means.mean("source_text")
            source_MS[start : start + len(rows_NS)] = np.asarray(centred(jnp.asarray(rows_NS), mean_S))
            start += len(rows_NS)
    return Memory(source=source_MS, weight=config.weight, temperature=config.temperature)

"""Draws the captions that a bundle stores from those that it is trained on."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from c2c_jax.config import MemoryConfig
from c2c_jax.data.store import Store
from c2c_jax.translator.centring import ModalityMeans, centred
from c2c_jax.translator.memory import Memory

_CAPTIONS = 4  # joined to a seed; 0 to 3 are those of the validation rows and the loaders


def draw_memory(
    config: MemoryConfig,
    store: Store,
    training: Int[np.ndarray, "N"],
    seed: int,
    means: ModalityMeans | None = None,
) -> Memory | None:
    """Draws the caption memory of a config from a store's training rows; None if the config has none. means: to
    centre the captions' vectors by; None: they are only scaled to unit length.

    A smaller memory's captions are among a larger one's of the same seed. Raises StoreError for a damaged chunk.
    """
    if config.size == 0:
        return None
    count = len(training) if config.size < 0 else min(config.size, len(training))
    is_kept = np.zeros(store.plan.rows, bool)
    is_kept[np.random.default_rng((seed, _CAPTIONS)).permutation(training)[:count]] = True
    source_MS, place = np.empty((count, store.plan.source.dim), np.float16), 0
    for chunk in range(store.plan.chunks):
        kept = is_kept[store.plan.rows_of(chunk)]
        if kept.any():
            rows_NS = store.read_chunk("source", chunk)[kept].astype(np.float32)
            mean_S = np.zeros(rows_NS.shape[1], np.float32) if means is None else means.mean("source_text")
            source_MS[place : place + len(rows_NS)] = np.asarray(centred(jnp.asarray(rows_NS), mean_S))
            place += len(rows_NS)
    return Memory(source=source_MS, weight=config.weight, temperature=config.temperature)

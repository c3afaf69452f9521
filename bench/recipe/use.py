"""Ways of using what was trained, which cost no training: a caption memory, and means of unlabelled files."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bench.recipe.material import Scenes
from c2c_jax.calibration import with_means
from c2c_jax.config import Config, MemoryConfig, PicturesConfig
from c2c_jax.data.store import Store
from c2c_jax.models.gap import Gap
from c2c_jax.models.memory import Memory
from c2c_jax.training.feed import split
from c2c_jax.training.memory import remembered
from c2c_jax.weights.translator import Bundle

MEANS = ("pictures", "both")  # of pictures, of pictures and sounds


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Unlabelled:
    """Raw vectors of pictures, and of sounds that are none of theirs, whose means are taken."""

    image_NS: Float[np.ndarray, "N S"]
    audio_ME: Float[np.ndarray, "M E"] | None = None

    @classmethod
    def of(cls, kind: str, pairs: Scenes) -> "Unlabelled":
        """Of "pictures" those of all pairs; of "both" the pictures of the first half and the sounds of the second."""
        if kind == "pictures":
            return cls(image_NS=pairs.image_NS)
        half = len(pairs.image_NS) // 2
        return cls(image_NS=pairs.image_NS[:half], audio_ME=pairs.audio_NE[half:])

    def correct(self, gap: Gap, input_norm: str) -> Gap:
        """As `c2c calibrate` does."""
        return with_means(gap, input_norm, self.image_NS, self.audio_ME)[0]


def as_trained(config: Config) -> Config:
    """What is trained: a memory and pictures' means are put beside it afterwards, and leave the same translator as
    training with them. Without pictures its best bundle is told by captions."""
    return dataclasses.replace(config, memory=MemoryConfig(), pictures=PicturesConfig())


def is_calibrated(config: Config) -> bool:
    """Whether a run of that config puts the means of pictures into its bundle."""
    return bool(config.pictures.files) and config.pictures.calibrate


def in_use(bundle: Bundle, config: Config, store: Store, means: Unlabelled | None = None) -> Bundle:
    """A bundle that was trained without a memory, as the config it was trained by would use it, and with means."""
    memory = _memory(store, config.seed, config.data.holdout, dataclasses.astuple(config.memory))
    gap = means.correct(bundle.gap, bundle.spec.input_norm) if means else bundle.gap
    return dataclasses.replace(bundle, gap=gap, memory=memory)


def _memory(store: Store, seed: int, holdout: int, fields: tuple[int, float, float]) -> Memory | None:
    captions, share, temperature = fields
    if not captions:
        return None
    source_MS = _captions(store.path, seed, holdout, captions)
    return Memory(source=source_MS, share=share, temperature=temperature)


@functools.lru_cache(16)  # of a grid's many settings few differ in this
def _captions(path: Path, seed: int, holdout: int, count: int) -> jax.Array:
    store = Store.open(path)
    training = split(store.plan.rows, holdout, seed)[1]
    memory = remembered(MemoryConfig(captions=count), store, training, seed)
    assert memory is not None
    return jnp.asarray(memory.source)

"""Picture, sound and captions of scene number i of a split.

All are functions of (seed, split, index). Each uses a random generator of its own, so that they share the scene only.
"""

import numpy as np
from jaxtyping import Float
from PIL import Image

from c2c_jax.miniworld.audio import synthesize
from c2c_jax.miniworld.captions import STYLES, caption
from c2c_jax.miniworld.images import draw
from c2c_jax.miniworld.world import scene_at


def image_at(split: str, index: int, seed: int = 0) -> Image.Image:
    """A picture of 64 by 64 pixels, RGB."""
    scene, rng = scene_at(split, index, seed)
    return draw(scene, rng)


def audio_at(split: str, index: int, seed: int = 0) -> Float[np.ndarray, "40960"]:
    """A sound of 2.56 seconds at 16 kHz, in -1..1."""
    scene, rng = scene_at(split, index, seed)
    return synthesize(scene, rng.spawn(1)[0])


def caption_at(split: str, index: int, style: str, seed: int = 0) -> str:
    """A caption in a style of `captions.STYLES`."""
    scene, rng = scene_at(split, index, seed)
    return caption(scene, style, rng.spawn(1 + len(STYLES))[1 + STYLES.index(style)])

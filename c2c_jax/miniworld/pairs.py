"""Picture, sound and captions of scene number i of a split: one scene, and for each a chance of its own.

All are functions of (seed, split, index). What chance does to a picture tells nothing of what it does to the sound.
"""

import numpy as np
from jaxtyping import Float
from PIL import Image

from c2c_jax.miniworld.captions import STYLES, caption
from c2c_jax.miniworld.pictures import draw
from c2c_jax.miniworld.sounds import sound
from c2c_jax.miniworld.world import scene_at


def picture_at(split: str, index: int, seed: int = 0) -> Image.Image:
    """64 by 64 pixels, RGB."""
    scene, rng = scene_at(split, index, seed)
    return draw(scene, rng)


def sound_at(split: str, index: int, seed: int = 0) -> Float[np.ndarray, "40960"]:
    """2.56 seconds at 16 kHz, in -1..1."""
    scene, rng = scene_at(split, index, seed)
    return sound(scene, rng.spawn(1)[0])


def caption_at(split: str, index: int, style: str, seed: int = 0) -> str:
    """In a style of `captions.STYLES`."""
    scene, rng = scene_at(split, index, seed)
    return caption(scene, style, rng.spawn(1 + len(STYLES))[1 + STYLES.index(style)])

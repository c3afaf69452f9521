"""Returns the image, the sound and the captions of scene `index` of a split.

All are functions of (seed, split, index). Each has its own random generator, so that they share only the scene.
"""

import numpy as np
from jaxtyping import Float
from PIL import Image

from c2c_jax.miniworld.audio import synthesise
from c2c_jax.miniworld.captions import STYLES, caption
from c2c_jax.miniworld.images import draw
from c2c_jax.miniworld.world import scene_at


def image_at(split: str, index: int, seed: int = 0) -> Image.Image:
    """Draws the image of a scene: 64 by 64 pixels, RGB."""
    scene, rng = scene_at(split, index, seed)
    return draw(scene, rng)


def audio_at(split: str, index: int, seed: int = 0) -> Float[np.ndarray, "40960"]:
    """Synthesises the sound of a scene: 2.56 seconds at 16 kHz, in -1..1."""
    scene, rng = scene_at(split, index, seed)
    return synthesise(scene, rng.spawn(1)[0])


def caption_at(split: str, index: int, style: str, seed: int = 0) -> str:
    """Writes a caption of a scene in a style of `captions.STYLES`."""
    scene, rng = scene_at(split, index, seed)
    return caption(scene, style, rng.spawn(1 + len(STYLES))[1 + STYLES.index(style)])

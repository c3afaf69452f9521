"""Pictures to the pixels that a CLIP vision tower takes, as a checkpoint's preprocessor_config.json says.

Bit for bit what transformers' CLIPImageProcessorPil makes; that one imports torch, which would take most of the time
from the shell to a picture's vector (`python -m bench.infer`).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from c2c_jax.errors import CheckpointError
from c2c_jax.io.json import read_json

FILE = "preprocessor_config.json"
# What transformers fills in where a file says nothing; mean and standard deviation are CLIP's own (OpenAI).
DEFAULTS: dict[str, Any] = {
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "resample": int(Image.Resampling.BICUBIC),
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}


@dataclasses.dataclass(frozen=True)
class PixelRecipe:
    """content: of the file. Sizes of pictures are (width, height), as in PIL."""

    content: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "PixelRecipe":
        """The recipe of a checkpoint folder. Raises CheckpointError where it is missing or asks for what is unknown."""
        recipe = cls(read_json(folder / FILE))
        try:
            recipe([Image.new("RGB", (3, 2))])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{folder / FILE} makes no pixels ({type(error).__name__}: {error})") from error
        return recipe

    def __call__(self, images: Sequence[Image.Image]) -> Float[np.ndarray, "B height width C"]:
        """Normalised pixels, float32, channels last, of RGB pictures of any sizes."""
        return np.stack([self._pixels(image) for image in images])

    def _field(self, name: str) -> Any:
        value = self.content.get(name)
        return DEFAULTS[name] if value is None else value

    def _pixels(self, image: Image.Image) -> Float[np.ndarray, "height width C"]:
        if self._field("do_resize"):
            image = image.resize(self._resized(*image.size), Image.Resampling(self._field("resample")))
        if self._field("do_center_crop"):
            width, height = _width_height(self._field("crop_size"))
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))  # black where the picture is too small
        pixels = np.asarray(image)
        if self._field("do_rescale"):
            pixels = (pixels.astype(np.float64) * self._field("rescale_factor")).astype(np.float32)
        if self._field("do_normalize"):
            mean, deviation = (np.asarray(self._field(name), np.float32) for name in ("image_mean", "image_std"))
            pixels = (pixels.astype(np.float32) - mean) / deviation
        return pixels.astype(np.float32)

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        size = self._field("size")
        if isinstance(size, dict) and set(size) != {"shortest_edge"}:
            return _width_height(size)
        shortest = size["shortest_edge"] if isinstance(size, dict) else int(size)  # a number in files before 2022
        longest = int(shortest * max(width, height) / min(width, height))
        return (shortest, longest) if width <= height else (longest, shortest)


def _width_height(size: Any) -> tuple[int, int]:
    if isinstance(size, dict) and set(size) != {"width", "height"}:
        raise ValueError(f"size {size}")
    return (size["width"], size["height"]) if isinstance(size, dict) else (int(size), int(size))

"""Converts images to the pixels that a CLIP vision tower takes.

Results equal those of transformers' CLIPImageProcessorPil bit for bit. That class imports torch, which would take most
of the time that one image needs on the command line (`python -m bench.infer`).
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float
from msgspec import Meta
from PIL import Image

from c2c_jax.errors import CheckpointError, ImageError
from c2c_jax.spaces.models.clip import CLIPVisionConfig
from c2c_jax.spaces.preprocessors import Preprocessor

MAX_EDGE = 2048  # pixels; published towers take up to 448
MAX_RESIZED = 2**25  # pixels of an image before it is cropped
Edge = Annotated[int, Meta(ge=1, le=MAX_EDGE)]
Size = Edge | Annotated[list[Edge], Meta(min_length=2, max_length=2)] | dict[str, Edge]
Mean = Annotated[float, Meta(ge=-1000, le=1000)]
Deviation = Annotated[float, Meta(ge=1e-4, le=1000)]
ThreeValues = Meta(min_length=3, max_length=3)
SIZES = [{"height", "width"}, {"shortest_edge"}, {"shortest_edge", "longest_edge"}, {"max_height", "max_width"}]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImagePreprocessor(Preprocessor):
    """Resizes, crops and normalises images. Fields and defaults are those of transformers' preprocessor_config.json,
    with OpenAI CLIP's mean and standard deviation. Sizes are in pixels."""

    KIND, PARTS = "image", ("image_processor",)
    DEFAULTED = (
        "size",
        "default_to_square",
        "crop_size",
        "image_mean",
        "image_std",
        "image_processor_type",
        "feature_extractor_type",
    )

    image_processor_type: Literal[
        "CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil", "CLIPFeatureExtractor"
    ] = "CLIPImageProcessor"
    feature_extractor_type: Literal["CLIPFeatureExtractor"] = "CLIPFeatureExtractor"
    do_resize: bool = True
    size: Size = dataclasses.field(default_factory=lambda: {"shortest_edge": 224})
    default_to_square: bool = False  # whether a size of one number is both edges, not the shortest edge
    resample: Annotated[int, Meta(ge=0, le=5)] = int(Image.Resampling.BICUBIC)
    do_center_crop: bool = True
    crop_size: Size = dataclasses.field(default_factory=lambda: {"height": 224, "width": 224})
    do_rescale: bool = True
    rescale_factor: Annotated[float, Meta(ge=1e-6, le=1)] = 1 / 255
    do_normalize: bool = True
    image_mean: Mean | Annotated[list[Mean], ThreeValues] = dataclasses.field(
        default_factory=lambda: [0.48145466, 0.4578275, 0.40821073]
    )
    image_std: Deviation | Annotated[list[Deviation], ThreeValues] = dataclasses.field(
        default_factory=lambda: [0.26862954, 0.26130258, 0.27577711]
    )
    do_pad: bool = False

    def __post_init__(self) -> None:
        if self.do_pad:
            raise ValueError("its do_pad is true: expected false, as CLIP's image processors do not pad")
        if self.do_resize and set(self._edges) not in SIZES:
            known = "; ".join(" and ".join(sorted(names)) for names in SIZES)
            raise ValueError(f"its size has {', '.join(sorted(self._edges)) or 'nothing'}: expected {known}")
        if self.do_center_crop and isinstance(crop := self.crop_size, dict) and set(crop) != {"height", "width"}:
            raise ValueError(f"its crop_size has {', '.join(sorted(crop)) or 'nothing'}: expected height and width")

    def require_tower(self, config: CLIPVisionConfig, folder: Path) -> None:
        """Raises CheckpointError unless images of every size give pixels that fit a vision tower with this config."""
        is_one_size = self._crop is not None or self._resized((3, 2)) == self._resized((2, 3))
        output_size = self._crop or self._resized((3, 2)) if is_one_size else None
        edge = config.image_size
        if output_size != (edge, edge):
            actual = (
                f"{output_size[0]} x {output_size[1]} pixels"
                if output_size
                else "pixels whose size depends on the image"
            )
            raise CheckpointError(
                f"the image preprocessor of {folder} makes {actual}; config.json asks for {edge} x {edge}: "
                "they belong to different models; fetch both again"
            )

    def __call__(self, images: Sequence[Image.Image]) -> Float[np.ndarray, "B height width C"]:
        """Converts RGB images of any size to normalised float32 pixels, channels last. Raises ImageError for an image
        that is too long to resize."""
        return np.stack([self._pixels(image) for image in images])

    @functools.cached_property
    def _edges(self) -> dict[str, int]:
        """The target size by edge, as one of SIZES."""
        size = self.size
        if isinstance(size, int):
            return {"height": size, "width": size} if self.default_to_square else {"shortest_edge": size}
        return {"height": size[0], "width": size[1]} if isinstance(size, list) else size

    def _resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (width, height) after resizing an image of this (width, height)."""
        if not self.do_resize:
            return size
        width, height = size
        match self._edges:
            case {"height": new_height, "width": new_width}:
                return new_width, new_height
            case {"max_height": max_height, "max_width": max_width}:
                scale = min(max_height / height, max_width / width)
                return int(width * scale), int(height * scale)
            case {"shortest_edge": shortest, "longest_edge": longest}:  # transformers' get_size_with_aspect_ratio
                edge: float = shortest
                if max(size) / min(size) * shortest > longest:
                    edge = longest * min(size) / max(size)
                    shortest = round(edge)
                if min(size) == shortest:
                    return size
            case {"shortest_edge": shortest}:
                edge = shortest
        other = int(edge * max(size) / min(size))
        return (shortest, other) if width <= height else (other, shortest)

    @functools.cached_property
    def _crop(self) -> tuple[int, int] | None:
        """The (width, height) of the centre crop; None: no crop."""
        if not self.do_center_crop:
            return None
        size = self.crop_size
        if isinstance(size, int):
            return size, size
        return (size[1], size[0]) if isinstance(size, list) else (size["width"], size["height"])

    def _pixels(self, image: Image.Image) -> Float[np.ndarray, "height width C"]:
        if self.do_resize:
            width, height = self._resized(image.size)
            if width * height > MAX_RESIZED or not width * height:
                actual = f"{image.width} x {image.height} pixels"
                raise ImageError(f"an image of {actual} cannot be resized to {width} x {height}: crop it")
            image = image.resize((width, height), Image.Resampling(self.resample))
        if self._crop:
            width, height = self._crop
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))  # black where the image is too small
        pixels = np.asarray(image)
        if self.do_rescale:
            pixels = (pixels.astype(np.float64) * self.rescale_factor).astype(np.float32)
        if self.do_normalize:
            mean, deviation = np.asarray(self.image_mean, np.float32), np.asarray(self.image_std, np.float32)
            pixels = (pixels.astype(np.float32) - mean) / deviation
        return pixels.astype(np.float32)

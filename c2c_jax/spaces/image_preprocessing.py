"""Pictures to the pixels that a CLIP vision tower takes, as a checkpoint's image preprocessor says.

Bit for bit what transformers' CLIPImageProcessorPil makes; that one imports torch, which would take most of the time
from the shell to a picture's vector (`python -m bench.infer`).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float
from msgspec import Meta
from PIL import Image

from c2c_jax.errors import CheckpointError, ImageError
from c2c_jax.spaces.preprocessors import FILE as FILE
from c2c_jax.spaces.preprocessors import fields_as, read_preprocessor

MAX_EDGE = 2048  # pixels: published towers take up to 448, and 2048 x 2048 pixels take 200 MB here
MAX_RESIZED = 2**25  # pixels of a picture before it is cropped
Edge = Annotated[int, Meta(ge=1, le=MAX_EDGE)]
Size = Edge | Annotated[list[Edge], Meta(min_length=2, max_length=2)] | dict[str, Edge]
Mean = Annotated[float, Meta(ge=-1000, le=1000)]
Deviation = Annotated[float, Meta(ge=1e-4, le=1000)]
Three = Meta(min_length=3, max_length=3)

DEFAULTED = (
    "size",
    "default_to_square",
    "crop_size",
    "image_mean",
    "image_std",
    "image_processor_type",
    "feature_extractor_type",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelFields:
    """The fields of a preprocessor, with what transformers fills in where a file says nothing; mean and standard
    deviation are CLIP's own (OpenAI). Sizes are in pixels."""

    image_processor_type: Literal[
        "CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil", "CLIPFeatureExtractor"
    ] = "CLIPImageProcessor"
    feature_extractor_type: Literal["CLIPFeatureExtractor"] = "CLIPFeatureExtractor"
    do_resize: bool = True
    size: Size = dataclasses.field(default_factory=lambda: {"shortest_edge": 224})
    default_to_square: bool = False  # what a size of one number means
    resample: Annotated[int, Meta(ge=0, le=5)] = int(Image.Resampling.BICUBIC)
    do_center_crop: bool = True
    crop_size: Size = dataclasses.field(default_factory=lambda: {"height": 224, "width": 224})
    do_rescale: bool = True
    rescale_factor: Annotated[float, Meta(ge=1e-6, le=1)] = 1 / 255
    do_normalize: bool = True
    image_mean: Mean | Annotated[list[Mean], Three] = dataclasses.field(
        default_factory=lambda: [0.48145466, 0.4578275, 0.40821073]
    )
    image_std: Deviation | Annotated[list[Deviation], Three] = dataclasses.field(
        default_factory=lambda: [0.26862954, 0.26130258, 0.27577711]
    )
    do_pad: Literal[False] = False


@dataclasses.dataclass(frozen=True)
class PixelRecipe:
    """content: of the preprocessor's file. Sizes of pictures are (width, height), as in PIL."""

    content: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "PixelRecipe":
        """The recipe of a checkpoint folder. Raises CheckpointError where it is missing or asks for what is unknown."""
        content, path = read_preprocessor(folder, "image_processor")
        recipe = cls(content)
        try:
            recipe._resize, recipe._crop  # noqa: B018 - read here, so that what is wrong is found now
        except ValueError as error:
            raise CheckpointError(f"{path} cannot be used as an image preprocessor ({error}); fetch it again") from None
        return recipe

    def require_tower(self, config: Any, folder: Path) -> None:
        """Raises CheckpointError unless the pixels of every picture are what a vision tower of that config takes."""
        made = self._crop or self._resize((3, 2)) if self._has_one_size else None
        wanted = (config.image_size, config.image_size)
        if made != wanted:
            found = f"{made[0]} x {made[1]} pixels" if made else "pixels of as many sizes as pictures have"
            raise CheckpointError(
                f"the image preprocessor of {folder} makes {found}; config.json asks for {wanted[0]} x {wanted[1]}: "
                "they belong to different models; fetch both again"
            )

    def __call__(self, images: Sequence[Image.Image]) -> Float[np.ndarray, "B height width C"]:
        """Normalised pixels, float32, channels last, of RGB pictures of any sizes. Raises ImageError for a picture too
        long for the sizes that the recipe asks for."""
        return np.stack([self._pixels(image) for image in images])

    @functools.cached_property
    def _fields(self) -> PixelFields:
        """As in transformers a step that is null is left out, and for what is null in DEFAULTED there is a default."""
        steps = {name: False for name, value in self.content.items() if value is None and name.startswith("do_")}
        stated = {name: value for name, value in self.content.items() if value is not None or name not in DEFAULTED}
        return fields_as(PixelFields, {**stated, **steps})

    @functools.cached_property
    def _resize(self) -> Callable[[tuple[int, int]], tuple[int, int]]:
        """From a picture's size to the one it is resized to. Raises ValueError for a size of a kind not known."""
        if not self._fields.do_resize:
            return lambda size: size
        size = self._fields.size
        if isinstance(size, int):
            size = {"height": size, "width": size} if self._fields.default_to_square else {"shortest_edge": size}
        if isinstance(size, list):
            size = {"height": size[0], "width": size[1]}
        match {name: size[name] for name in sorted(size)}:
            case {"height": height, "width": width, **others} if not others:
                return lambda _: (width, height)
            case {"shortest_edge": shortest, **others} if not others:
                return functools.partial(_to_shortest, shortest=shortest)
            case {"longest_edge": longest, "shortest_edge": shortest, **others} if not others:
                return functools.partial(_to_shortest_at_most, shortest=shortest, longest=longest)
            case {"max_height": height, "max_width": width, **others} if not others:
                return functools.partial(_to_fit, width=width, height=height)
        raise ValueError(
            f"its size has {', '.join(sorted(size)) or 'nothing'}: expected height and width, shortest_edge, "
            "shortest_edge and longest_edge, or max_height and max_width"
        )

    @functools.cached_property
    def _crop(self) -> tuple[int, int] | None:
        """(width, height) of what is cropped, None where nothing is. Raises ValueError for a size of another kind."""
        if not self._fields.do_center_crop:
            return None
        size = self._fields.crop_size
        if isinstance(size, int):
            return size, size
        if isinstance(size, list):
            return size[1], size[0]
        if set(size) != {"width", "height"}:
            raise ValueError(f"its crop_size has {', '.join(sorted(size)) or 'nothing'}: expected height and width")
        return size["width"], size["height"]

    @property
    def _has_one_size(self) -> bool:
        """Whether pictures of all sizes become pixels of one."""
        return self._crop is not None or self._resize((3, 2)) == self._resize((2, 3))

    def _pixels(self, image: Image.Image) -> Float[np.ndarray, "height width C"]:
        fields = self._fields
        if fields.do_resize:
            width, height = self._resize(image.size)
            if width * height > MAX_RESIZED or not width * height:
                found = f"{image.width} x {image.height} pixels"
                raise ImageError(f"a picture of {found} cannot be resized to {width} x {height}: crop it")
            image = image.resize((width, height), Image.Resampling(fields.resample))
        if self._crop:
            width, height = self._crop
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))  # black where the picture is too small
        pixels = np.asarray(image)
        if fields.do_rescale:
            pixels = (pixels.astype(np.float64) * fields.rescale_factor).astype(np.float32)
        if fields.do_normalize:
            mean, deviation = np.asarray(fields.image_mean, np.float32), np.asarray(fields.image_std, np.float32)
            pixels = (pixels.astype(np.float32) - mean) / deviation
        return pixels.astype(np.float32)


def _to_shortest(size: tuple[int, int], *, shortest: int) -> tuple[int, int]:
    longest = int(shortest * max(size) / min(size))
    return (shortest, longest) if size[0] <= size[1] else (longest, shortest)


def _to_shortest_at_most(size: tuple[int, int], *, shortest: int, longest: int) -> tuple[int, int]:
    """transformers' get_size_with_aspect_ratio."""
    width, height = size
    edge: float = shortest
    if max(size) / min(size) * shortest > longest:
        edge = longest * min(size) / max(size)
        shortest = round(edge)
    if min(size) == shortest:
        return size
    return (shortest, int(edge * height / width)) if width < height else (int(edge * width / height), shortest)


def _to_fit(size: tuple[int, int], *, width: int, height: int) -> tuple[int, int]:
    scale = min(height / size[1], width / size[0])
    return int(size[0] * scale), int(size[1] * scale)

"""Converts decoded images to 8-bit RGB, with transparency over white, where Pillow's own conversion is wrong."""

import dataclasses
from typing import BinaryIO, cast

import numpy as np
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import TiffImageFile

# Without LAB and the 32-bit modes I and F: Pillow converts them to wrong colours or clips them silently.
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
MODES_16_BIT = ("I;16", "I;16B", "I;16L")


class UnsupportedSamplesError(ValueError):
    """An unsupported kind of samples. The message continues "the file has …"."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Samples:
    """Properties of an image's samples that its mode does not show. max_grey: white in 16-bit modes. is_inverted:
    whether 0 is white in them. alpha_may_be_unused: whether a fourth channel with only zeros means an opaque image."""

    max_grey: int = 65_535
    is_inverted: bool = False
    alpha_may_be_unused: bool = False


def describe_samples(file: BinaryIO, image: ImageFile.ImageFile) -> Samples:
    """Describes the samples of an opened image that is not decoded yet. Raises UnsupportedSamplesError for samples that
    Pillow decodes wrongly."""
    match image.format:
        case "TIFF":
            return _of_tiff(cast(TiffImageFile, image))
        case "PNG":
            _scale_key(image)
        case "BMP" | "DIB":
            _require_plain_palette(file, image)
            return Samples(alpha_may_be_unused=True)
    return Samples()


def _of_tiff(image: TiffImageFile) -> Samples:
    tags = image.tag_v2
    bits, photometric = tags.get(258, (1,)), tags.get(262, 0)
    if tags.get(254, 0) & 1:
        raise UnsupportedSamplesError("a thumbnail as its first image, like raw files of cameras")
    if max(bits) > 8 and tags.get(284, 1) == 2 and len(bits) > 1:
        raise UnsupportedSamplesError("16-bit colours in separate planes")
    if 2 in tags.get(339, ()) and max(bits) <= 8:
        raise UnsupportedSamplesError("signed samples")
    if photometric == 6 and tags.get(259, 1) == 1 and len(bits) == 3:
        if tags.get(530, (2, 2)) != (1, 1):
            raise UnsupportedSamplesError("uncompressed YCbCr pixels with subsampled colours")
        if image.mode == "RGB":
            raise UnsupportedSamplesError("uncompressed YCbCr pixels, which Pillow decodes from version 13 on")
    is_16_bit = image.mode in MODES_16_BIT
    return Samples(
        max_grey=4095 if bits[0] == 12 else 65_535,
        is_inverted=is_16_bit and photometric == 0,
        alpha_may_be_unused=338 not in tags,
    )


def _scale_key(image: ImageFile.ImageFile) -> None:
    """Scales the transparent grey or colour of a PNG to 8 bits, like its pixels; 16 bits keep their upper 8."""
    key, raw_mode = image.info.get("transparency"), str(image.tile[0].args) if image.tile else ""
    if isinstance(key, int) and image.mode == "L":
        depth = {"L;2": 2, "L;4": 4}.get(raw_mode, 8)
        image.info["transparency"] = key % 2**depth * (255 // (2**depth - 1))
    if isinstance(key, tuple):
        image.info["transparency"] = tuple(value >> 8 if raw_mode == "RGB;16B" else value % 256 for value in key)


def _require_plain_palette(file: BinaryIO, image: ImageFile.ImageFile) -> None:
    """Refuses an uncompressed BMP with 4 or 8 bits per pixel and a black-and-white palette, or with 4 bits and a grey
    palette: Pillow decodes it as 1 or 8 bits."""
    position = file.tell()
    file.seek(14 if image.format == "BMP" else 0)
    header = file.read(16)
    file.seek(position)
    bits = int.from_bytes(header[10:12] if header[0] == 12 else header[14:16], "little")
    if image.tile[0].codec_name == "raw" and (bits, image.mode) in ((4, "1"), (8, "1"), (4, "L")):
        raise UnsupportedSamplesError(f"a palette of greys for {bits} bits a pixel")


def to_rgb(image: Image.Image, samples: Samples, box: tuple[int, int, int, int] | None = None) -> Image.Image:
    """Converts a decoded image, or the part of it in a box, to 8-bit RGB. Raises UnsupportedSamplesError."""
    part = image.crop(box) if box else image
    if part.mode in MODES_16_BIT or (part.mode == "I" and image.format == "PPM"):
        return _scale_16_bit_grey(part, samples).convert("RGB")
    if part.mode not in MODES:
        raise UnsupportedSamplesError(f"pixels of an unsupported kind ({part.mode})")
    if part.has_transparency_data:
        return _over_white(part)
    return part if part.mode == "RGB" else part.convert("RGB")


def has_unused_alpha(image: Image.Image, samples: Samples) -> bool:
    """Whether a decoded image has a fourth channel that is unused."""
    return samples.alpha_may_be_unused and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0)


def _scale_16_bit_grey(image: Image.Image, samples: Samples) -> Image.Image:
    """Scales 0..max_grey to 0..255 and makes the transparent grey of a PNG white, if it has one."""
    values = np.asarray(image).astype(np.uint32)
    grey = (values * 255 + samples.max_grey // 2) // samples.max_grey
    if samples.is_inverted:
        grey = 255 - grey
    if "transparency" in image.info:
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey.astype(np.uint8))


def _over_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    rgb = Image.new("RGB", rgba.size, "white")
    rgb.paste(rgba, mask=rgba.getchannel("A"))
    return rgb

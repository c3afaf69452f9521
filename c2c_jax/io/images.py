"""Finds image files and reads them as upright 8-bit RGB."""

import glob
import logging
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from c2c_jax.errors import ImageError
from c2c_jax.io.files import SEPARATORS, describe_path, describe_placeholder, glob_paths, open_regular, user_path, walk
from c2c_jax.io.formats import IMAGES, SUFFIXES, scan_files
from c2c_jax.io.image_checks import check_file, strip_bytes
from c2c_jax.io.image_colours import Samples, UnsupportedSamplesError, describe_samples, has_unused_alpha, to_rgb

MAX_PIXELS = 2**27
# Limit of decoding, so that a process that reads an image stays under 500 MiB.
MAX_DECODED_BYTES = 420_000_000
# Measured bytes per pixel of decoding, with buffers; for JPEG and TIFF see `_decoding_bytes`.
PIXEL_BYTES = {"PNG": 4, "GIF": 4, "BMP": 4, "DIB": 4, "PPM": 4, "AVIF": 10, "WEBP": 17, "JPEG2000": 20}
# Larger images are averaged down to at most this many pixels: 48 megapixels take 400 MB with their copies.
MAX_FULL_SIZE_PIXELS = 48_000_000
BAND_ROWS = 64  # converted at once
MIN_BANDED_PIXELS = 2**22  # larger images are converted in bands of rows
# Preprocessors scale the short edge to 224 pixels or more, so 30,000 x 1 pixels would become 6,720,000 x 224.
MAX_ASPECT = 200
ORIENTATION = 0x0112  # the EXIF tag
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

logger = logging.getLogger(__name__)


def find_images(arguments: Sequence[str]) -> list[Path]:
    """Lists the image files of command arguments without repeats: files, folders (searched recursively, sorted), and
    patterns such as `*.jpg`.

    Logs the number of skipped files in folders and patterns. Raises ImageError for a folder or pattern without images;
    single files are checked when they are read.
    """
    files: dict[Path, None] = {}
    searched: dict[Path, None] = {}
    for argument in arguments:
        kind_at = describe_path(Path(argument))
        if kind_at == "a folder":
            kind, paths = "folder", [Path(argument)]
        elif kind_at == "no file" and glob.has_magic(argument):
            kind, paths = "pattern", sorted(glob_paths(argument))
        elif kind_at == "no file" and argument.endswith(tuple(SEPARATORS)):
            raise ImageError(f"the folder {argument} does not exist: pass an image file or a folder")
        else:
            files[Path(argument)] = None
            continue
        inside = dict.fromkeys(walk(*paths, include_unreadable=True))
        images = scan_files(inside, "image").files
        if not images:
            suffixes = ", ".join(SUFFIXES["image"])
            raise ImageError(f"{kind} {argument} contains no image: expected files ending in {suffixes}")
        files.update(dict.fromkeys(images))
        searched.update(inside)
    if skipped := scan_files(searched, "image").report():
        logger.warning("%s", skipped)
    return list(files)


def as_list(items: Any) -> list[Any]:
    """A list of images or texts, from a single one, an iterable, or an array [B, H, W, 3] of images."""
    return list(items) if is_several(items) else [items]


def is_several(items: Any) -> bool:
    """Whether `items` are several images or texts, not a single one."""
    if hasattr(items, "ndim"):
        return items.ndim == 4
    return isinstance(items, Iterable) and not isinstance(items, str | bytes | os.PathLike | Image.Image)


def to_image(image: Any) -> Image.Image:
    """Converts an image in memory or a file to upright 8-bit RGB, as `read_image` does.

    image: a path, a PIL image, or an array [H, W], [H, W, 3] or [H, W, 4] of numpy, JAX or torch: integers from 0 to
    255 or floats from 0 to 1. Raises ImageError for anything else.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(user_path(os.fspath(image)))
    if not isinstance(image, Image.Image):
        image = _from_array(image)
    try:
        rgb = to_rgb(image, Samples())
    except UnsupportedSamplesError as error:
        raise ImageError(f"the image has {error}: convert it to RGB") from None
    orientation = exif_orientation(image)
    return rgb.transpose(TRANSPOSITIONS[orientation]) if orientation in TRANSPOSITIONS else rgb


def _from_array(image: Any) -> Image.Image:
    expected = "an image must be a path, a PIL image, or an array [H, W], [H, W, 3] or [H, W, 4]"
    if hasattr(image, "detach"):  # a torch tensor
        image = image.detach().cpu()
    array = np.asarray(image)
    if array.dtype.kind not in "fui" or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        shape = f"of {array.dtype} and shape {array.shape}" if array.ndim else ""
        raise ImageError(f"{expected}; found {type(image).__name__} {shape}".rstrip())
    limit = 1 if array.dtype.kind == "f" else 255
    if not array.size or not (0 <= array.min() and array.max() <= limit):
        kind = "floats" if limit == 1 else "integers"
        raise ImageError(f"an image of {kind} must have values from 0 to {limit}")
    return Image.fromarray(np.round(array * (255 // limit)).astype(np.uint8))


def read_image(path: str | Path) -> Image.Image:
    """Reads an image as upright 8-bit RGB: transparency over white, 16-bit grey scaled, only the first frame.

    Applies the EXIF orientation and ignores colour profiles. More than MAX_FULL_SIZE_PIXELS are reduced by an integer
    factor. Raises ImageError for a file that is missing, not regular, empty, damaged (as far as its format has checks),
    or of another format, and for more than MAX_PIXELS pixels, MAX_DECODED_BYTES, or an aspect ratio above MAX_ASPECT.
    """
    path = Path(path)
    # PIL warns about sizes that are checked here, and about odd metadata of images that it still reads.
    with open_regular(path, "an image", ImageError, "pass an image file") as file, warnings.catch_warnings():
        if placeholder := describe_placeholder(file.read(256)):
            raise ImageError(f"{path} {placeholder}; download the file again")
        file.seek(0)
        warnings.simplefilter("ignore")
        try:
            rgb, orientation = _decoded(path, file)
        except ImageError:
            raise
        except Image.DecompressionBombError:
            raise ImageError(f"{path} has too many pixels: shrink it to at most {MAX_PIXELS:,}") from None
        except UnidentifiedImageError:
            raise ImageError(f"{path} is damaged or of an unsupported format: save it as PNG or JPEG") from None
        except UnsupportedSamplesError as error:
            raise ImageError(f"{path} has {error}: save it as 8-bit RGB PNG") from None
        except Exception as error:  # for damaged files PIL's decoders raise errors of nearly every class
            cause = " ".join(str(error).split()) or type(error).__name__
            raise ImageError(f"{path} is damaged ({cause}): download the file again or save it as 8-bit PNG") from error
    return rgb.transpose(TRANSPOSITIONS[orientation]) if orientation in TRANSPOSITIONS else rgb


def _decoded(path: Path, file: BinaryIO) -> tuple[Image.Image, int]:
    """Decodes an image as 8-bit RGB, and returns its EXIF orientation too."""
    with Image.open(file, formats=tuple(IMAGES)) as image:
        check_size(path, image)
        check_file(file, image)
        samples = describe_samples(file, image)
        _draft(image)
        image.load()
        orientation = exif_orientation(image)
        if has_unused_alpha(image, samples):
            image.putalpha(255)
        if image.width * image.height <= MIN_BANDED_PIXELS:
            return to_rgb(image, samples), orientation
        factor = _factor(image.width * image.height)
        if image.mode == "RGB" and factor == 1 and not image.has_transparency_data:
            return image.copy() if image.readonly else image, orientation
        rgb = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
        rows = BAND_ROWS * factor
        for top in range(0, image.height, rows):
            band = to_rgb(image, samples, (0, top, image.width, min(top + rows, image.height)))
            rgb.paste(band.reduce(factor), (0, top // factor))
        return rgb, orientation


def check_size(path: Path, image: ImageFile.ImageFile) -> None:
    """Raises ImageError if an opened image, not decoded yet, is too large for memory or has an extreme aspect ratio."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{path} has {width} x {height} pixels: shrink it to at most {MAX_PIXELS:,} in all")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(
            f"{path} has {width} x {height} pixels: crop it so that one edge is at most {MAX_ASPECT} times the other"
        )
    if (needed := _decoding_bytes(image)) > MAX_DECODED_BYTES:
        max_pixels = int(width * height * MAX_DECODED_BYTES / needed)
        raise ImageError(
            f"{path} has {width} x {height} pixels, more than the {max_pixels:,} that can be read in this variant "
            f"of {image.format}: shrink it, or save it as baseline JPEG"
        )


def _decoding_bytes(image: ImageFile.ImageFile) -> int:
    """Estimates the memory that decoding takes."""
    pixels = image.width * image.height
    match image.format:
        case "JPEG" | "MPO":
            return int(pixels * (_coefficient_bytes(image) + (1 if _is_drafted(image) else 4)))
        case "TIFF":
            return 4 * pixels + (strip_bytes(cast(TiffImageFile, image)) if image.info["compression"] != "raw" else 0)
        case "JPEG2000" if pixels > MAX_DECODED_BYTES // 20:
            return 5 * pixels  # decoded at half size
        case "PPM" if image.tile[0].codec_name != "raw":  # PIL scales other maxima in Python
            return 24 * pixels
    return PIXEL_BYTES.get(str(image.format), 4) * pixels


def _coefficient_bytes(image: ImageFile.ImageFile) -> float:
    """Bytes per pixel of the 16-bit coefficients that a progressive JPEG keeps until its last scan; else 0."""
    layers = image.layer  # type: ignore[attr-defined]
    max_samples = max(layer[1] for layer in layers) * max(layer[2] for layer in layers)
    return sum(2 * layer[1] * layer[2] for layer in layers) / max_samples if "progressive" in image.info else 0.0


def _is_drafted(image: ImageFile.ImageFile) -> bool:
    """Whether a JPEG is decoded at half size."""
    pixels = image.width * image.height
    return pixels > MAX_FULL_SIZE_PIXELS or pixels * (4 + _coefficient_bytes(image)) > MAX_DECODED_BYTES


def _draft(image: ImageFile.ImageFile) -> None:
    """Tells the decoder of a large JPEG or JPEG 2000 image to decode it at half size."""
    if image.format in ("JPEG", "MPO") and _is_drafted(image):
        image.draft(None, (image.width // 2, image.height // 2))
    elif image.format == "JPEG2000" and image.width * image.height > MAX_DECODED_BYTES // PIXEL_BYTES["JPEG2000"]:
        image.reduce = 1  # type: ignore[method-assign, assignment]


def _factor(pixels: int) -> int:
    """The factor by which the edges of an image are reduced."""
    return 1 if pixels <= MAX_FULL_SIZE_PIXELS else 2 if pixels <= 2**26 else 4


def exif_orientation(image: Image.Image) -> int:
    """Reads the EXIF orientation; 1 (as stored) if there is none."""
    try:
        return image.getexif().get(ORIENTATION, 1)
    except (SyntaxError, ValueError):  # invalid EXIF: viewers show such an image as stored
        return 1

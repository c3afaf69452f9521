"""Picture files in, upright 8-bit RGB out."""

import glob
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from c2c_jax.errors import ImageError
from c2c_jax.io.files import found_at, matching, open_regular, stand_in, walk
from c2c_jax.io.formats import IMAGES, SUFFIXES, scan_files
from c2c_jax.io.image_checks import check_file, strip_bytes
from c2c_jax.io.image_colours import UnreadSamplesError, has_unused_alpha, samples_of, to_rgb

MAX_PIXELS = 2**27
# Decoding takes no more than this, so a process that reads a picture stays under 500 MiB.
MAX_DECODED_BYTES = 420_000_000
# Bytes a pixel that decoding takes with its buffers, measured; of JPEG and TIFF see `_decoding_bytes`.
PIXEL_BYTES = {"PNG": 4, "GIF": 4, "BMP": 4, "DIB": 4, "PPM": 4, "AVIF": 10, "WEBP": 17, "JPEG2000": 20}
# Larger pictures are averaged down to this many pixels or fewer: 48 megapixels take 400 MB with their copies.
MAX_WHOLE = 48_000_000
BAND_ROWS = 64  # converted at once
BANDED = 2**22  # pixels from which on pictures are converted in bands
# Processors scale the short edge to 224 pixels or more, so a 30,000 x 1 picture would become 6,720,000 x 224.
MAX_ASPECT = 200
ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def find_images(arguments: Sequence[str], report: Callable[[str], None] | None = None) -> list[Path]:
    """The files that arguments name, each once: files, folders (all pictures in them and in the folders inside, by
    name), patterns such as `*.jpg`.

    report: called once, with a line on the files of folders and patterns that are not read, where there are such.
    Raises ImageError for a folder or pattern without any picture; a single file is judged when it is read.
    """
    found: dict[Path, None] = {}
    searched: dict[Path, None] = {}
    for argument in arguments:
        there = found_at(Path(argument))
        if there == "a folder":
            kind, places = "folder", [Path(argument)]
        elif there == "no file" and glob.has_magic(argument):
            kind, places = "pattern", sorted(matching(argument))
        elif there == "no file" and argument.endswith(os.sep):
            raise ImageError(f"the folder {argument} does not exist: pass an image file or a folder")
        else:
            found[Path(argument)] = None
            continue
        inside = dict.fromkeys(walk(*places, others=True))
        pictures = scan_files(inside, "image").files
        if not pictures:
            suffixes = ", ".join(SUFFIXES["image"])
            raise ImageError(f"{kind} {argument} contains no image: expected files ending in {suffixes}")
        found.update(dict.fromkeys(pictures))
        searched.update(inside)
    skipped = scan_files(searched, "image").report()
    if report and skipped:
        report(skipped)
    return list(found)


def read_image(path: str | Path) -> Image.Image:
    """Reads one picture as upright 8-bit RGB: transparency over white, 16-bit grey scaled, the first frame of many.

    The orientation is EXIF's. Colour profiles are not applied. One of more than MAX_WHOLE pixels comes smaller, by a
    whole factor. Raises ImageError for what is missing, not a regular file, empty, damaged (as far as its format has
    checks), of another format, of more than MAX_PIXELS pixels or more than MAX_DECODED_BYTES, or more than MAX_ASPECT
    times as long as it is wide.
    """
    path = Path(path)
    # PIL warns of sizes that are checked here, and of odd metadata in pictures that it reads all the same.
    with open_regular(path, "an image", ImageError, "pass an image file") as file, warnings.catch_warnings():
        if found := stand_in(file.read(256)):
            raise ImageError(f"{path} {found}; get the picture again")
        file.seek(0)
        warnings.simplefilter("ignore")
        try:
            rgb, orientation = _decoded(path, file)
        except ImageError:
            raise
        except Image.DecompressionBombError:
            raise ImageError(f"{path} has too many pixels: shrink it to at most {MAX_PIXELS:,}") from None
        except UnidentifiedImageError:
            raise ImageError(f"{path} is damaged or of a format that is not read: save it as PNG or JPEG") from None
        except UnreadSamplesError as error:
            raise ImageError(f"{path} has {error}: save it as 8-bit RGB PNG") from None
        except Exception as error:  # over damaged bytes PIL's decoders raise errors of nearly every class
            cause = " ".join(str(error).split()) or type(error).__name__
            raise ImageError(f"{path} is damaged ({cause}): get the picture again or save it as 8-bit PNG") from error
    return rgb.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else rgb


def _decoded(path: Path, file: BinaryIO) -> tuple[Image.Image, int]:
    """An image as 8-bit RGB, and its orientation."""
    with Image.open(file, formats=tuple(IMAGES)) as image:
        check_size(path, image)
        check_file(file, image)
        samples = samples_of(file, image)
        _draft(image)
        image.load()
        orientation = exif_orientation(image)
        if has_unused_alpha(image, samples):
            image.putalpha(255)
        if image.width * image.height <= BANDED:
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
    """Raises ImageError for an opened picture too large or too long to hold in memory, before it is decoded."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{path} has {width} x {height} pixels: shrink it to at most {MAX_PIXELS:,} in all")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(
            f"{path} has {width} x {height} pixels: crop it so that one edge is at most {MAX_ASPECT} times the other"
        )
    if (needed := _decoding_bytes(image)) > MAX_DECODED_BYTES:
        most = int(width * height * MAX_DECODED_BYTES / needed)
        raise ImageError(
            f"{path} has {width} x {height} pixels, more than the {most:,} that can be read in this variant of "
            f"{image.format}: shrink it, or save it as baseline JPEG"
        )


def _decoding_bytes(image: ImageFile.ImageFile) -> int:
    """The memory that decoding takes."""
    pixels = image.width * image.height
    match image.format:
        case "JPEG" | "MPO":
            return int(pixels * (_coefficient_bytes(image) + (1 if _is_drafted(image) else 4)))
        case "TIFF":
            return 4 * pixels + (strip_bytes(cast(TiffImageFile, image)) if image.info["compression"] != "raw" else 0)
        case "JPEG2000" if pixels > MAX_DECODED_BYTES // 20:
            return 5 * pixels  # read at half its size
        case "PPM" if image.tile[0].codec_name != "raw":  # of another maximum, by a program of PIL's in Python
            return 24 * pixels
    return PIXEL_BYTES.get(str(image.format), 4) * pixels


def _coefficient_bytes(image: ImageFile.ImageFile) -> float:
    """Bytes a pixel of the 16-bit coefficients in which a progressive JPEG is kept until its last scan."""
    layers = image.layer  # type: ignore[attr-defined]
    most = max(one[1] for one in layers) * max(one[2] for one in layers)
    return sum(2 * one[1] * one[2] for one in layers) / most if "progressive" in image.info else 0.0


def _is_drafted(image: ImageFile.ImageFile) -> bool:
    """Whether a JPEG is decoded at half its size."""
    pixels = image.width * image.height
    return pixels > MAX_WHOLE or pixels * (4 + _coefficient_bytes(image)) > MAX_DECODED_BYTES


def _draft(image: ImageFile.ImageFile) -> None:
    """Where a format's decoder can make a picture smaller, lets it do so with one that is too large."""
    if image.format in ("JPEG", "MPO") and _is_drafted(image):
        image.draft(None, (image.width // 2, image.height // 2))
    elif image.format == "JPEG2000" and image.width * image.height > MAX_DECODED_BYTES // PIXEL_BYTES["JPEG2000"]:
        image.reduce = 1  # type: ignore[method-assign, assignment]


def _factor(pixels: int) -> int:
    """By how much a picture's edges are to be divided."""
    return 1 if pixels <= MAX_WHOLE else 2 if pixels <= 2**26 else 4


def exif_orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 (as stored) where there is none."""
    try:
        return image.getexif().get(ORIENTATION, 1)
    except (SyntaxError, ValueError):  # a block that is no EXIF after all: viewers show such a picture as stored
        return 1

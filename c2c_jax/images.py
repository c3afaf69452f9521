"""Picture files in, upright 8-bit RGB out."""

import glob
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from c2c_jax.errors import ImageError

# Only formats that PIL decodes by itself: an EPS, for one, would start Ghostscript.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "PPM", "JPEG2000")
SUFFIXES = tuple(
    ".jpg .jpeg .png .gif .webp .avif .tif .tiff .bmp .ppm .pgm .pnm .jp2".split()
)  # looked for in folders
MEL_SUFFIX = ".mel.png"  # spectrograms, written beside sounds: no pictures to make sounds of
# LAB and the 32-bit modes I and F are left out: PIL converts them to other colours or clips them, without a word.
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
MODES_16_BIT = ("I;16", "I;16B", "I;16L")
# A picture takes up to 10 bytes a pixel while it is laid over white, so about 1.3 GB at this limit.
MAX_PIXELS = 2**27
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


def find_pictures(arguments: Sequence[str]) -> list[Path]:
    """The files that arguments name, each once: files, folders (all their pictures, by name), patterns such as `*.jpg`.

    Raises ImageError for a folder or pattern that holds no picture; a single file is judged when it is read.
    """
    found: dict[Path, None] = {}
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if _looks_like_picture(p))
        elif not path.exists() and glob.has_magic(argument):
            inside = sorted(p for p in map(Path, glob.glob(argument, recursive=True)) if _looks_like_picture(p))
        else:
            inside = [path]
        if not inside:
            kind = "folder" if path.is_dir() else "pattern"
            raise ImageError(f"{kind} {argument} holds no picture: expected files that end in {', '.join(SUFFIXES)}")
        found.update(dict.fromkeys(inside))
    return list(found)


def _looks_like_picture(path: Path) -> bool:
    is_hidden = path.name.startswith(".")  # such as macOS leaves beside each file
    return path.suffix.lower() in SUFFIXES and not path.name.endswith(MEL_SUFFIX) and not is_hidden and path.is_file()


def read_image(path: str | Path) -> Image.Image:
    """Reads one picture as upright 8-bit RGB: transparency over white, 16-bit grey scaled, the first frame of many.

    The orientation is EXIF's. Colour profiles are not applied. Raises ImageError for what is missing, empty, damaged,
    of another format, of more than MAX_PIXELS pixels, or more than MAX_ASPECT times as long as it is wide.
    """
    path = Path(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no file"
        raise ImageError(f"expected a picture at {path}, found {found}: name one picture file")
    if path.stat().st_size == 0:
        raise ImageError(f"{path} is empty (0 bytes): get the picture again")
    with warnings.catch_warnings():
        # PIL warns of sizes that check_size judges, and of odd metadata in pictures that it reads all the same.
        warnings.simplefilter("ignore")
        try:
            with Image.open(path, formats=FORMATS) as image:
                check_size(path, *image.size)
                image.load()
                orientation = exif_orientation(image)
        except ImageError:
            raise
        except Image.DecompressionBombError:
            raise ImageError(f"{path} has too many pixels: shrink it to at most {MAX_PIXELS:,}") from None
        except UnidentifiedImageError:
            raise ImageError(f"{path} is damaged or of a format that is not read: save it as PNG or JPEG") from None
        except Exception as error:  # over damaged bytes PIL's decoders raise errors of nearly every class
            cause = " ".join(str(error).split())
            raise ImageError(f"{path} is damaged ({cause}): get the picture again or save it as PNG") from error
        if image.mode in MODES_16_BIT or (image.mode == "I" and image.format == "PPM"):
            rgb = grey_of_16_bit(image).convert("RGB")
        elif image.mode in MODES:
            rgb = over_white(image) if image.has_transparency_data else image.convert("RGB")
        else:
            raise ImageError(f"{path} has pixels of a kind that is not read ({image.mode}): save it as 8-bit RGB PNG")
    return rgb.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else rgb


def check_size(path: Path, width: int, height: int) -> None:
    """Raises ImageError for a picture too large or too long to hold in memory, before it is decoded."""
    if width * height > MAX_PIXELS:
        raise ImageError(f"{path} has {width} x {height} pixels: shrink it to at most {MAX_PIXELS:,} in all")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(
            f"{path} has {width} x {height} pixels: crop it so that one edge is at most {MAX_ASPECT} times the other"
        )


def exif_orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 (as stored) where there is none."""
    try:
        return image.getexif().get(ORIENTATION, 1)
    except SyntaxError:  # a block that is no EXIF after all: viewers show such a picture as stored
        return 1


def grey_of_16_bit(image: Image.Image) -> Image.Image:
    """Scales 0..65535 to 0..255 and makes the one transparent value of a PNG, where it names one, white."""
    values = np.asarray(image).astype(np.uint32)
    grey = (values + 128) // 257
    if "transparency" in image.info:
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey.astype(np.uint8))


def over_white(image: Image.Image) -> Image.Image:
    """Lays a picture with any kind of transparency over white."""
    rgba = image.convert("RGBA")
    rgb = Image.new("RGB", rgba.size, "white")
    rgb.paste(rgba, mask=rgba.getchannel("A"))
    return rgb

"""Images and sounds as `data:` addresses, so that a page needs no other file."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float
from PIL import Image

from c2c_jax.errors import ImageError
from c2c_jax.io.files import is_regular, sha256_of
from c2c_jax.io.images import read_image
from c2c_jax.io.sound_files import DEEPEST_DB, mel_spectrogram

MAX_EDGE, SMALL = 640, 200  # pixels of the longer edge: maximum, and below which the image is kept exactly
JPEG_QUALITY = 80
MEL_SIZE = (640, 256)  # pixels
# Every browser plays MP3 from a data: address, Safari on old iPhones included, but not FLAC and Ogg; at the best
# variable rate it takes a fifth of a wav's bytes. It has these sample rates alone: other sounds are embedded as wav.
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


def sound_address(samples: Float[np.ndarray, "samples"], rate: int) -> str:
    """Mono samples in -1..1 as MP3 of the best variable rate or, at a sample rate that MP3 lacks, as 16-bit wav."""
    file = io.BytesIO()
    if rate in MP3_RATES:
        soundfile.write(file, samples, rate, format="MP3", bitrate_mode="VARIABLE", compression_level=0.0)
        return _address("audio/mpeg", file)
    soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")
    return _address("audio/wav", file)


def mel_address(samples: Float[np.ndarray, "samples"], rate: int) -> str:
    """The mel-spectrogram of `io.sound_files`, low notes at the bottom, without axes."""
    from matplotlib import colormaps  # takes a while

    mels_MT = mel_spectrogram(samples, rate)[::-1]
    colours_MT3 = colormaps["magma"](1 + mels_MT / DEEPEST_DB, bytes=True)[..., :3]
    return _image_address(Image.fromarray(colours_MT3).resize(MEL_SIZE, Image.Resampling.BILINEAR), "JPEG")


def picture_address(path: Path) -> tuple[str, int, int]:
    """An image file, upright, scaled down if it is large, with its width and height in pixels. Raises ImageError."""
    image = read_image(path)
    image.thumbnail((MAX_EDGE, MAX_EDGE), Image.Resampling.LANCZOS)
    return _image_address(image, "PNG" if max(image.size) < SMALL else "JPEG"), *image.size


def find_picture(recorded: Path, checksum: str, folders: Sequence[Path]) -> Path:
    """The image that a record names: at its recorded place, or in one of the folders under the same name. Raises
    ImageError unless one of these is the very same file."""
    there = [place for place in (recorded, *(folder / recorded.name for folder in folders)) if is_regular(place)]
    for place in there:
        if sha256_of(place) == checksum:
            return place
    if there:
        raise ImageError(f"{there[0]} is another picture than the one that the sound was made of: bring that one back")
    raise ImageError(f"expected the picture at {recorded} or beside its sound, found none: bring it back")


def _image_address(image: Image.Image, kind: str) -> str:
    file = io.BytesIO()
    image.save(file, kind, **({"quality": JPEG_QUALITY} if kind == "JPEG" else {}))
    return _address(f"image/{kind.lower()}", file)


def _address(kind: str, file: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode()}"

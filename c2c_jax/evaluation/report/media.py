"""Pictures and sounds as `data:` addresses, so that a page needs no other file."""

import base64
import dataclasses
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
from c2c_jax.io.sounds import read_sound

PICTURE_EDGE, SMALL = 640, 200  # pixels of the longer edge: at most, and below which every pixel is kept
JPEG_QUALITY = 80
MEL_SIZE = (640, 256)  # pixels
# Every browser plays MP3 from a data: address, Safari on old iPhones included, which FLAC and Ogg do not; at the best
# variable rate it takes a fifth of a wav's bytes. It has these rates alone: sounds of others go in as wav.
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Player:
    """A sound to be heard and its mel-spectrogram to be seen, both as `data:` addresses. seconds: its length. hertz:
    the spectrogram's upper edge."""

    sound: str
    mel: str
    seconds: float
    hertz: float


def player(path: Path, rate: int) -> Player:
    """A sound file to be played on a page, at `rate` samples a second. Raises SoundError as `read_sound` does."""
    samples = read_sound(path, rate)
    return Player(
        sound=sound_address(samples, rate),
        mel=mel_address(samples, rate),
        seconds=len(samples) / rate,
        hertz=rate / 2,
    )


def sound_address(samples: Float[np.ndarray, "samples"], rate: int) -> str:
    """Mono samples in -1..1 as MP3 of the best variable rate, or, at a rate that MP3 has not, as 16-bit wav."""
    file = io.BytesIO()
    if rate in MP3_RATES:
        soundfile.write(file, samples, rate, format="MP3", bitrate_mode="VARIABLE", compression_level=0.0)
        return _address("audio/mpeg", file)
    soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")
    return _address("audio/wav", file)


def mel_address(samples: Float[np.ndarray, "samples"], rate: int) -> str:
    """The mel-spectrogram of `generation.sound`, low notes at the bottom, no axes."""
    from matplotlib import colormaps  # takes a while

    mels_MT = mel_spectrogram(samples, rate)[::-1]
    colours_MT3 = colormaps["magma"](1 + mels_MT / DEEPEST_DB, bytes=True)[..., :3]
    return _drawn(Image.fromarray(colours_MT3).resize(MEL_SIZE, Image.Resampling.BILINEAR), "JPEG")


def picture_address(path: Path) -> tuple[str, int, int]:
    """A picture, upright, made smaller where it is large, with its width and height in pixels. Raises ImageError."""
    picture = read_image(path)
    picture.thumbnail((PICTURE_EDGE, PICTURE_EDGE), Image.Resampling.LANCZOS)
    return _drawn(picture, "PNG" if max(picture.size) < SMALL else "JPEG"), *picture.size


def find_picture(recorded: Path, checksum: str, beside: Sequence[Path]) -> Path:
    """The picture that a record names: where it lay then, or in one of the folders `beside` under the same name.

    Raises ImageError where none of these is the very same file.
    """
    places = [recorded, *(folder / recorded.name for folder in beside)]
    there = [place for place in places if is_regular(place)]
    for place in there:
        if sha256_of(place) == checksum:
            return place
    if there:
        raise ImageError(f"{there[0]} is another picture than the one that the sound was made of: bring that one back")
    raise ImageError(f"expected the picture at {recorded} or beside its sound, found none: bring it back")


def _drawn(picture: Image.Image, kind: str) -> str:
    file = io.BytesIO()
    picture.save(file, kind, **({"quality": JPEG_QUALITY} if kind == "JPEG" else {}))
    return _address(f"image/{kind.lower()}", file)


def _address(kind: str, file: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode()}"

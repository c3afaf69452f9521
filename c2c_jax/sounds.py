"""Sound files in, mono float32 at one rate out."""

import os
import re
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from c2c_jax.errors import SoundError, one_line

SOUND_SUFFIXES = tuple(".wav .flac .ogg .oga .opus .mp3 .aif .aiff .au .caf .w64".split())  # looked for in folders
BLOCK_FRAMES = 2**20  # read at once: of many channels only their mean is kept
RATES = (1000, 1_000_000)  # Hz; what a damaged header says beyond would be resampled to no end
MARGIN = 0.1  # seconds behind the last that is wanted: what the resampler looks ahead, and what encoders miscount
# A header that promises more bytes than there are; what was written into a pipe promises the most there can be.
PROMISED = re.compile(r"(\d+) \(should be (\d+)\)")
UNKNOWN_BYTES = 0x7FFF0000
OGG_PAGE = 65_307  # bytes, at most


def sound_files(folder: Path) -> list[Path]:
    """All sound files in a folder and the folders inside it, by their suffixes, sorted; hidden ones are passed over."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in SOUND_SUFFIXES)
    return sorted(folder / path for path in found if not any(part.startswith(".") for part in path.parts))


def read_sound(path: Path, sample_rate: int, max_seconds: float | None = None) -> Float[np.ndarray, "samples"]:
    """Reads one sound as float32 at `sample_rate` (Hz), full scale being -1 to 1: the mean of its channels, resampled
    by soxr's best quality.

    max_seconds: how much of its beginning is read; None: all of it. Raises SoundError for what is missing, empty,
    silent, truncated, damaged, no sound, or holds samples that are no numbers.
    """
    path = Path(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no file"
        raise SoundError(f"expected a sound at {path}, found {found}: name one sound file")
    if path.stat().st_size == 0:
        raise SoundError(f"{path} is empty (0 bytes): get the sound again")
    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:
            sound, rate = _mono(file, path, max_seconds), file.samplerate
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: raw samples, of which no header tells
        raise SoundError(f"{path} cannot be read as a sound ({one_line(error)}): get it again, or convert it") from None
    sound = resampled(sound, rate, sample_rate)
    return sound if max_seconds is None else sound[: round(max_seconds * sample_rate)]


def resampled(sound: Float[np.ndarray, "samples"], rate: int, wanted: int) -> Float[np.ndarray, "resampled"]:
    """A sound at another rate (Hz), by soxr's best quality."""
    return sound if rate == wanted else soxr.resample(sound, rate, wanted, quality="VHQ")


def _mono(file: soundfile.SoundFile, path: Path, max_seconds: float | None) -> Float[np.ndarray, "frames"]:
    """The mean of the channels at the file's own rate, checked."""
    if not RATES[0] <= file.samplerate <= RATES[1]:
        raise SoundError(f"{path} says {file.samplerate} samples a second: expected {RATES[0]} to {RATES[1]}")
    wanted = file.frames
    if max_seconds is not None:
        wanted = min(wanted, round((max_seconds + MARGIN) * file.samplerate))
    blocks, read = [np.zeros(0, np.float32)], 0
    while len(block := file.read(min(wanted - read, BLOCK_FRAMES), dtype="float32", always_2d=True)):
        blocks.append(block.mean(axis=1))
        read += len(block)
    sound = np.concatenate(blocks)
    missing = wanted - read > MARGIN * file.samplerate
    if missing or _promises_more(file.extra_info) or (file.format == "OGG" and not _has_end(path)):
        raise SoundError(f"{path} is truncated: it ends before what its header promises; get the sound again")
    if not len(sound):
        raise SoundError(f"{path} is empty (no samples): get the sound again")
    if not np.isfinite(sound).all():
        raise SoundError(f"{path} holds samples that are no numbers: get the sound again")
    if not sound.any():
        heard = "" if len(sound) == file.frames else f" in the {max_seconds:g} seconds that are heard"
        raise SoundError(f"{path} is silent{heard}: every sample is zero")
    return sound


def _promises_more(header: str) -> bool:
    """Whether a header, as libsndfile tells of it, has a size that is more than a few bytes beyond the file's end."""
    sizes = ((int(promised), int(found)) for promised, found in PROMISED.findall(header))
    return any(found + 16 < promised < UNKNOWN_BYTES for promised, found in sizes)


def _has_end(path: Path) -> bool:
    """Whether the last page of an Ogg file is whole and is marked as the last (RFC 3533, section 6)."""
    with open(path, "rb") as file:
        file.seek(max(path.stat().st_size - OGG_PAGE, 0))
        page = file.read().rpartition(b"OggS")[2]  # of which 23 more bytes are its head, then a size for each segment
    return len(page) >= 23 and bool(page[1] & 4) and len(page) >= 23 + page[22] + sum(page[23 : 23 + page[22]])

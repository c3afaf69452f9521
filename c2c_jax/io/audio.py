"""Reads sound files as mono float32 samples at a given sample rate."""

import dataclasses
import logging
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soxr
from jaxtyping import Bool, Float

from c2c_jax.errors import AudioError
from c2c_jax.io.codecs.containers import BrokenAudioError, Layout
from c2c_jax.io.codecs.decode import decode_blocks, read_layout
from c2c_jax.io.files import open_regular
from c2c_jax.io.formats import SUFFIXES, scan

INDEX = ".c2c-index"  # inside a folder of sounds: cached CLAP vectors for searches
AUDIO_SUFFIXES = SUFFIXES["sound"]
MIN_SECONDS = 0.05  # a shorter sound is a click, and sounds different when repeated to an encoder's length
MIN_LOUD_SECONDS = 0.01  # from the first to the last sample that is not silent; a shorter sound is a click too
# Longest part of a sound that is read, at most 256 MiB of mono samples.
MAX_SECONDS = 600.0
MAX_FRAMES = 2**25
MAX_SILENT_SAMPLES = (
    2**26
)  # samples of all channels that are searched for one that is not silent: 11 minutes of 48 kHz stereo
MARGIN = 0.1  # seconds read after the excerpt for the resampler
SILENCE = 2.0**-16  # amplitudes below this count as zero: half a step of 16-bit samples
MAX_AMPLITUDE = 100.0  # full scale is 1; larger samples are integers that a header calls floats
# Channels cancel if their mean has less than this fraction of the power that uncorrelated channels would give.
CANCELLED_POWER = 0.25
CANCELLED_FRACTION = 0.1  # of a sound's power in seconds whose channels cancel; above this only one channel is read

logger = logging.getLogger(__name__)


def log_note(note: str) -> None:
    """Logs a note about sounds as a warning."""
    logger.warning("note: %s", note)


def find_audio(folder: Path) -> list[Path]:
    """Finds all sound files in a folder and its subfolders, sorted; see `io.formats.scan`. Logs the number of skipped
    files."""
    result = scan(folder, "sound")
    if skipped := result.report():
        log_note(skipped)
    return result.files


def read_audio(
    path: Path, sample_rate: int, max_seconds: float | None = None, on_note: Callable[[str], None] = log_note
) -> Float[np.ndarray, "samples"]:
    """Reads one sound as float32 in -1..1 at `sample_rate` (Hz): the mean of its channels, resampled by soxr.

    max_seconds: how much is read; None: all, but at most ten minutes (`MAX_SECONDS`, `MAX_FRAMES`). If a longer sound
    starts with silence, whole seconds of silence are skipped. If the channels cancel each other, the loudest one is
    read. on_note: called with a line for each of these, and for wrong header fields; by default it is logged.
    Raises AudioError for a file that is missing, empty, silent, shorter than `MIN_SECONDS` (or `MIN_LOUD_SECONDS`
    without silence), truncated, damaged or not audio, or whose samples are not finite or out of range.
    """
    path, max_read = Path(path), min(float(max_seconds or MAX_SECONDS), MAX_SECONDS)
    with open_regular(path, "a sound file", AudioError, "pass a sound file") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            raise AudioError(f"{path} is empty (0 bytes): download or record the file again")
        try:
            layout = read_layout(file, size)
            excerpt = _excerpt(file, layout, max_read)
            if excerpt.loudest is not None:
                layout.notes.append(f"has channels that cancel each other; only channel {excerpt.loudest + 1} is read")
                excerpt = _excerpt(file, layout, max_read, excerpt.loudest)
        except BrokenAudioError as error:
            raise AudioError(f"{path} {error}{'' if ':' in str(error) else ': get it again, or convert it'}") from None
        except OSError as error:
            raise AudioError(f"{path} cannot be read ({error.strerror}): download or record the file again") from None
    samples = resample(excerpt.samples, excerpt.rate, sample_rate)[: round(excerpt.seconds * sample_rate)]
    if (seconds := len(samples) / sample_rate) < MIN_SECONDS:
        raise AudioError(f"{path} lasts {1000 * seconds:.3g} ms: expected at least {1000 * MIN_SECONDS:g} ms")
    loud = np.flatnonzero(np.abs(excerpt.samples) >= SILENCE)
    if len(loud) and (seconds := (loud[-1] + 1 - loud[0]) / excerpt.rate) < MIN_LOUD_SECONDS:
        raise AudioError(
            f"{path} is silent except for {1000 * seconds:.3g} ms: expected at least {1000 * MIN_LOUD_SECONDS:g} ms of "
            "sound"
        )
    if excerpt.start:
        layout.notes.append(f"is silent for its first {excerpt.start:g} s, which are skipped")
    if excerpt.is_cut and (max_seconds is None or excerpt.seconds < max_seconds):
        layout.notes.append(f"is longer than the limit for one sound; only {excerpt.seconds:g} s are read")
    for note in dict.fromkeys(layout.notes):
        on_note(f"{path} {note}")
    return samples


def resample(samples: Float[np.ndarray, "samples"], rate: int, new_rate: int) -> Float[np.ndarray, "resampled"]:
    """Resamples a sound to another rate (Hz) with soxr's best quality."""
    return samples if rate == new_rate else soxr.resample(samples, rate, new_rate, quality="VHQ")


@dataclasses.dataclass
class _Excerpt:
    """A part of a sound. samples: mono at `rate`, up to `MARGIN` longer than `seconds`. start: in seconds. is_cut:
    whether the sound is longer. loudest: the loudest channel if channels cancel each other, else None."""

    samples: Float[np.ndarray, "frames"]
    rate: int
    seconds: float
    start: float
    is_cut: bool
    loudest: int | None


def _excerpt(file: BinaryIO, layout: Layout, max_seconds: float, channel: int | None = None) -> _Excerpt:
    """Reads up to `max_seconds`, and skips whole silent seconds at the start of a longer sound. channel: the channel to
    read; None: the mean of all. Raises BrokenAudioError."""
    kept: deque[np.ndarray] = deque()
    dropped = total = rate = wanted = 0  # frames
    first_loud, is_cut, cancelled, power_C = None, False, 0.0, np.zeros(1)
    for rate, block_FC in decode_blocks(file, layout, max_seconds + MARGIN):
        peak = _peak(block_FC)
        seconds = min(max_seconds, MAX_FRAMES / rate)
        wanted = round((seconds + MARGIN) * rate)
        if first_loud is None and peak >= SILENCE:
            first_loud = total + int((np.abs(block_FC) >= SILENCE).any(axis=1).argmax())
        mono_F = block_FC.mean(axis=1) if channel is None else block_FC[:, channel].copy()
        if block_FC.shape[1] > 1 and channel is None:
            power_SC, cancelled_S = _powers(block_FC, mono_F, rate)
            power_C, cancelled = power_C + power_SC.sum(axis=0), cancelled + power_SC[cancelled_S].sum()
        kept.append(mono_F)
        total += len(mono_F)
        if first_loud is None:
            while total - dropped - len(kept[0]) >= max(wanted, rate):
                dropped += len(kept.popleft())
            if total * block_FC.shape[1] >= MAX_SILENT_SAMPLES:
                break
        elif total >= first_loud // rate * rate + wanted:
            is_cut = True
            break
    if not total:
        raise BrokenAudioError("is empty (no samples): download or record the file again")
    if first_loud is None:
        seconds = total / rate
        raise BrokenAudioError(f"is silent: no sample of its first {seconds:g} s reaches 2^-16 of full scale")
    start = first_loud // rate * rate
    if not is_cut:
        start = max(min(start, total - round(seconds * rate)), 0)
    samples = np.concatenate(kept)[start - dropped :][:wanted]
    loudest = int(power_C.argmax()) if cancelled > CANCELLED_FRACTION * power_C.sum() else None
    return _Excerpt(samples, rate, seconds, start / rate, is_cut, loudest)


def _peak(block_FC: Float[np.ndarray, "F C"]) -> float:
    """Returns the largest amplitude. Raises BrokenAudioError if it is not finite or out of range."""
    peak = max(block_FC.max(), -block_FC.min())  # NaN if any sample is
    if not np.isfinite(peak):
        raise BrokenAudioError("contains samples that are not numbers: download or record the file again")
    if peak > MAX_AMPLITUDE:
        raise BrokenAudioError(f"has samples of {peak:,.0f}, but full scale is 1: divide them, or convert the sound")
    return float(peak)


def _powers(
    block_FC: Float[np.ndarray, "F C"], mono_F: Float[np.ndarray, "F"], rate: int
) -> tuple[Float[np.ndarray, "S C"], Bool[np.ndarray, "S"]]:
    """Returns the power of each channel in each second, and whether the channels cancel in that second."""
    seconds = [slice(start, start + rate) for start in range(0, len(mono_F), rate)]
    power_SC = np.stack([np.einsum("fc,fc->c", block_FC[second], block_FC[second]) for second in seconds]).astype(
        np.float64
    )
    mean_S = np.array([mono_F[second] @ mono_F[second] for second in seconds], np.float64)
    return power_SC, mean_S * block_FC.shape[1] ** 2 < CANCELLED_POWER * power_SC.sum(axis=1)

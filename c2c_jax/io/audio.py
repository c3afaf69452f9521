"""Sound files in, mono float32 at one rate out."""

import dataclasses
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
from c2c_jax.io.codecs.decode import blocks_of, layout_of
from c2c_jax.io.console import stderr_console
from c2c_jax.io.files import open_regular
from c2c_jax.io.formats import SUFFIXES, scan

INDEX = ".c2c-index"  # in a folder of sounds: what searches know of them, one for each CLAP
AUDIO_SUFFIXES = SUFFIXES["sound"]
MIN_SECONDS = 0.05  # a shorter sound is a click: repeated to the length that an encoder takes, it is another sound
MIN_LOUD = 0.01  # seconds from the first sample that is not silent to the last one: less is a click as well
# What is read of one sound, at most: mono samples of 256 MiB at most, however little the file takes on the disk.
MAX_SECONDS = 600.0
MAX_FRAMES = 2**25
SEARCHED = 2**26  # samples of all channels that are searched for one that is not silent: 11 minutes of 48 kHz stereo
MARGIN = 0.1  # seconds behind the last that is wanted, which the resampler looks at
SILENCE = 2.0**-16  # half a step of 16 bits: an amplitude that is as good as zero
LOUDEST = 100.0  # amplitude; full scale is 1. Samples beyond are integers that a header calls floats
# Channels that cancel: their mean has less than this part of the power that it has where they have nothing in common.
CANCELLED = 0.25
CANCELLED_PART = 0.1  # of a sound's power, in seconds in which channels cancel: beyond it one channel is read


def report(note: str) -> None:
    """Prints a note on sounds to stderr."""
    stderr_console().print(f"note: {note}")


def find_audio(folder: Path, on_note: Callable[[str], None] = report) -> list[Path]:
    """All sound files in a folder and the folders inside it, sorted, see `io.formats.scan`. on_note: called with a line
    that counts the files that were passed over, if there are any."""
    found = scan(folder, "sound")
    if passed_over := found.report():
        on_note(passed_over)
    return found.files


def read_audio(
    path: Path, sample_rate: int, max_seconds: float | None = None, on_note: Callable[[str], None] = report
) -> Float[np.ndarray, "samples"]:
    """Reads one sound as float32 at `sample_rate` (Hz), full scale being -1 to 1: the mean of its channels, resampled
    by soxr's best quality.

    max_seconds: how much is read; None: all, but at most the first ten minutes (`MAX_SECONDS`, `MAX_FRAMES`). If a
    longer sound starts with silence, whole seconds of it are skipped. If the channels cancel each other, the loudest
    one is read. on_note: called with a line for each of these, and for wrong header fields. Raises SoundError for files
    that are missing, empty, silent, shorter than `MIN_SECONDS` (but for silence: than `MIN_LOUD`), truncated, damaged
    or not audio, or whose samples are not finite or out of range.
    """
    path, wanted = Path(path), min(float(max_seconds or MAX_SECONDS), MAX_SECONDS)
    with open_regular(path, "a sound file", AudioError, "pass a sound file") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            raise AudioError(f"{path} is empty (0 bytes): get the sound again")
        try:
            layout = layout_of(file, size)
            excerpt = _excerpt(file, layout, wanted)
            if excerpt.loudest is not None:
                layout.notes.append(
                    f"has channels that cancel each other; of them number {excerpt.loudest + 1} is read"
                )
                excerpt = _excerpt(file, layout, wanted, excerpt.loudest)
        except BrokenAudioError as error:
            raise AudioError(f"{path} {error}{'' if ':' in str(error) else ': get it again, or convert it'}") from None
        except OSError as error:
            raise AudioError(f"{path} cannot be read ({error.strerror}): get the sound again") from None
    sound = resampled(excerpt.sound, excerpt.rate, sample_rate)[: round(excerpt.seconds * sample_rate)]
    if (lasts := len(sound) / sample_rate) < MIN_SECONDS:
        raise AudioError(f"{path} lasts {1000 * lasts:.3g} ms: expected {1000 * MIN_SECONDS:g} ms at least")
    loud = np.flatnonzero(np.abs(excerpt.sound) >= SILENCE)
    if len(loud) and (lasts := (loud[-1] + 1 - loud[0]) / excerpt.rate) < MIN_LOUD:
        raise AudioError(
            f"{path} is silent but for {1000 * lasts:.3g} ms: expected {1000 * MIN_LOUD:g} ms of sound at least"
        )
    if excerpt.start:
        layout.notes.append(f"is silent for its first {excerpt.start:g} s; it is read from there")
    if excerpt.is_cut and (max_seconds is None or excerpt.seconds < max_seconds):
        layout.notes.append(f"is longer than what is read of one sound; {excerpt.seconds:g} s of it are read")
    for note in dict.fromkeys(layout.notes):
        on_note(f"{path} {note}")
    return sound


def resampled(sound: Float[np.ndarray, "samples"], rate: int, wanted: int) -> Float[np.ndarray, "resampled"]:
    """A sound at another rate (Hz), by soxr's best quality."""
    return sound if rate == wanted else soxr.resample(sound, rate, wanted, quality="VHQ")


@dataclasses.dataclass
class _Excerpt:
    """A part of a sound. sound: mono samples at `rate`, up to `MARGIN` more than the `seconds` that are wanted. start:
    in seconds. is_cut: whether there is more behind it. loudest: of the channels, where they cancel; else None."""

    sound: Float[np.ndarray, "frames"]
    rate: int
    seconds: float
    start: float
    is_cut: bool
    loudest: int | None


def _excerpt(file: BinaryIO, layout: Layout, max_seconds: float, channel: int | None = None) -> _Excerpt:
    """channel: the one that is read; None: the mean of all. Raises BrokenSoundError."""
    kept: deque[np.ndarray] = deque()
    before = total = rate = wanted = 0  # before: frames that are kept no more
    first_sound, is_cut, cancelled, power_C = None, False, 0.0, np.zeros(1)
    for rate, block_FC in blocks_of(file, layout, max_seconds + MARGIN):
        peak = _peak(block_FC)
        seconds = min(max_seconds, MAX_FRAMES / rate)
        wanted = round((seconds + MARGIN) * rate)
        if first_sound is None and peak >= SILENCE:
            first_sound = total + int((np.abs(block_FC) >= SILENCE).any(axis=1).argmax())
        mono_F = block_FC.mean(axis=1) if channel is None else block_FC[:, channel].copy()
        if block_FC.shape[1] > 1 and channel is None:
            power_SC, cancelled_S = _powers(block_FC, mono_F, rate)
            power_C, cancelled = power_C + power_SC.sum(axis=0), cancelled + power_SC[cancelled_S].sum()
        kept.append(mono_F)
        total += len(mono_F)
        if first_sound is None:
            while total - before - len(kept[0]) >= max(wanted, rate):
                before += len(kept.popleft())
            if total * block_FC.shape[1] >= SEARCHED:
                break
        elif total >= first_sound // rate * rate + wanted:
            is_cut = True
            break
    if not total:
        raise BrokenAudioError("is empty (no samples): get the sound again")
    if first_sound is None:
        seconds = total / rate
        raise BrokenAudioError(f"is silent: no sample of its first {seconds:g} s reaches 2^-16 of full scale")
    start = first_sound // rate * rate
    if not is_cut:
        start = max(min(start, total - round(seconds * rate)), 0)
    sound = np.concatenate(kept)[start - before :][:wanted]
    loudest = int(power_C.argmax()) if cancelled > CANCELLED_PART * power_C.sum() else None
    return _Excerpt(sound, rate, seconds, start / rate, is_cut, loudest)


def _peak(block_FC: Float[np.ndarray, "F C"]) -> float:
    """The largest amplitude. Raises BrokenSoundError where it is not a number or out of range."""
    peak = max(block_FC.max(), -block_FC.min())  # NaN where there is one
    if not np.isfinite(peak):
        raise BrokenAudioError("holds samples that are not numbers: get the sound again")
    if peak > LOUDEST:
        raise BrokenAudioError(f"holds samples of {peak:,.0f} where full scale is 1: divide them, or convert the sound")
    return float(peak)


def _powers(
    block_FC: Float[np.ndarray, "F C"], mono_F: Float[np.ndarray, "F"], rate: int
) -> tuple[Float[np.ndarray, "S C"], Bool[np.ndarray, "S"]]:
    """The power of each channel in each second, and in which of them the channels cancel."""
    seconds = [slice(start, start + rate) for start in range(0, len(mono_F), rate)]
    power_SC = np.stack([np.einsum("fc,fc->c", block_FC[one], block_FC[one]) for one in seconds]).astype(np.float64)
    mean_S = np.array([mono_F[one] @ mono_F[one] for one in seconds], np.float64)
    return power_SC, mean_S * block_FC.shape[1] ** 2 < CANCELLED * power_SC.sum(axis=1)

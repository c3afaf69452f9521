"""Sound files, pictures of them, and what is wrong with a sound."""

import math
import os
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float

from c2c_jax.errors import GenerationError, one_line
from c2c_jax.io.atomic import atomic_write
from c2c_jax.io.console import printable

FORMATS = ("wav", "flac")
SILENT_PEAK = 1e-3  # −60 dB of full scale
FULL_SCALE, CLIPPED_SHARE = 0.999, 1e-3
MELS, FFT, HOP = 128, 1024, 160  # of the picture: mel bins, samples of a window, samples between windows
MAX_TITLE_CHARACTERS = 90  # of its title
DEEPEST_DB = 80.0  # below the loudest point, the picture's darkest


def write_audio(path: str | Path, samples: Float[np.ndarray, " samples"], sample_rate: int) -> None:
    """Writes mono sound in -1..1 as 16-bit wav or flac, by the path's suffix, whole or not at all; louder samples are
    clipped.

    Raises GenerationError for another suffix, and where the file cannot be written.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise GenerationError(f"{path} ends in {path.suffix or 'nothing'}: take .{' or .'.join(FORMATS)}")
    # Rounded here: libsndfile's writers of wav and flac round floats each in its own way.
    whole = np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16)
    try:
        with atomic_write(path) as beside:
            with soundfile.SoundFile(
                os.fsencode(beside), "w", sample_rate, channels=1, subtype="PCM_16", format=kind.upper()
            ) as file:
                file.software = SOFTWARE
                file.write(whole)
    except (OSError, soundfile.LibsndfileError) as error:
        raise GenerationError(f"{path} cannot be written ({one_line(error)}): choose another place") from error


def defects(samples: Float[np.ndarray, " samples"]) -> list[str]:
    """What a listener should be told of a sound in -1..1: that it is silent, or clipped."""
    told = []
    peak = float(np.abs(samples).max())
    if peak < SILENT_PEAK:
        told.append(f"silent: its peak is {peak:.2g} of full scale")
    share = float(np.mean(np.abs(samples) >= FULL_SCALE))
    if share > CLIPPED_SHARE:
        told.append(f"clipped: {share:.1%} of its samples are at full scale")
    return told


def mel_spectrogram(samples: Float[np.ndarray, " samples"], sample_rate: int) -> Float[np.ndarray, "M T"]:
    """Power in decibels below the loudest point, [mel bins, frames], not below −80: Slaney's mel scale up to half the
    sample rate, Hann windows of 1,024 samples, 160 apart, centred."""
    from transformers.audio_utils import mel_filter_bank, power_to_db, spectrogram, window_function

    filters = mel_filter_bank(FFT // 2 + 1, MELS, 0.0, sample_rate / 2, sample_rate, norm="slaney", mel_scale="slaney")
    window = window_function(FFT, "hann")
    padded = np.pad(samples, (0, max(FFT - len(samples), 0)))  # a window at least
    power_MT = spectrogram(padded, window, FFT, HOP, power=2.0, mel_filters=filters, mel_floor=1e-12)
    decibels_MT = power_to_db(power_MT, reference=max(float(power_MT.max()), 1e-10))
    return np.maximum(decibels_MT, -DEEPEST_DB).astype(np.float32)


def draw_mel_spectrogram(path: Path, samples: Float[np.ndarray, " samples"], sample_rate: int, title: str = "") -> None:
    """Writes the mel-spectrogram as a picture with seconds and hertz on its axes, whole or not at all."""
    from matplotlib.figure import Figure  # takes a while

    mels_MT = mel_spectrogram(samples, sample_rate)
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    seconds = len(samples) / sample_rate
    shown = axes.imshow(
        mels_MT, origin="lower", aspect="auto", cmap="magma", vmin=-DEEPEST_DB, vmax=0, extent=(0, seconds, 0, MELS)
    )
    hertz = [f for f in (250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0, 16_000.0) if f <= sample_rate / 2]
    axes.set_yticks([_mel(f) / _mel(sample_rate / 2) * MELS for f in hertz], [f"{f:,.0f}" for f in hertz])
    axes.set(xlabel="seconds", ylabel="hertz")
    axes.set_title(drawable(title), parse_math=False)
    figure.colorbar(shown, label="dB")
    with atomic_write(path) as beside:
        figure.savefig(beside, dpi=100)


def drawable(text: str) -> str:
    """Text on one line of at most MAX_TITLE_CHARACTERS, with a square for each that matplotlib's font lacks."""
    from matplotlib import font_manager

    text = printable(text)
    text = text if len(text) <= MAX_TITLE_CHARACTERS else f"{text[: MAX_TITLE_CHARACTERS - 1]}…"
    letters = font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap()
    return "".join(letter if ord(letter) in letters else "\N{WHITE SQUARE}" for letter in text)


def _mel(hertz: float) -> float:
    """Slaney's scale: linear to 1 kHz, logarithmic beyond (Auditory Toolbox)."""
    return 3 * hertz / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)


SOFTWARE = "c2c_jax"  # in the metadata of every sound file that is written

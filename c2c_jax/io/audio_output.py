"""Writes sound files and images of their spectrograms, and detects silent or clipped sounds."""

import io
import math
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float
from PIL import Image

from c2c_jax.errors import GenerationError, one_line
from c2c_jax.io.atomic import atomic_write
from c2c_jax.io.console import printable
from c2c_jax.io.extras import import_transformers

FORMATS = ("wav", "flac")
SILENT_PEAK = 1e-3  # −60 dB of full scale
FULL_SCALE, CLIPPED_FRACTION = 0.999, 1e-3
MELS, FFT, HOP = 128, 1024, 160  # of spectrograms: mel bins, samples per window, hop length
MAX_TITLE_CHARACTERS = 90
DYNAMIC_RANGE_DB = 80.0  # of spectrograms: quieter points are raised to this far below the loudest
SOFTWARE = "c2c_jax"  # metadata of written sound files


def write_audio(path: str | Path, samples: Float[np.ndarray, " samples"], sample_rate: int) -> None:
    """Writes mono samples in -1..1 atomically as 16-bit wav or flac, chosen by suffix; larger samples are clipped.

    Raises GenerationError for another suffix, and if the file cannot be written.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise GenerationError(f"{path} ends in {path.suffix or 'nothing'}: use .{' or .'.join(FORMATS)}")
    # Rounded here, because libsndfile rounds floats differently for wav and flac.
    samples_16_bit = np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16)
    content = io.BytesIO()  # libsndfile cannot open every name on every system
    try:
        with soundfile.SoundFile(content, "w", sample_rate, channels=1, subtype="PCM_16", format=kind.upper()) as file:
            file.software = SOFTWARE
            file.write(samples_16_bit)
        with atomic_write(path) as temp:
            temp.write_bytes(content.getvalue())
    except (OSError, soundfile.LibsndfileError) as error:
        raise GenerationError(f"{path} cannot be written ({one_line(error)}): choose another place") from error


def defects(samples: Float[np.ndarray, " samples"]) -> list[str]:
    """Says whether a sound in -1..1 is silent or clipped, in a list of phrases; [] if neither."""
    problems = []
    peak = float(np.abs(samples).max())
    if peak < SILENT_PEAK:
        problems.append(f"silent: its peak is {peak:.2g} of full scale")
    fraction = float(np.mean(np.abs(samples) >= FULL_SCALE))
    if fraction > CLIPPED_FRACTION:
        problems.append(f"clipped: {fraction:.1%} of its samples are at full scale")
    return problems


def mel_spectrogram(samples: Float[np.ndarray, " samples"], sample_rate: int) -> Float[np.ndarray, "M T"]:
    """Computes a mel spectrogram [mel bins, frames] in decibels relative to the loudest point, at least −80.

    Slaney's mel scale up to half the sample rate, centred Hann windows of 1,024 samples, hop length 160.
    """
    import_transformers()
    from transformers.audio_utils import mel_filter_bank, power_to_db, spectrogram, window_function

    filters = mel_filter_bank(FFT // 2 + 1, MELS, 0.0, sample_rate / 2, sample_rate, norm="slaney", mel_scale="slaney")
    window = window_function(FFT, "hann")
    padded = np.pad(samples, (0, max(FFT - len(samples), 0)))  # at least one window
    power_MT = spectrogram(padded, window, FFT, HOP, power=2.0, mel_filters=filters, mel_floor=1e-12)
    decibels_MT = power_to_db(power_MT, reference=max(float(power_MT.max()), 1e-10))
    return np.maximum(decibels_MT, -DYNAMIC_RANGE_DB).astype(np.float32)


def mel_image(samples: Float[np.ndarray, " samples"], sample_rate: int, title: str = "") -> Image.Image:
    """Draws the mel spectrogram as an image, with seconds and hertz on its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure

    mels_MT = mel_spectrogram(samples, sample_rate)
    figure = Figure(figsize=(8, 3), dpi=100, layout="constrained")
    axes = figure.subplots()
    seconds = len(samples) / sample_rate
    image = axes.imshow(
        mels_MT,
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=-DYNAMIC_RANGE_DB,
        vmax=0,
        extent=(0, seconds, 0, MELS),
    )
    hertz = [f for f in (250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0, 16_000.0) if f <= sample_rate / 2]
    axes.set_yticks([_mel(f) / _mel(sample_rate / 2) * MELS for f in hertz], [f"{f:,.0f}" for f in hertz])
    axes.set(xlabel="seconds", ylabel="hertz")
    axes.set_title(plot_title(title), parse_math=False)
    figure.colorbar(image, label="dB")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def draw_mel_spectrogram(path: Path, samples: Float[np.ndarray, " samples"], sample_rate: int, title: str = "") -> None:
    """Writes the image of the mel spectrogram as a file."""
    with atomic_write(path) as temp:
        mel_image(samples, sample_rate, title).save(temp, format="png")


def plot_title(text: str) -> str:
    """Shortens text to one line of MAX_TITLE_CHARACTERS. Characters that matplotlib's font lacks become squares."""
    from matplotlib import font_manager

    text = printable(text)
    text = text if len(text) <= MAX_TITLE_CHARACTERS else f"{text[: MAX_TITLE_CHARACTERS - 1]}…"
    glyphs = font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap()
    return "".join(letter if ord(letter) in glyphs else "\N{WHITE SQUARE}" for letter in text)


def _mel(hertz: float) -> float:
    """Converts hertz to Slaney's mel scale: linear to 1 kHz, logarithmic above (Auditory Toolbox)."""
    return 3 * hertz / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)

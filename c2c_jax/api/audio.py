"""A generated sound, which can be saved, drawn, and played in a notebook."""

import base64
import dataclasses
import io
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float
from PIL import Image

from c2c_jax.api.messages import flags_to_arguments
from c2c_jax.io.audio_output import defects, mel_image, write_audio


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Audio:
    """A mono sound.

    samples: float32 [n] in −1..1. sample_rate: samples per second. clap_vector: the unit CLAP vector [E] that the sound
    was generated from. clap_score: cosine of `clap_vector` and the CLAP vector of the sound itself; None if no CLAP
    with an audio tower is available. seed: seed of the initial noise.
    """

    samples: Float[np.ndarray, "n"]
    sample_rate: int
    clap_vector: Float[np.ndarray, "E"]
    clap_score: float | None = None
    seed: int = 0

    def __repr__(self) -> str:
        score = "" if self.clap_score is None else f", clap_score={self.clap_score:.3f}"
        return f"Audio({self.seconds:.2f} s, {self.sample_rate:,} Hz{score}, seed={self.seed})"

    @property
    def seconds(self) -> float:
        """The duration in seconds."""
        return len(self.samples) / self.sample_rate

    @property
    def defects(self) -> list[str]:
        """Phrases that say whether the sound is silent or clipped; empty if it is neither."""
        return defects(self.samples)

    @flags_to_arguments
    def save(self, path: str | Path) -> Path:
        """Writes a 16-bit `.wav` or `.flac` file, and returns its path. Raises GenerationError for another suffix, and
        if the file cannot be written."""
        path = Path(path).expanduser()
        write_audio(path, self.samples, self.sample_rate)
        return path

    def spectrogram(self, title: str = "") -> Image.Image:
        """Draws the mel spectrogram as an image of 800 by 300 pixels, which a notebook shows."""
        return mel_image(self.samples, self.sample_rate, title)

    def _repr_html_(self) -> str:
        """A player for notebooks."""
        file = io.BytesIO()
        soundfile.write(file, np.clip(self.samples, -1, 1), self.sample_rate, format="WAV", subtype="PCM_16")
        data = base64.b64encode(file.getvalue()).decode("ascii")
        return f'<audio controls src="data:audio/wav;base64,{data}"></audio>'

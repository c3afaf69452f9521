"""Ranks sounds by the cosine of their CLAP vectors to a given one, as AudioLDM's own program does."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from c2c_jax.errors import BundleError
from c2c_jax.io.audio import resample
from c2c_jax.spaces.space import Space, load_space
from c2c_jax.translator.inference import PROBE, is_same_direction


class Ranker:
    """Scores sounds with a CLAP that has a text and an audio tower."""

    def __init__(self, clap: str | Path | Space):
        """clap: a loaded space, or its name as for `load_space`. Raises CheckpointError, also if the CLAP has no audio
        tower."""
        self.space = clap if isinstance(clap, Space) else load_space(clap)
        self.mels = self.space.require_audio_preprocessor()

    def require_same_space(self, expected_E: Float[np.ndarray, "E"]) -> None:
        """Raises BundleError unless this CLAP encodes the text PROBE as `expected_E`, the generator's vector: cosines
        between vectors of two CLAPs are meaningless."""
        (actual_E,) = self.space.encode_text([PROBE])
        if not is_same_direction(actual_E, expected_E):
            raise BundleError(
                f"{self.space.name} is another CLAP than the one that conditions the generator; its cosines would be "
                "meaningless: pass the CLAP that the generator was trained with, or leave out --ranker"
            )

    def vectors(self, audio_BS: Float[np.ndarray, "B samples"], sample_rate: int) -> Float[np.ndarray, "B E"]:
        """Encodes sounds in -1..1 as unit CLAP vectors. Sounds longer than the tower's input are cut, unless it has
        fusion."""
        clips = [resample(samples, sample_rate, self.mels.sample_rate) for samples in audio_BS]
        vectors_BE = self.space.encode_audio(clips)
        return vectors_BE / np.linalg.norm(vectors_BE, axis=1, keepdims=True)

    def scores(
        self, audio_BS: Float[np.ndarray, "B samples"], sample_rate: int, clap_E: Float[np.ndarray, "E"]
    ) -> Float[np.ndarray, "B"]:
        """Returns the cosine of each sound's CLAP vector to `clap_E`."""
        return self.vectors(audio_BS, sample_rate) @ (clap_E / np.linalg.norm(clap_E))

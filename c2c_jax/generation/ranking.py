"""Scores sounds by how well they fit a CLAP vector, by CLAP's audio tower, as AudioLDM's own program does."""

import numpy as np
from jaxtyping import Float

from c2c_jax.errors import BundleError
from c2c_jax.io.audio import resample
from c2c_jax.spaces.space import load_space
from c2c_jax.translator.inference import PROBE, is_same_direction


class Ranker:
    """A whole CLAP, text and audio tower."""

    def __init__(self, name: str):
        """name: as for `load_space`. Raises CheckpointError, also for a CLAP that has no audio tower."""
        self.space = load_space(name)
        self.mels = self.space.require_audio_preprocessor()

    def require_same_space(self, expected_E: Float[np.ndarray, "E"]) -> None:
        """Raises BundleError unless this CLAP gives the text PROBE the vector `expected_E`, the generator's: cosines
        between two CLAPs mean nothing."""
        (found_E,) = self.space.encode_text([PROBE])
        if not is_same_direction(found_E, expected_E):
            raise BundleError(
                f"{self.space.name} is another CLAP than the one that conditions the generator: its cosines would mean "
                "nothing; pass the CLAP that the generator was trained with, or rank by ear"
            )

    def vectors(self, sounds_BS: Float[np.ndarray, "B samples"], sample_rate: int) -> Float[np.ndarray, "B E"]:
        """Unit CLAP vectors of sounds in -1..1. Of a sound longer than the tower takes, the beginning is encoded; a
        tower with fusion encodes all of it."""
        vectors_BE = self.space.encode_audio([resample(one, sample_rate, self.mels.sample_rate) for one in sounds_BS])
        return vectors_BE / np.linalg.norm(vectors_BE, axis=1, keepdims=True)

    def scores(
        self, sounds_BS: Float[np.ndarray, "B samples"], sample_rate: int, clap_E: Float[np.ndarray, "E"]
    ) -> Float[np.ndarray, "B"]:
        """Cosine of each sound's CLAP vector to one vector."""
        return self.vectors(sounds_BS, sample_rate) @ (clap_E / np.linalg.norm(clap_E))

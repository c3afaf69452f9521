"""Which of several sounds fits a CLAP vector best, by CLAP's audio tower, as AudioLDM's own program chooses."""

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.signal import resample_poly
from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

from c2c_jax.errors import BundleError
from c2c_jax.generation.checkpoint import load_model, load_part, quiet_loading

PROBE = "a sound"
SAME = 0.999  # cosine of one text's vectors by two copies of one tower, rounding apart


class Ranker:
    """A whole CLAP (text and audio tower) in transformers' layout, such as `laion/clap-htsat-unfused`."""

    def __init__(self, folder: Path, device: str | None = None):
        """Loads a local folder in float32. Raises CheckpointError."""
        self.folder = folder
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        with quiet_loading():
            self.model = load_model(ClapModel, folder, torch.float32).to(self.device)
            self.extractor = load_part(ClapFeatureExtractor, folder)
            self.tokenizer = load_part(AutoTokenizer, folder)

    @torch.inference_mode()
    def require_same_space(self, expected_E: Float[np.ndarray, "E"]) -> None:
        """expected: the generator's unit vector of the text PROBE. Raises BundleError where this CLAP's own differs, so
        that cosines between the two would mean nothing."""
        tokens = self.tokenizer([PROBE], return_tensors="pt").to(self.device)
        found_E = self.model.get_text_features(**tokens).pooler_output[0].cpu().numpy()
        if found_E.shape != expected_E.shape or float(found_E @ expected_E) / np.linalg.norm(found_E) < SAME:
            raise BundleError(
                f"{self.folder} is another CLAP than the one that conditions the generator: its cosines would mean "
                "nothing; pass the CLAP that the generator was trained with, or rank by ear"
            )

    @torch.inference_mode()
    def vectors(self, sounds_BS: Float[np.ndarray, "B samples"], sample_rate: int) -> Float[np.ndarray, "B E"]:
        """Unit CLAP vectors of sounds in -1..1. Of what is longer than the tower takes, the beginning is heard."""
        rate = self.extractor.sampling_rate
        common = math.gcd(rate, sample_rate)
        heard_BS = resample_poly(sounds_BS, rate // common, sample_rate // common, axis=1)[
            :, : self.extractor.nb_max_samples
        ]
        features = self.extractor(list(heard_BS.astype(np.float32)), sampling_rate=rate, return_tensors="pt")
        features["is_longer"] = torch.zeros_like(features["is_longer"])  # transformers marks one of a batch at random
        vectors_BE = self.model.get_audio_features(**features.to(self.device)).pooler_output
        return torch.nn.functional.normalize(vectors_BE, dim=-1).cpu().numpy()

    def scores(
        self, sounds_BS: Float[np.ndarray, "B samples"], sample_rate: int, clap_E: Float[np.ndarray, "E"]
    ) -> Float[np.ndarray, "B"]:
        """Cosine of each sound's CLAP vector to one vector."""
        return self.vectors(sounds_BS, sample_rate) @ (clap_E / np.linalg.norm(clap_E))

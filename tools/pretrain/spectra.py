"""Mel-spectrograms for AudioLDM's networks."""

import numpy as np
import torch
from jaxtyping import Float

from c2c_jax.generation.griffin_lim import filters

SAMPLE_RATE, SAMPLES, FFT, HOP, MELS = 16_000, 40_960, 1024, 160, 64
FLOOR = 1e-5  # minimum amplitude before the logarithm


def log_mel(audio_BS: Float[torch.Tensor, "B samples"]) -> Float[torch.Tensor, "B T M"]:
    """Computes natural-log mel amplitudes as in HiFi-GAN (Kong et al. 2020), with a hop length of 160 samples."""
    padded = torch.nn.functional.pad(audio_BS[:, None], ((FFT - HOP) // 2,) * 2, mode="reflect")[:, 0]
    spectrum = torch.stft(padded, FFT, HOP, FFT, torch.hann_window(FFT), center=False, return_complex=True)
    amplitude_BTK = torch.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-9).transpose(1, 2)
    filters_KM = torch.from_numpy(filters(MELS, SAMPLE_RATE, FFT).astype(np.float32))
    return torch.log(torch.clamp(amplitude_BTK @ filters_KM, min=FLOOR))

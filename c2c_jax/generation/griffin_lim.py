"""A vocoder without weights: converts mel-spectrograms to sound by estimating phases."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from transformers.audio_utils import mel_filter_bank

BATCH = 8  # sounds whose phases are estimated together


class GriffinLim(ModelMixin, ConfigMixin):
    """A drop-in replacement for SpeechT5HifiGan; diffusers can load it if c2c_jax is installed.

    Magnitudes are computed with the pseudo-inverse of the mel filters, phases with the fast Griffin-Lim algorithm
    (Perraudin et al. 2013, momentum 0.99) from fixed random initial phases. Its config has the fields of
    SpeechT5HifiGan's that pipelines read.
    """

    @register_to_config
    def __init__(
        self,
        model_in_dim: int = 64,
        sampling_rate: int = 16_000,
        upsample_rates: Sequence[int] = (160,),
        fft: int = 1024,
        iterations: int = 64,
    ):
        """model_in_dim: number of mel bins (Slaney's filters, 0 Hz to sampling_rate / 2). sampling_rate: in Hz.
        upsample_rates: their product is the hop length. fft: length of the Hann window, in samples."""
        super().__init__()
        if not math.prod(upsample_rates) <= fft - 2:  # windows overlap
            raise ValueError(f"upsample_rates {upsample_rates} give a hop as long as the window of {fft} samples")
        inverse_MK = np.linalg.pinv(filters(model_in_dim, sampling_rate, fft))
        self.register_buffer("inverse_MK", torch.from_numpy(inverse_MK.astype(np.float32)))

    def forward(self, spectrogram: Float[torch.Tensor, "*B T M"]) -> Float[torch.Tensor, "*B samples"]:
        """Converts natural-log mel spectrograms [B, T, M] or [T, M] to float32 waveforms [B, samples] or [samples]."""
        mel_BTM = spectrogram.float() if spectrogram.dim() == 3 else spectrogram.float()[None]
        magnitude_BKT = (torch.exp(mel_BTM) @ self.inverse_MK.float()).clamp(min=0).transpose(1, 2)
        # In small batches: on a CPU, a batch of 64 takes three times as long a sound, mostly for memory.
        audio_BS = torch.cat([self._estimate_phases(part) for part in magnitude_BKT.split(BATCH)])
        return audio_BS if spectrogram.dim() == 3 else audio_BS[0]

    def _estimate_phases(self, magnitude_BKT: Float[torch.Tensor, "B K T"]) -> Float[torch.Tensor, "B samples"]:
        config: Any = self.config
        fft, hop = config.fft, int(np.prod(config.upsample_rates))
        window = torch.hann_window(fft, device=magnitude_BKT.device)
        # All sounds start with the same phases, so that a sound does not depend on its batch.
        angles = 2 * np.pi * torch.rand(magnitude_BKT.shape[1:], generator=torch.Generator().manual_seed(0))
        spectrum = torch.polar(magnitude_BKT, angles.to(magnitude_BKT.device).expand_as(magnitude_BKT).contiguous())
        previous = torch.zeros((), device=magnitude_BKT.device)
        for _ in range(config.iterations):
            current = torch.stft(
                _overlap_add(spectrum, window, hop), fft, hop, fft, window, center=False, return_complex=True
            )
            accelerated, previous = current + 0.99 * (current - previous), current
            spectrum = magnitude_BKT * accelerated / accelerated.abs().clamp(min=1e-9)
        return _overlap_add(spectrum, window, hop)[:, (fft - hop) // 2 : -(fft - hop) // 2]


def filters(mels: int, sample_rate: int, fft: int) -> Float[np.ndarray, "K M"]:
    """Returns Slaney's mel filters for a window of `fft` samples."""
    return mel_filter_bank(fft // 2 + 1, mels, 0.0, sample_rate / 2, sample_rate, norm="slaney", mel_scale="slaney")


def _overlap_add(spectrum_BKT: torch.Tensor, window: torch.Tensor, hop: int) -> torch.Tensor:
    """Inverse STFT: returns the sound whose windowed frames are nearest to those of a spectrum."""
    fft = len(window)
    frames_BFT = torch.fft.irfft(spectrum_BKT, fft, dim=1) * window[None, :, None]
    samples = fft + hop * (frames_BFT.shape[2] - 1)

    def sum_frames(frames: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.fold(frames, (1, samples), (1, fft), stride=(1, hop))[:, 0, 0]

    weights = sum_frames((window**2)[None, :, None].expand(1, -1, frames_BFT.shape[2]))
    return sum_frames(frames_BFT) / weights.clamp(min=1e-3)

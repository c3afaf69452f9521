"""A vocoder without weights: mel-spectrograms to sound by estimated phases."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from transformers.audio_utils import mel_filter_bank

AT_ONCE = 8  # sounds whose phases are found together


class GriffinLim(ModelMixin, ConfigMixin):
    """Replaces a SpeechT5HifiGan: turns log mels [B, T, M], or [T, M], into sound [B, samples], and has the fields of
    its config that pipelines read. diffusers can load it if c2c_jax is installed.

    Magnitudes come from the filters' pseudo-inverse, phases from the fast Griffin-Lim algorithm (Perraudin et al. 2013,
    momentum 0.99), which always starts at the same random phases.
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
        """model_in_dim: mels, from 0 to half of sampling_rate (Hz), Slaney's filters. upsample_rates: their product is
        the samples of a frame. fft: samples of its Hann window."""
        super().__init__()
        if not math.prod(upsample_rates) <= fft - 2:  # windows overlap
            raise ValueError(f"upsample_rates {upsample_rates} make frames as long as the window of {fft}")
        inverse_MK = np.linalg.pinv(filters(model_in_dim, sampling_rate, fft))
        self.register_buffer("inverse_MK", torch.from_numpy(inverse_MK.astype(np.float32)))

    def forward(self, spectrogram: Float[torch.Tensor, "*B T M"]) -> Float[torch.Tensor, "*B samples"]:
        """Converts natural-log mel spectrograms [B, T, M] or [T, M] to float32 waveforms [B, samples] or [samples]."""
        mel_BTM = spectrogram.float() if spectrogram.dim() == 3 else spectrogram.float()[None]
        magnitude_BKT = (torch.exp(mel_BTM) @ self.inverse_MK.float()).clamp(min=0).transpose(1, 2)
        # Few at a time: on a CPU a sound of 64 together takes three times as long, most of it for memory.
        sound_BS = torch.cat([self._with_phases(part) for part in magnitude_BKT.split(AT_ONCE)])
        return sound_BS if spectrogram.dim() == 3 else sound_BS[0]

    def _with_phases(self, magnitude_BKT: Float[torch.Tensor, "B K T"]) -> Float[torch.Tensor, "B samples"]:
        config: Any = self.config
        fft, hop = config.fft, int(np.prod(config.upsample_rates))
        window = torch.hann_window(fft, device=magnitude_BKT.device)
        # The same for each sound of a batch, so that one is the same alone and among others.
        angles = 2 * np.pi * torch.rand(magnitude_BKT.shape[1:], generator=torch.Generator().manual_seed(0))
        spectrum = torch.polar(magnitude_BKT, angles.to(magnitude_BKT.device).expand_as(magnitude_BKT).contiguous())
        before = torch.zeros((), device=magnitude_BKT.device)
        for _ in range(config.iterations):
            now = torch.stft(
                _overlapped(spectrum, window, hop), fft, hop, fft, window, center=False, return_complex=True
            )
            ahead, before = now + 0.99 * (now - before), now
            spectrum = magnitude_BKT * ahead / ahead.abs().clamp(min=1e-9)
        return _overlapped(spectrum, window, hop)[:, (fft - hop) // 2 : -(fft - hop) // 2]


def filters(mels: int, sample_rate: int, fft: int) -> Float[np.ndarray, "K M"]:
    """Slaney's mel filters over the bins of a window of `fft` samples."""
    return mel_filter_bank(fft // 2 + 1, mels, 0.0, sample_rate / 2, sample_rate, norm="slaney", mel_scale="slaney")


def _overlapped(spectrum_BKT: torch.Tensor, window: torch.Tensor, hop: int) -> torch.Tensor:
    """The sound whose windowed frames are nearest to those of a spectrum."""
    fft = len(window)
    frames_BFT = torch.fft.irfft(spectrum_BKT, fft, dim=1) * window[None, :, None]
    samples = fft + hop * (frames_BFT.shape[2] - 1)

    def summed(frames: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.fold(frames, (1, samples), (1, fft), stride=(1, hop))[:, 0, 0]

    weights = summed((window**2)[None, :, None].expand(1, -1, frames_BFT.shape[2]))
    return summed(frames_BFT) / weights.clamp(min=1e-3)

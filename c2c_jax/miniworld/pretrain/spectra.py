"""The mel-spectrograms that AudioLDM's networks pass on, and sound made of them by phases alone."""

import functools

import numpy as np
import torch
from jaxtyping import Float
from transformers.audio_utils import mel_filter_bank

SAMPLE_RATE, SAMPLES, FFT, HOP, MELS, FRAMES = 16_000, 40_960, 1024, 160, 64, 256
FLOOR = 1e-5  # of amplitudes, before the logarithm


@functools.cache
def _filters() -> Float[np.ndarray, "K M"]:
    return mel_filter_bank(FFT // 2 + 1, MELS, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, norm="slaney", mel_scale="slaney")


def log_mel(sound_BS: Float[torch.Tensor, "B samples"]) -> Float[torch.Tensor, "B T M"]:
    """Natural logarithms of mel amplitudes as HiFi-GAN takes them (Kong et al. 2020): a frame for every 160 samples."""
    padded = torch.nn.functional.pad(sound_BS[:, None], ((FFT - HOP) // 2,) * 2, mode="reflect")[:, 0]
    spectrum = torch.stft(padded, FFT, HOP, FFT, torch.hann_window(FFT), center=False, return_complex=True)
    amplitude_BTK = torch.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-9).transpose(1, 2)
    filters_KM = torch.from_numpy(_filters().astype(np.float32))
    return torch.log(torch.clamp(amplitude_BTK @ filters_KM, min=FLOOR))


def griffin_lim(log_mel_BTM: Float[torch.Tensor, "B T M"], iterations: int = 64) -> Float[torch.Tensor, "B samples"]:
    """Sound whose log mels are near: magnitudes by the filters' pseudo-inverse, phases by the fast algorithm of Griffin
    and Lim (Perraudin et al. 2013, momentum 0.99). It hears what a mel-spectrogram holds, with no vocoder trained.
    """
    inverse_MK = torch.from_numpy(np.linalg.pinv(_filters()).astype(np.float32))
    magnitude_BKT = (torch.exp(log_mel_BTM) @ inverse_MK).clamp(min=0).transpose(1, 2)
    window = torch.hann_window(FFT)
    angles = 2 * np.pi * torch.rand(magnitude_BKT.shape, generator=torch.Generator().manual_seed(0))
    spectrum, before = torch.polar(magnitude_BKT, angles), torch.zeros(())
    for _ in range(iterations):
        heard = torch.stft(_overlapped(spectrum, window), FFT, HOP, FFT, window, center=False, return_complex=True)
        ahead, before = heard + 0.99 * (heard - before), heard
        spectrum = magnitude_BKT * ahead / ahead.abs().clamp(min=1e-9)
    return _overlapped(spectrum, window)[:, (FFT - HOP) // 2 : -(FFT - HOP) // 2]


def _overlapped(spectrum_BKT: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    """The sound whose windowed frames are nearest to those of a spectrum."""
    frames_BFT = torch.fft.irfft(spectrum_BKT, FFT, dim=1) * window[None, :, None]
    samples = FFT + HOP * (frames_BFT.shape[2] - 1)

    def summed(frames: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.fold(frames, (1, samples), (1, FFT), stride=(1, HOP))[:, 0, 0]

    weights = summed((window**2)[None, :, None].expand(1, -1, frames_BFT.shape[2]))
    return summed(frames_BFT) / weights.clamp(min=1e-3)

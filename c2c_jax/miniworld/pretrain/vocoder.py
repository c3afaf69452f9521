"""The vocoder: mel-spectrograms to sound, trained on the distance of spectra at several resolutions."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

from c2c_jax.miniworld.pretrain.fit import fit
from c2c_jax.miniworld.pretrain.spectra import FRAMES, HOP, MELS, SAMPLE_RATE, log_mel

BATCH, STEPS, LEARNING_RATE = 16, 12_000, 1e-3
SEGMENT = 64  # frames of a training piece
RESOLUTIONS = (256, 512, 1024, 2048)  # samples of a window


def new_vocoder() -> Any:
    return SpeechT5HifiGan(
        SpeechT5HifiGanConfig(
            model_in_dim=MELS,
            sampling_rate=SAMPLE_RATE,
            upsample_initial_channel=96,
            upsample_rates=[5, 4, 4, 2],
            upsample_kernel_sizes=[10, 8, 8, 4],
            resblock_kernel_sizes=[3, 7],
            resblock_dilation_sizes=[[1, 3], [1, 3]],
            normalize_before=False,
        )
    )


def train_vocoder(sounds: np.ndarray, mels: np.ndarray, folder: Path, steps: int = STEPS) -> tuple[Any, float]:
    """The vocoder of sounds [N, samples] int16 and their log mels [N, T, M], and the minutes it took.

    The loss: L1 of log mels, and of log magnitudes with the spectral convergence of Arık et al. 2018 at four
    resolutions (Yamamoto et al. 2020).
    """

    def loss_of(vocoder: Any, step: int) -> torch.Tensor:
        rng = np.random.default_rng(step)
        pieces, wanted = [], []
        for row, start in zip(
            rng.integers(len(sounds), size=BATCH), rng.integers(FRAMES - SEGMENT, size=BATCH), strict=True
        ):
            pieces.append(mels[row, start : start + SEGMENT])
            wanted.append(sounds[row, start * HOP : (start + SEGMENT) * HOP])
        mel_BTM, sound_BS = (
            torch.from_numpy(np.stack(pieces)).float(),
            torch.from_numpy(np.stack(wanted)).float() / 32767,
        )
        made = vocoder(mel_BTM)
        loss = (log_mel(made) - log_mel(sound_BS)).abs().mean()
        for width in RESOLUTIONS:
            one, other = _magnitudes(made, width), _magnitudes(sound_BS, width)
            loss = loss + (torch.log(one) - torch.log(other)).abs().mean() / len(RESOLUTIONS)
            loss = loss + torch.linalg.norm(one - other) / torch.linalg.norm(other) / len(RESOLUTIONS)
        return loss

    return fit(new_vocoder(), loss_of, folder / "vocoder.pt", steps=steps, learning_rate=LEARNING_RATE)


def _magnitudes(sound_BS: torch.Tensor, width: int) -> torch.Tensor:
    spectrum = torch.stft(sound_BS, width, width // 4, width, torch.hann_window(width), return_complex=True)
    return torch.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-7)

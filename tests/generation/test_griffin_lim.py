"""Sound of log mels by phases alone."""

import numpy as np
import torch

from c2c_jax.generation.griffin_lim import GriffinLim, filters
from tools.pretrain.spectra import log_mel


def test_a_tone_stays():
    """440 Hz for half of the time, then 1,320: both are where they were, and as loud."""
    time = np.arange(40_960) / 16_000
    audio = 0.5 * np.sin(2 * np.pi * np.where(time < 1.28, 440, 1320) * time).astype(np.float32)
    output = GriffinLim()(log_mel(torch.from_numpy(audio[None])))[0].numpy()
    assert output.shape == audio.shape
    for half, hertz in ((slice(4000, 16_000), 440), (slice(24_000, 36_000), 1320)):
        spectrum = np.abs(np.fft.rfft(output[half] * np.hanning(12_000)))
        assert abs(np.argmax(spectrum) * 16_000 / 12_000 - hertz) < 45  # a filter of the mels is wider
        assert 0.5 < np.std(output[half]) / np.std(audio[half]) < 1.5


def test_alone_and_among_others_written_and_read(tmp_path):
    mel_BTM = torch.from_numpy(np.random.default_rng(0).normal(-4, 1, size=(3, 20, 64)).astype(np.float32))
    vocoder = GriffinLim(iterations=4)
    vocoder.save_pretrained(tmp_path)
    read = GriffinLim.from_pretrained(tmp_path)
    together = read(mel_BTM)
    assert together.shape == (3, 20 * 160) and read.config.iterations == 4
    torch.testing.assert_close(vocoder(mel_BTM[1]), together[1], atol=1e-5, rtol=1e-4)


def test_magnitudes_are_those_that_have_these_mels():
    """A spectrum in the filters' row space comes back from its mels through the pseudo-inverse."""
    weights_KM = filters(64, 16_000, 1024)
    magnitude_K = weights_KM @ np.random.default_rng(1).uniform(size=64)
    actual = GriffinLim().inverse_MK.numpy().T @ (weights_KM.T @ magnitude_K)
    np.testing.assert_allclose(actual, magnitude_K, rtol=1e-3, atol=1e-6)

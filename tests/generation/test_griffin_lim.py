"""The Griffin-Lim vocoder: tones, batches, saving, and inversion of mels."""

import numpy as np
import torch

from c2c_jax.generation.griffin_lim import GriffinLim, filters
from tools.pretrain.spectra import log_mel


def test_tones_keep_frequency_and_loudness():
    """440 Hz, then 1,320 Hz: the output has the same frequencies and similar loudness."""
    time = np.arange(40_960) / 16_000
    audio = 0.5 * np.sin(2 * np.pi * np.where(time < 1.28, 440, 1320) * time).astype(np.float32)
    output = GriffinLim()(log_mel(torch.from_numpy(audio[None])))[0].numpy()
    assert output.shape == audio.shape
    for half, hertz in ((slice(4000, 16_000), 440), (slice(24_000, 36_000), 1320)):
        spectrum = np.abs(np.fft.rfft(output[half] * np.hanning(12_000)))
        assert abs(np.argmax(spectrum) * 16_000 / 12_000 - hertz) < 45  # less than the width of a mel filter
        assert 0.5 < np.std(output[half]) / np.std(audio[half]) < 1.5


def test_saved_vocoder_gives_the_same_sound_alone_and_in_a_batch(tmp_path):
    mel_BTM = torch.from_numpy(np.random.default_rng(0).normal(-4, 1, size=(3, 20, 64)).astype(np.float32))
    vocoder = GriffinLim(iterations=4)
    vocoder.save_pretrained(tmp_path)
    read = GriffinLim.from_pretrained(tmp_path)
    together = read(mel_BTM)
    assert together.shape == (3, 20 * 160) and read.config.iterations == 4
    torch.testing.assert_close(vocoder(mel_BTM[1]), together[1], atol=1e-5, rtol=1e-4)


def test_mel_filters_are_inverted():
    """The pseudo-inverse recovers a spectrum in the row space of the filters from its mels."""
    weights_KM = filters(64, 16_000, 1024)
    magnitude_K = weights_KM @ np.random.default_rng(1).uniform(size=64)
    actual = GriffinLim().inverse_MK.numpy().T @ (weights_KM.T @ magnitude_K)
    np.testing.assert_allclose(actual, magnitude_K, rtol=1e-3, atol=1e-6)

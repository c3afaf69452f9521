"""Sound files against the wave module, mel spectrograms against torch, defects against known sounds."""

import math
import os
import warnings
import wave

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from c2c_jax.errors import GenerationError
from c2c_jax.io.audio_output import (
    FFT,
    HOP,
    MELS,
    defects,
    draw_mel_spectrogram,
    mel_spectrogram,
    plot_title,
    write_audio,
)

RATE = 16_000


def tone(hertz, seconds=1.0, size=0.5):
    return (size * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def test_wav_is_16_bit_pcm_of_the_same_samples(tmp_path):
    path = tmp_path / "new" / "a.wav"
    write_audio(path, np.array([0, 0.25, -0.5, 1, -1, 2, -2], np.float32), RATE)
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE)
        written = np.frombuffer(file.readframes(7), "<i2")
    np.testing.assert_allclose(written, [0, 8192, -16384, 32767, -32768, 32767, -32768], atol=1)
    assert [path.name for path in path.parent.iterdir()] == ["a.wav"]


def test_flac_holds_the_wavs_samples(tmp_path):
    for name in ("a.wav", "a.FLAC"):
        write_audio(tmp_path / name, tone(440), RATE)
    (wav, _), (flac, rate) = (soundfile.read(tmp_path / name, dtype="int16") for name in ("a.wav", "a.FLAC"))
    assert soundfile.info(tmp_path / "a.FLAC").format == "FLAC" and rate == RATE
    np.testing.assert_array_equal(flac, wav)


def test_a_sound_replaces_an_older_one(tmp_path):
    for length in (5, 9):
        write_audio(str(tmp_path / "a.wav"), np.zeros(length, np.float32), RATE)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert file.getnframes() == 9


@pytest.mark.parametrize("name", ["a.mp3", "a", "a.sound"])
def test_other_formats_are_refused(tmp_path, name):
    with pytest.raises(GenerationError, match="use .wav or .flac"):
        write_audio(tmp_path / name, np.zeros(5, np.float32), RATE)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_no_file_and_the_older_one_whole(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"older")
    with pytest.raises(GenerationError, match=f"^{path} cannot be written .*: choose another place$"):
        write_audio(path, np.zeros(5, np.float32), -1)
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"] and path.read_bytes() == b"older"


@pytest.mark.parametrize("name", ["folder.wav", "file/a.wav"])
def test_a_place_that_cannot_be_written_is_refused(tmp_path, name):
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(GenerationError, match=f"^{tmp_path / name} cannot be written"):
        write_audio(tmp_path / name, np.zeros(5, np.float32), RATE)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.wav"]


def test_defects_of_known_sounds():
    assert defects(tone(440)) == []
    assert defects(tone(440, size=0.99)) == []
    assert defects(np.zeros(100, np.float32)) == ["silent: its peak is 0 of full scale"]
    assert defects(tone(440, size=9e-4))[0].startswith("silent")
    assert defects(tone(440, size=2e-3)) == []
    square = np.sign(tone(440, size=1.0) + 0.001).astype(np.float32)
    assert defects(square) == ["clipped: 100.0% of its samples are at full scale"]
    loud = tone(440)
    loud[:160] = -1.0  # a hundredth
    assert defects(loud) == ["clipped: 1.0% of its samples are at full scale"]


def slaney_filters() -> np.ndarray:
    """[M, F] by Slaney's formulae: 200/3 Hz a mel to 1 kHz, then a factor of 6.4 in 27 mels; triangles of unit area."""

    def hertz(mel):
        return 200 * mel / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)

    top = 15 + 27 * math.log(RATE / 2 / 1000) / math.log(6.4)
    edges = [hertz(top * i / (MELS + 1)) for i in range(MELS + 2)]
    bins = np.arange(FFT // 2 + 1) * RATE / FFT
    rows = []
    for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
        triangle = np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle))
        rows.append(np.maximum(triangle, 0) * 2 / (high - low))
    return np.stack(rows)


def test_mel_spectrogram_is_torchs_by_hand():
    samples = tone(700, 0.5) + np.random.default_rng(0).normal(size=8000).astype(np.float32) / 50
    spectrum = torch.stft(
        torch.from_numpy(samples), FFT, HOP, window=torch.hann_window(FFT), center=True, return_complex=True
    )
    power = slaney_filters() @ spectrum.abs().square().numpy().astype(np.float64)
    expected = np.maximum(10 * np.log10(power / power.max()), -80)
    np.testing.assert_allclose(mel_spectrogram(samples, RATE), expected, atol=1e-2)


def test_silence_and_very_short_sounds_have_a_mel_spectrogram():
    for samples in (np.zeros(RATE, np.float32), tone(440, 0.01)):
        mels_MT = mel_spectrogram(samples, RATE)
        assert np.isfinite(mels_MT).all() and mels_MT.shape[0] == MELS


def test_the_picture_shows_a_tone_where_it_is(tmp_path):
    """A tone gives a bright row at the height of its pitch."""
    heights = []
    for hertz in (500, 4000):
        draw_mel_spectrogram(tmp_path / "a.mel.png", tone(hertz, 2.0), RATE, "a tone")
        pixels = np.asarray(Image.open(tmp_path / "a.mel.png").convert("RGB")).astype(int).sum(2)
        inside = pixels[40:240, 100:600]  # of the axes
        rows = inside.mean(axis=1)
        heights.append(int(rows.argmax()))
        assert rows.max() > 3 * np.median(rows)
    assert heights[0] > heights[1] + 50  # from the top


def test_titles_are_drawn_as_they_are(tmp_path):
    """Titles are not parsed as mathematics, stay on one line, and show missing glyphs as squares."""
    assert plot_title("a dog.wav") == "a dog.wav"
    assert plot_title("\u732b\n$x^$") == "\u25a1\\n$x^$"
    assert len(plot_title("n" * 300)) == 90
    for title in ("\u732b.wav", "$x^$.wav", "$\\frac{", "caf\udce9.wav"):
        with warnings.catch_warnings(action="error", category=UserWarning):
            draw_mel_spectrogram(tmp_path / "a.mel.png", np.ones(2000, np.float32), 16_000, title)
        assert (tmp_path / "a.mel.png").read_bytes().startswith(b"\x89PNG")


def test_sounds_say_who_made_them(tmp_path):
    for name in ("a.wav", "a.flac", os.fsdecode(b"caf\xe9.wav")):
        write_audio(tmp_path / name, np.linspace(-1, 1, 100), 16_000)
        with soundfile.SoundFile(os.fsencode(tmp_path / name)) as file:
            assert file.software.startswith("c2c_jax") and file.frames == 100
            np.testing.assert_array_equal(file.read(dtype="int16"), np.round(np.linspace(-1, 1, 100) * 32767))

"""Reading sound files: formats, channels, rates, resampling, limits and errors."""

import os

import numpy as np
import pytest
import soundfile

from c2c_jax.errors import AudioError
from c2c_jax.io.audio import find_audio, read_audio
from c2c_jax.io.console import log_to_stderr


def tone(hertz: float, seconds: float, rate: int) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def level(samples: np.ndarray, hertz: float, rate: int) -> float:
    """Amplitude of one frequency in dB below full scale, away from the ends."""
    middle = samples[len(samples) // 4 : -len(samples) // 4].astype(np.float64)
    window = np.blackman(len(middle))
    phase = np.exp(-2j * np.pi * hertz * np.arange(len(middle)) / rate)
    return float(20 * np.log10(2 * abs((middle * window * phase).sum()) / window.sum() + 1e-12))


def noise(seconds: float, channels: int = 1, rate: int = 48_000) -> np.ndarray:
    return (np.random.default_rng(0).normal(size=(round(seconds * rate), channels)) / 10).astype(np.float32)


def refusal(path, **limits) -> str:
    with pytest.raises(AudioError) as caught:
        read_audio(path, 48_000, **limits)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def read_with_notes(path, rate=48_000, seconds=None):
    notes: list[str] = []
    samples = read_audio(path, rate, seconds, on_note=notes.append)
    assert all(note.startswith(f"{path} ") and "\n" not in note for note in notes)
    return samples, " | ".join(notes)


@pytest.mark.parametrize(
    ("name", "subtype", "tolerance"),
    [
        ("a.wav", "PCM_16", 1e-4),
        ("a.wav", "FLOAT", 0),
        ("a.wav", "PCM_U8", 1e-2),
        ("a.flac", "PCM_S8", 1e-2),
        ("a.flac", "PCM_16", 1e-4),
        ("a.flac", "PCM_24", 1e-6),
        ("a.aiff", "PCM_16", 1e-4),
        ("a.caf", "ALAC_16", 1e-4),
        ("a.ogg", "VORBIS", 5e-2),
        ("a.opus", "OPUS", 5e-2),
        ("a.mp3", "MPEG_LAYER_III", 5e-2),
    ],
)
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_formats_and_the_mean_of_channels(tmp_path, name, subtype, tolerance, channels):
    if channels > 2 and (tolerance == 5e-2 or subtype == "ALAC_16"):
        pytest.skip("mp3 has two channels at most, and Ogg takes the last of six for one of low tones")
    parts = np.stack([tone(300 * (c + 1), 0.5, 48_000) for c in range(channels)], axis=1)
    soundfile.write(tmp_path / name, parts, 48_000, subtype=subtype, format="OGG" if name == "a.opus" else None)
    decoded, notes = read_with_notes(tmp_path / name)
    assert decoded.dtype == np.float32 and decoded.shape == (24_000,) and not notes
    np.testing.assert_allclose(decoded[2000:20_000], parts.mean(axis=1)[2000:20_000], atol=tolerance + 1e-7, rtol=0)


@pytest.mark.parametrize("name", ["a.mp3", "a.ogg", "a.opus", "a.flac"])
def test_blocks_join_without_a_seam(tmp_path, monkeypatch, name):
    """Decoding in many blocks gives the same samples as decoding at once."""
    options = dict(format="OGG", subtype="OPUS") if name == "a.opus" else {}
    soundfile.write(tmp_path / name, noise(3), 48_000, **options)
    whole = read_audio(tmp_path / name, 48_000)
    monkeypatch.setattr("c2c_jax.io.codecs.decode.BLOCK_SAMPLES", 10_007)
    np.testing.assert_array_equal(read_audio(tmp_path / name, 48_000), whole)
    assert len(whole) == 144_000


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 96_000])
def test_any_rate(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", tone(1000, 1, rate), rate, subtype="FLOAT")
    decoded = read_audio(tmp_path / "a.wav", 48_000)
    assert len(decoded) == 48_000
    np.testing.assert_allclose(decoded[4800:-4800], tone(1000, 1, 48_000)[4800:-4800], atol=1e-4, rtol=0)


def test_the_resamplers_passband_and_what_it_rejects(tmp_path):
    """From 48 to 16 kHz: tones up to 7.2 kHz are kept, and tones above 8 kHz, which would alias, are removed."""
    for hertz, output_hertz, min_db, max_db in (
        (100, 100, -6.03, -6.01),
        (7200, 7200, -6.03, -6.01),
        (8800, 7200, -300, -110),
        (15_000, 1000, -300, -110),
        (23_000, 7000, -300, -110),
    ):
        soundfile.write(tmp_path / "a.wav", tone(hertz, 1, 48_000), 48_000, subtype="FLOAT")
        decoded = level(read_audio(tmp_path / "a.wav", 16_000), output_hertz, 16_000)
        assert min_db < decoded < max_db, (hertz, decoded)


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_no_more_is_read_than_is_wanted(tmp_path, rate):
    """The first second equals that of a full read, to the resampler's precision."""
    soundfile.write(tmp_path / "a.flac", noise(3, rate=rate), rate, subtype="PCM_24")
    (decoded, notes), whole = read_with_notes(tmp_path / "a.flac", seconds=1.0), read_audio(tmp_path / "a.flac", 48_000)
    assert (len(decoded), len(whole), notes) == (48_000, 144_000, "")
    np.testing.assert_allclose(decoded, whole[:48_000], atol=1e-5, rtol=0)
    assert len(read_audio(tmp_path / "a.flac", 48_000, 10.0)) == 144_000


def test_a_silent_start_is_skipped_in_whole_seconds(tmp_path):
    """30 s with 12.3 s of zeros first: an excerpt begins at second 12, a full read at 0."""
    samples = np.concatenate([np.zeros((12_300, 1), np.float32), noise(17.7, rate=1000)])
    soundfile.write(tmp_path / "a.wav", samples, 1000, subtype="FLOAT")
    decoded, notes = read_with_notes(tmp_path / "a.wav", 1000, 10.0)
    np.testing.assert_array_equal(decoded, samples[12_000:22_000, 0])
    assert "silent for its first 12 s" in notes
    decoded, notes = read_with_notes(tmp_path / "a.wav", 1000, 25.0)  # as much as is wanted, from as late as may be
    np.testing.assert_array_equal(decoded, samples[5000:, 0])
    decoded, notes = read_with_notes(tmp_path / "a.wav", 1000)
    np.testing.assert_array_equal(decoded, samples[:, 0])
    assert not notes


def test_a_silent_start_of_many_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("c2c_jax.io.codecs.decode.BLOCK_SAMPLES", 1500)
    samples = np.concatenate([np.zeros((12_300, 2), np.float32), noise(3, 2, rate=1000)])
    soundfile.write(tmp_path / "a.wav", samples, 1000, subtype="FLOAT")
    for seconds, start in ((1.0, 12_000), (3.3, 12_000), (4.0, 11_300)):
        decoded, _ = read_with_notes(tmp_path / "a.wav", 1000, seconds)
        np.testing.assert_array_equal(decoded, samples.mean(axis=1)[start : start + round(seconds * 1000)])


def test_silence(tmp_path, monkeypatch):
    for value in (0.0, 1e-5):
        soundfile.write(tmp_path / "a.wav", np.full(48_000 * 3, value), 48_000, subtype="FLOAT")
        assert "is silent: no sample of its first 3 s" in refusal(tmp_path / "a.wav")
    soundfile.write(tmp_path / "a.wav", np.full(48_000, 2**-15), 48_000, subtype="PCM_16")
    assert read_audio(tmp_path / "a.wav", 48_000).max() == np.float32(2**-15)
    monkeypatch.setattr("c2c_jax.io.audio.MAX_SILENT_SAMPLES", 48_000)
    monkeypatch.setattr("c2c_jax.io.codecs.decode.BLOCK_SAMPLES", 4800)
    soundfile.write(tmp_path / "b.flac", np.append(np.zeros(96_000), np.ones(4800) / 2), 48_000)
    assert "is silent: no sample of its first 1 s" in refusal(tmp_path / "b.flac", max_seconds=0.1)


def test_channels_that_cancel(tmp_path):
    """One channel is the negative of the other, everywhere or in part, so the mean would lose it."""
    left = noise(2)[:, 0]
    for right in (-0.9999 * left, np.append(left[:48_000], -left[48_000:])):
        soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 48_000, subtype="FLOAT")
        decoded, notes = read_with_notes(tmp_path / "a.wav")
        np.testing.assert_array_equal(decoded, left)
        assert "channels that cancel each other; only channel 1 is read" in notes
    soundfile.write(tmp_path / "a.wav", np.stack([left / 2, -left, left / 2], axis=1), 48_000, subtype="FLOAT")
    decoded, notes = read_with_notes(tmp_path / "a.wav", seconds=1.0)
    np.testing.assert_array_equal(decoded, -left[:48_000])
    assert "only channel 2" in notes


@pytest.mark.parametrize("kind", ["a common background", "unequal"])
def test_channels_that_cancel_in_part(tmp_path, kind):
    left, behind = noise(2)[:, 0], 0.2 * noise(2, 2)[:, 1]
    both = (left + behind, -left + behind) if kind == "a common background" else (left, -0.7 * left)
    soundfile.write(tmp_path / "a.wav", np.stack(both, axis=1), 48_000, subtype="FLOAT")
    decoded, notes = read_with_notes(tmp_path / "a.wav")
    assert any(np.array_equal(decoded, channel.astype(np.float32)) for channel in both)
    assert "channels that cancel each other" in notes


def test_a_click_in_silence_is_no_sound(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.concatenate([np.zeros(48_000), np.ones(3) / 2, np.zeros(48_000)]), 16_000)
    assert "is silent except for 0.188 ms: expected at least 10 ms of sound" in refusal(tmp_path / "a.wav")
    part = np.pad(tone(1000, 0.01, 16_000) + 0.1, 8000)
    soundfile.write(tmp_path / "a.wav", part, 16_000)
    assert len(read_audio(tmp_path / "a.wav", 16_000)) == len(part)


def test_channels_that_do_not_cancel(tmp_path):
    for parts in (noise(1, 2), np.pad(noise(1), ((0, 0), (0, 7))), np.repeat(noise(1), 2, axis=1)):
        soundfile.write(tmp_path / "a.wav", parts, 48_000, subtype="FLOAT")
        decoded, notes = read_with_notes(tmp_path / "a.wav")
        np.testing.assert_allclose(decoded, parts.mean(axis=1), atol=1e-7)
        assert not notes


@pytest.mark.parametrize("seconds", [None, 1.0])
def test_a_sound_too_short_to_mean_anything(tmp_path, seconds):
    soundfile.write(tmp_path / "a.wav", tone(1000, 0.0002, 48_000) + 0.1, 48_000)
    assert "lasts 0.208 ms: expected at least 50 ms" in refusal(tmp_path / "a.wav", max_seconds=seconds)
    soundfile.write(tmp_path / "a.wav", tone(1000, 0.05, 48_000), 48_000)
    assert len(read_audio(tmp_path / "a.wav", 48_000, seconds)) == 2400


def test_what_unfolds_is_read_in_part_and_reported(tmp_path, monkeypatch):
    """A few KB of FLAC may contain hours of sound."""
    monkeypatch.setattr("c2c_jax.io.audio.MAX_FRAMES", 30_000)
    soundfile.write(tmp_path / "a.flac", np.full((100_000, 2), 0.25), 8000)
    decoded, notes = read_with_notes(tmp_path / "a.flac", 8000)
    assert len(decoded) == 30_000 and (decoded == 0.25).all() and "3.75 s are read" in notes
    assert read_with_notes(tmp_path / "a.flac", 8000, 3.0)[1] == ""
    monkeypatch.setattr("c2c_jax.io.audio.MAX_SECONDS", 2.0)
    decoded, notes = read_with_notes(tmp_path / "a.flac", 8000)
    assert len(decoded) == 16_000 and "2 s are read" in notes


def test_a_note_is_one_line_on_stderr(tmp_path, capsys):
    path = tmp_path / "a\x1b[31m\n.wav"
    soundfile.write(path, np.stack([tone(100, 0.1, 8000), -tone(100, 0.1, 8000)], axis=1), 8000)
    with log_to_stderr():
        read_audio(path, 8000)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: ") and r"a\x1b[31m\n.wav has channels that cancel" in line


def test_files_of_a_folder(tmp_path):
    for name in ("b.wav", "a/c.MP3", "a/d.flac", "notes.txt", ".hidden.wav", ".index/e.wav", "a/.f/g.ogg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_audio(tmp_path) == [tmp_path / name for name in ("a/c.MP3", "a/d.flac", "b.wav")]


def test_what_is_not_a_file(tmp_path):
    assert "no file" in refusal(tmp_path / "a.wav")
    assert "a folder" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "zero.wav").symlink_to("/dev/zero")
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    assert "a named pipe" in refusal(tmp_path / "pipe.wav")
    assert "a device" in refusal(tmp_path / "zero.wav")
    refusal(tmp_path / "loop.wav")


def test_no_sound_at_all(tmp_path):
    (tmp_path / "a.wav").touch()
    assert "empty (0 bytes)" in refusal(tmp_path / "a.wav")
    soundfile.write(tmp_path / "b.wav", np.zeros(0), 48_000)
    assert "empty (no samples)" in refusal(tmp_path / "b.wav")
    for name in ("c.wav", "c.mp3", "c.raw"):
        (tmp_path / name).write_bytes(b"these are words, and no sound " * 40)
        assert "cannot be read as a sound" in refusal(tmp_path / name)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_samples_that_are_not_numbers(tmp_path, value):
    for channels in (1, 2):
        samples = np.repeat(tone(100, 0.1, 48_000)[:, None].astype(np.float64), channels, axis=1)
        samples[7, -1] = value
        soundfile.write(tmp_path / "a.wav", samples, 48_000, subtype="DOUBLE")
        assert "not numbers" in refusal(tmp_path / "a.wav")


def test_samples_that_are_integers_called_floats(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(100, 0.1, 48_000) * 32_768, 48_000, subtype="FLOAT")
    assert "samples of 16,384, but full scale is 1" in refusal(tmp_path / "a.wav")


def test_a_name_that_is_not_utf8(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.mp3"
    soundfile.write(tmp_path / "a.mp3", noise(1), 48_000)
    os.rename(tmp_path / "a.mp3", path)
    assert len(read_audio(tmp_path / os.fsdecode(b"caf\xe9.mp3"), 48_000)) == 48_000

"""Log-mel spectrograms against transformers' ClapFeatureExtractor and a transcription of laion_clap's."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import transformers

from c2c_jax.errors import AudioError, CheckpointError
from c2c_jax.spaces.audio_preprocessing import INPUT_RATE, AudioPreprocessor
from c2c_jax.spaces.preprocessors import FILE, PROCESSOR_FILE

TOLERANCE = dict(atol=1e-4, rtol=0)  # dB
LAION = dict(frequency_min=50, truncation="rand_trunc")
FUSED = LAION | dict(truncation="fusion")
OTHER = dict(
    feature_size=16, sampling_rate=16_000, hop_length=160, max_length_s=1, fft_window_size=400, frequency_max=7_600
)
SECOND = dict(max_length_s=1)


def example_sounds(samples: int, rate: int = 48_000) -> list[np.ndarray]:
    """Noise, and a tone that falls silent, with mel bins from -100 to +40 dB."""
    rng = np.random.default_rng(samples)
    tone = np.sin(2 * np.pi * 1234.5 * np.arange(samples) / rate) * (np.arange(samples) < 0.8 * samples)
    return [(rng.normal(size=samples) * 0.1).astype(np.float32), tone.astype(np.float32)]


@pytest.fixture
def fixed_random_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fixes transformers' random choices to ours: the beginning, and the middle of each third."""
    monkeypatch.setattr(np.random, "randint", lambda low, high: low)
    monkeypatch.setattr(np.random, "choice", lambda positions: positions[len(positions) // 2])


@pytest.mark.parametrize("padding", ["repeatpad", "repeat", "pad"])
@pytest.mark.parametrize(
    "fields",
    [
        LAION | SECOND,
        FUSED | SECOND,
        OTHER | dict(truncation="rand_trunc"),
        OTHER | dict(feature_size=64),
        SECOND | dict(hop_length=500),
    ],
)
def test_equals_transformers(fields, padding, fixed_random_choices):
    extractor = transformers.ClapFeatureExtractor(**fields, padding=padding)
    preprocessor = AudioPreprocessor.from_dict(dict(**fields, padding=padding))
    max_samples, hop = extractor.nb_max_samples, extractor.hop_length
    for samples in (
        max_samples,
        max_samples - 1,
        max_samples // 3 + 7,
        100,
        max_samples + 1,
        max_samples + hop,
        max_samples + 2 * hop,
        3 * max_samples,
    ):
        waveforms = example_sounds(samples, preprocessor.sample_rate)
        expected = extractor(waveforms, sampling_rate=preprocessor.sample_rate, return_tensors="np")
        actual = preprocessor(waveforms)
        assert actual.mel_BCTM.dtype == np.float32
        np.testing.assert_allclose(actual.mel_BCTM, expected["input_features"], err_msg=str(samples), **TOLERANCE)
        if preprocessor.has_fusion and samples >= max_samples + hop:  # transformers marks one shorter sound of a batch
            assert expected["is_longer"].all() and actual.is_longer_B.all()
        else:
            assert not actual.is_longer_B.any()


def test_defaults_are_transformers():
    theirs = transformers.ClapFeatureExtractor().to_dict()
    ours = dataclasses.asdict(AudioPreprocessor())
    assert ours.pop(INPUT_RATE) is None
    assert {name: theirs[name] for name in ours} == ours
    preprocessor = AudioPreprocessor.from_dict({"truncation": None})
    assert (preprocessor.sample_rate, preprocessor.max_seconds, preprocessor.has_fusion) == (48_000, None, True)
    assert AudioPreprocessor.from_dict({"truncation": "rand_trunc"}).max_seconds == 10


def power(sound: np.ndarray) -> torch.Tensor:
    """Power spectrum by torch.stft, with the arguments of torchaudio and torchlibrosa."""
    window = torch.hann_window(1024, dtype=torch.float64)
    x = torch.from_numpy(sound.astype(np.float64))
    return torch.stft(x, 1024, 480, 1024, window, center=True, pad_mode="reflect", return_complex=True).abs() ** 2


def decibels(mel: torch.Tensor) -> np.ndarray:
    """torchaudio's AmplitudeToDB("power", top_db=None), and torchlibrosa's LogmelFilterBank(ref=1, amin=1e-10)."""
    return (10 * torch.log10(torch.clamp(mel, min=1e-10))).numpy()


def test_equals_laion_clap_with_fusion():
    """laion_clap.training.data.get_mel: torchaudio's MelSpectrogram with norm=None and mel_scale="htk"."""
    ends = 2595 * torch.log10(1 + torch.tensor([50.0, 14_000.0], dtype=torch.float64) / 700)
    mels = torch.linspace(float(ends[0]), float(ends[1]), 66, dtype=torch.float64)
    hertz = 700 * (10 ** (mels / 2595) - 1)
    slopes = hertz[None] - torch.linspace(0, 24_000, 513, dtype=torch.float64)[:, None]
    down, up = -slopes[:, :-2] / hertz.diff()[:-1], slopes[:, 2:] / hertz.diff()[1:]
    filters = torch.clamp(torch.minimum(down, up), min=0)
    for sound in example_sounds(480_000):
        expected = decibels(power(sound).T @ filters)
        np.testing.assert_allclose(AudioPreprocessor.from_dict(FUSED)([sound]).mel_BCTM[0, 3], expected, **TOLERANCE)


def test_equals_laion_clap_without_fusion():
    """HTSAT's own Spectrogram and LogmelFilterBank, whose filters are librosa.filters.mel's."""
    linear, logarithmic = 200 / 3, np.log(6.4) / 27
    ends = [50 / linear, 15 + np.log(14_000 / 1000) / logarithmic]
    mels = np.linspace(*ends, 66)
    hertz = np.where(mels < 15, linear * mels, 1000 * np.exp(logarithmic * (mels - 15)))
    ramps = np.subtract.outer(hertz, np.fft.rfftfreq(1024, 1 / 48_000))
    lower, upper = -ramps[:-2] / np.diff(hertz)[:-1, None], ramps[2:] / np.diff(hertz)[1:, None]
    filters = np.maximum(0, np.minimum(lower, upper)) * (2 / (hertz[2:] - hertz[:-2]))[:, None]
    for sound in example_sounds(480_000):
        expected = decibels(power(sound).T @ torch.from_numpy(filters.T))
        np.testing.assert_allclose(AudioPreprocessor.from_dict(LAION)([sound]).mel_BCTM[0, 0], expected, **TOLERANCE)


def test_long_sounds_use_fixed_parts():
    preprocessor = AudioPreprocessor.from_dict(LAION | SECOND)
    long = example_sounds(100_000)
    np.testing.assert_array_equal(
        preprocessor(long).mel_BCTM, preprocessor([sound[:48_000] for sound in long]).mel_BCTM
    )
    fused = AudioPreprocessor.from_dict(FUSED | SECOND)
    np.testing.assert_array_equal(fused(long).mel_BCTM, fused(long).mel_BCTM)
    np.testing.assert_array_equal(fused(long[1:]).mel_BCTM, fused(long).mel_BCTM[1:])


def test_three_parts_of_a_long_sound():
    """Each part begins with the click that is in the middle of its third of the possible starts."""
    sound = np.zeros(48_000 * 7 // 2, np.float32)
    positions = 250 // 3 // 2 + np.array([0, 84, 167])  # 251 starts in thirds of 84, 84 and 83
    sound[480 * positions] = 1
    (mel_CTM,), is_longer = AudioPreprocessor.from_dict(FUSED | SECOND)([sound])
    assert is_longer.all()
    for part in mel_CTM[1:]:
        assert part[0].min() > -45 and part[4:60].max() == -100


def test_empty_sounds():
    for fields in (LAION, FUSED):
        with pytest.raises(AudioError, match="no samples"):
            AudioPreprocessor.from_dict(fields)([np.zeros(0, np.float32)])


@pytest.mark.parametrize(
    "invalid",
    [
        dict(truncation="other"),
        dict(padding="longest"),
        dict(hop_length=0),
        dict(hop_length=-480),
        dict(hop_length=1, max_length_s=10),
        dict(feature_size="many"),
        dict(feature_size=10**9),
        dict(feature_size=0),
        dict(feature_size=64.5),
        dict(feature_size=True),
        dict(feature_size=1024, fft_window_size=2**16, max_length_s=10),
        dict(max_length_s=0, truncation="rand_trunc"),
        dict(max_length_s=10**5),
        dict(max_length_s=600, sampling_rate=192_000),
        dict(sampling_rate=10**9),
        dict(sampling_rate=0),
        dict(sampling_rate=[48_000]),
        dict(fft_window_size=0),
        dict(fft_window_size=2**30),
        dict(fft_window_size=60_000),  # of a second of 48,000 samples
        dict(frequency_min=14_000),
        dict(frequency_min=-1),
        dict(frequency_min=24_000, frequency_max=30_000),
        dict(frequency_max=1e30),
        dict(frequency_max=None),
        dict(padding=None),
        {INPUT_RATE: 999_983},
        {INPUT_RATE: -1},
        dict(feature_extractor_type="WhisperFeatureExtractor"),
    ],
    ids=str,
)
def test_invalid_files(tmp_path, invalid):
    (tmp_path / FILE).write_text(json.dumps(SECOND | invalid))
    with pytest.raises(CheckpointError, match=f"{tmp_path / FILE} cannot be used as an audio preprocessor") as caught:
        AudioPreprocessor.read(tmp_path)
    assert "\n" not in str(caught.value)


def test_processor_config_of_transformers_5(tmp_path):
    extractor = transformers.ClapFeatureExtractor(**OTHER, truncation="rand_trunc")
    for part in ("feature_extractor", "audio_processor"):
        (tmp_path / PROCESSOR_FILE).write_text(json.dumps({part: extractor.to_dict()}, default=lambda _: None))
        preprocessor, waveforms = AudioPreprocessor.read(tmp_path), example_sounds(16_000, 16_000)
        expected = extractor(waveforms, sampling_rate=16_000, return_tensors="np")["input_features"]
        np.testing.assert_allclose(preprocessor(waveforms).mel_BCTM, expected, **TOLERANCE)


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="is missing"):
        AudioPreprocessor.read(tmp_path)

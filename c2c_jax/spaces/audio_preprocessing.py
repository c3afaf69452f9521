"""Converts sounds to the log-mel spectrograms that a CLAP audio tower takes.

Follows transformers' ClapFeatureExtractor and laion_clap, except that both draw random parts of a sound that is longer
than the tower's input. Here the parts are fixed, so that a sound always has the same vector.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import scipy.fft
import scipy.sparse
from jaxtyping import Float
from msgspec import Meta

from c2c_jax.errors import AudioError, CheckpointError
from c2c_jax.spaces.models.clap_audio import ClapAudioConfig, Mels
from c2c_jax.spaces.preprocessors import Preprocessor

# Our own field: the sampling rate of the input, if it differs from that of the spectrograms.
INPUT_RATE = "input_sampling_rate"
FLOOR = 1e-10  # minimum power: -100 dB
BLOCK_FRAMES = 128  # frames transformed at once, which limits memory and fits caches
MAX_SAMPLES = 2**24  # of a tower's input: 5 minutes at 48 kHz
MAX_FRAMES = 2**15
MAX_FILTERS = 2**21  # coefficients of the mel filters, and of a resampler
Rate = Annotated[int, Meta(ge=100, le=1_000_000)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioPreprocessor(Preprocessor):
    """Converts sounds to spectrograms. Fields and defaults are those of transformers' preprocessor_config.json."""

    KIND, PARTS, DEFAULTED = "audio", ("feature_extractor", "audio_processor"), ("feature_extractor_type", "truncation")

    feature_extractor_type: Literal["ClapFeatureExtractor"] = "ClapFeatureExtractor"
    feature_size: Annotated[int, Meta(ge=1, le=1024)] = 64  # mel bins
    sampling_rate: Rate = 48_000  # Hz
    input_sampling_rate: Rate | None = None  # Hz; None = sampling_rate
    hop_length: Annotated[int, Meta(ge=1, le=1_000_000)] = 480  # samples
    max_length_s: Annotated[int, Meta(ge=1, le=600)] = 10  # seconds
    fft_window_size: Annotated[int, Meta(ge=4, le=2**16)] = 1024  # samples
    frequency_min: Annotated[float, Meta(ge=0, le=500_000)] = 0  # Hz
    frequency_max: Annotated[float, Meta(ge=1, le=500_000)] = 14_000  # Hz
    truncation: Literal["fusion", "rand_trunc"] = "fusion"
    padding: Literal["repeatpad", "repeat", "pad"] = "repeatpad"

    def __post_init__(self) -> None:
        if self.frequency_max - self.frequency_min < 1:
            raise ValueError(f"frequency_min {self.frequency_min} is not below frequency_max {self.frequency_max}")
        if self.frequency_min >= self.sampling_rate / 2:
            raise ValueError(f"frequency_min {self.frequency_min} is not below half of sampling_rate")
        if self.samples > MAX_SAMPLES:
            raise ValueError(f"max_length_s x sampling_rate is {self.samples:,}, more than {MAX_SAMPLES:,} samples")
        if self.fft_window_size > self.samples:
            raise ValueError(f"fft_window_size {self.fft_window_size} is longer than max_length_s x sampling_rate")
        if self.frames > MAX_FRAMES:
            raise ValueError(f"hop_length {self.hop_length} makes {self.frames:,} frames, more than {MAX_FRAMES:,}")
        if self.fft_window_size // 2 * self.feature_size > MAX_FILTERS:
            raise ValueError(f"fft_window_size / 2 x feature_size is more than {MAX_FILTERS:,}")
        divisor = math.gcd(self.sampling_rate, self.sample_rate)
        if self.sampling_rate // divisor * (self.sample_rate // divisor) > MAX_FILTERS:
            raise ValueError(f"sampling_rate {self.sampling_rate}, {INPUT_RATE} {self.sample_rate}: no simple ratio")

    @property
    def samples(self) -> int:
        """Number of samples of the tower's input."""
        return self.max_length_s * self.sampling_rate

    @property
    def frames(self) -> int:
        """Number of frames of the tower's input."""
        return (self.samples - self.fft_window_size % 2) // self.hop_length + 1

    @property
    def sample_rate(self) -> int:
        """Sampling rate of the input, in Hz."""
        return self.input_sampling_rate or self.sampling_rate

    @property
    def max_seconds(self) -> float | None:
        """Seconds that are used from the beginning of a sound; None: all."""
        return None if self.has_fusion else float(self.max_length_s)

    @property
    def has_fusion(self) -> bool:
        """Whether each sound gives four spectrograms, for feature fusion."""
        return self.truncation == "fusion"

    def require_tower(self, config: ClapAudioConfig, folder: Path) -> None:
        """Raises CheckpointError unless the spectrograms fit an audio tower with this config."""
        channels, expected = (4 if has_fusion else 1 for has_fusion in (self.has_fusion, config.enable_fusion))
        max_frames = config.spec_size * config.folds
        if (channels, self.feature_size) != (expected, config.num_mel_bins) or self.frames > max_frames:
            raise CheckpointError(
                f"the audio preprocessor of {folder} makes {channels} spectrograms of {self.frames} frames of "
                f"{self.feature_size} mel bins; config.json asks for {expected} of at most {max_frames} frames of "
                f"{config.num_mel_bins} bins: they belong to different models; fetch both again"
            )

    def __call__(self, waveforms: Sequence[Float[np.ndarray, "_"]]) -> Mels:
        """Converts mono sounds of any length, in -1..1 at `sample_rate`. Raises AudioError for an empty sound."""
        if self.sample_rate != self.sampling_rate:
            waveforms = [resample_sinc(waveform, self.sample_rate, self.sampling_rate) for waveform in waveforms]
        spectrograms = [
            self._fused(waveform) if self.has_fusion else self._truncated(waveform) for waveform in waveforms
        ]
        return Mels(np.stack([mel for mel, _ in spectrograms]), np.array([is_longer for _, is_longer in spectrograms]))

    def _truncated(self, waveform: Float[np.ndarray, "samples"]) -> tuple[Float[np.ndarray, "1 T M"], bool]:
        """The spectrogram of a sound's beginning, where transformers draws a random part. Files need not be read
        whole."""
        return self._log_mel(self._padded(waveform[: self.samples]))[None], False

    def _fused(self, waveform: Float[np.ndarray, "samples"]) -> tuple[Float[np.ndarray, "4 T M"], bool]:
        """The whole sound shrunk to T frames, and three parts of T frames.

        Each part starts in the middle of one third of the possible starts, where transformers draws a random one."""
        mel_TM = self._log_mel(self._padded(waveform))
        frames = self.frames
        if len(mel_TM) == frames:
            return np.stack([mel_TM] * 4), False
        thirds = np.array_split(np.arange(len(mel_TM) - frames + 1), 3)
        starts = [third[len(third) // 2] if len(third) else 0 for third in thirds]
        return np.stack([_interpolated(mel_TM, frames), *(mel_TM[start : start + frames] for start in starts)]), True

    def _padded(self, waveform: Float[np.ndarray, "samples"]) -> Float[np.ndarray, "S"]:
        """Repeats a short sound as often as it fits into the input and pads it with silence, depending on `padding`."""
        if not len(waveform):
            raise AudioError("a sound has no samples: expected at least one")
        if len(waveform) >= self.samples:
            return waveform
        times = self.samples // len(waveform)
        if self.padding == "repeat":
            return np.tile(waveform, times + 1)[: self.samples]
        repeated = np.tile(waveform, times) if self.padding == "repeatpad" else waveform
        return np.pad(repeated, (0, self.samples - len(repeated)))

    def _log_mel(self, waveform: Float[np.ndarray, "samples"]) -> Float[np.ndarray, "frames M"]:
        """Log-mel spectrogram in decibels, computed in float64 as in transformers: float32 is too coarse for 100 dB."""
        width = self.fft_window_size
        window_N = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(width) / width)  # a periodic Hann window
        padded = np.pad(waveform, width // 2, mode="reflect")
        frames_FN = np.lib.stride_tricks.sliding_window_view(padded, width)[:: self.hop_length]
        mel_FM = np.empty((len(frames_FN), self.feature_size), np.float32)
        for start in range(0, len(frames_FN), BLOCK_FRAMES):
            block = slice(start, start + BLOCK_FRAMES)
            spectrum_FK = scipy.fft.rfft(frames_FN[block] * window_N, axis=1)
            power_FK = spectrum_FK.real**2 + spectrum_FK.imag**2
            mel_FM[block] = 10 * np.log10(np.maximum(power_FK @ self._filters_KM, FLOOR))
        return mel_FM

    @functools.cached_property
    def _filters_KM(self) -> scipy.sparse.csr_array:
        """Triangular mel filters: torchaudio's with fusion, librosa's without, as in laion_clap."""
        to_mel, to_hertz = (_htk, _htk_hertz) if self.has_fusion else (_slaney, _slaney_hertz)
        lowest, highest = to_mel(np.array([self.frequency_min, self.frequency_max], np.float64))
        corners = to_hertz(np.linspace(float(lowest), float(highest), self.feature_size + 2))
        frequencies_K1 = np.linspace(0, self.sampling_rate // 2, self.fft_window_size // 2 + 1)[:, None]
        rising_KM = (frequencies_K1 - corners[:-2]) / np.diff(corners)[:-1]
        falling_KM = (corners[2:] - frequencies_K1) / np.diff(corners)[1:]
        filters_KM = np.maximum(0, np.minimum(rising_KM, falling_KM))
        return scipy.sparse.csr_array(filters_KM if self.has_fusion else filters_KM * 2 / (corners[2:] - corners[:-2]))


def _htk(hertz: np.ndarray) -> np.ndarray:
    return 2595 * np.log10(1 + hertz / 700)


def _htk_hertz(mel: np.ndarray) -> np.ndarray:
    return 700 * (10 ** (mel / 2595) - 1)


def _slaney(hertz: np.ndarray) -> np.ndarray:
    """Mel scale of Slaney's Auditory Toolbox (1998): linear to 1 kHz, then 27 steps for a factor of 6.4."""
    return np.where(hertz < 1000, 3 * hertz / 200, 15 + 27 * np.log(np.maximum(hertz, 1) / 1000) / np.log(6.4))


def _slaney_hertz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, 200 * mel / 3, 1000 * 6.4 ** ((mel - 15) / 27))


def _interpolated(mel_FM: Float[np.ndarray, "frames M"], frames: int) -> Float[np.ndarray, "T M"]:
    """Linear interpolation in time to T frames, as torch's "bilinear" without align_corners.

    Positions are rounded as in torch (a fused multiplication and subtraction in float32). In a long sound, one more
    rounding would move them by an audible part of a frame.
    """
    scale = np.float64(np.float32(len(mel_FM)) / np.float32(frames))
    positions_T = np.maximum(scale * (np.arange(frames) + 0.5) - 0.5, 0).astype(np.float32)
    before_T = positions_T.astype(int)
    after_T = np.minimum(before_T + 1, len(mel_FM) - 1)
    weight_T1 = (positions_T - before_T).astype(np.float32)[:, None]
    return mel_FM[before_T] * (1 - weight_T1) + mel_FM[after_T] * weight_T1


def resample_sinc(
    waveform: Float[np.ndarray, "samples"], rate: int, target_rate: int
) -> Float[np.ndarray, "resampled"]:
    """Resamples a sound as torchaudio.functional.resample does by default, which AudioLDM's program uses.

    The filter is a sinc with six zero crossings on each side, in a Hann window, with its cutoff at 0.99 of the lower
    Nyquist frequency. The tower was trained with its aliasing, so a better resampler would not be better here.
    """
    divisor = math.gcd(rate, target_rate)
    rate, target_rate = rate // divisor, target_rate // divisor
    cutoff = 0.99 * min(rate, target_rate)
    width = math.ceil(6 * rate / cutoff)
    distances = (np.arange(-width, width + rate) / rate - np.arange(target_rate)[:, None] / target_rate) * cutoff
    distances = distances.clip(-6, 6)
    kernels = (np.sinc(distances) * np.cos(np.pi * distances / 12) ** 2 * cutoff / rate).astype(np.float32)
    padded = np.pad(waveform, (width, width + rate))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernels.shape[1])[::rate]
    return (windows @ kernels.T).reshape(-1)[: -(-target_rate * len(waveform) // rate)]

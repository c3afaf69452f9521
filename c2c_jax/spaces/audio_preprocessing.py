"""Sounds to the log-mel spectrograms that a CLAP audio tower takes, as a checkpoint's audio preprocessor says.

What transformers' ClapFeatureExtractor makes, and laion_clap before it, but for their dice: each draws anew where it
listens in a sound that is longer than the tower takes, so that no two calls give one vector. Here the places are fixed.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import scipy.fft
import scipy.sparse
from jaxtyping import Float
from msgspec import Meta

from c2c_jax.errors import CheckpointError, SoundError
from c2c_jax.spaces.models.clap_audio import Mels
from c2c_jax.spaces.preprocessors import FILE as FILE
from c2c_jax.spaces.preprocessors import fields_as, read_preprocessor

# A field of ours: the rate of the sounds that are taken, where it is another than that at which the tower hears them.
INPUT_RATE = "input_sampling_rate"
FLOOR = 1e-10  # the power at which decibels end: -100 dB
BLOCK_FRAMES = 128  # transformed at once: an hour of sound needs little memory, and caches serve


MAX_SAMPLES = 2**24  # of what a tower takes at once: 5 minutes at 48 kHz
MAX_FRAMES = 2**15
MAX_FILTERS = 2**21  # numbers in the mel filters, and in those of a resampler
Rate = Annotated[int, Meta(ge=100, le=1_000_000)]
DEFAULTED = ("feature_extractor_type", "truncation")  # null means the default, as in transformers


@dataclasses.dataclass(frozen=True, kw_only=True)
class MelFields:
    """The fields of a preprocessor, with what transformers fills in where a file says nothing."""

    feature_extractor_type: Literal["ClapFeatureExtractor"] = "ClapFeatureExtractor"
    feature_size: Annotated[int, Meta(ge=1, le=1024)] = 64  # mel bins
    sampling_rate: Rate = 48_000  # Hz
    input_sampling_rate: Rate | None = None  # INPUT_RATE
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
        common = math.gcd(self.sampling_rate, rate := self.input_sampling_rate or self.sampling_rate)
        if self.sampling_rate // common * (rate // common) > MAX_FILTERS:
            raise ValueError(f"sampling_rate {self.sampling_rate} and {INPUT_RATE} {rate} have no simple ratio")

    @property
    def samples(self) -> int:
        """How many a tower takes at once."""
        return self.max_length_s * self.sampling_rate

    @property
    def frames(self) -> int:
        """How many are made of `samples`."""
        return (self.samples - self.fft_window_size % 2) // self.hop_length + 1


@dataclasses.dataclass(frozen=True)
class MelRecipe:
    """content: of the preprocessor's file."""

    content: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "MelRecipe":
        """The recipe of a checkpoint folder. Raises CheckpointError where it is missing or asks for what is unknown."""
        return cls.checked(*read_preprocessor(folder, "feature_extractor", "audio_processor"))

    @classmethod
    def checked(cls, content: Mapping[str, Any], path: Path) -> "MelRecipe":
        """The recipe of these fields, which are of the file at `path`. Raises CheckpointError as `read` does."""
        recipe = cls(content)
        try:
            recipe._fields  # noqa: B018 - read here, so that what is wrong is found now
        except ValueError as error:
            raise CheckpointError(f"{path} cannot be used as an audio preprocessor ({error}); fetch it again") from None
        return recipe

    def require_tower(self, config: Any, folder: Path) -> None:
        """Raises CheckpointError unless what this recipe makes is what an audio tower of that config takes."""
        channels, frames, bins = 4 if self.has_fusion else 1, self._fields.frames, self._fields.feature_size
        wanted, most = 4 if config.enable_fusion else 1, config.spec_size * (config.spec_size // config.num_mel_bins)
        if (channels, bins) != (wanted, config.num_mel_bins) or frames > most:
            raise CheckpointError(
                f"the audio preprocessor of {folder} makes {channels} spectrograms of {frames} frames of {bins} mel "
                f"bins; config.json asks for {wanted} of at most {most} frames of {config.num_mel_bins} bins: they "
                "belong to different models; fetch both again"
            )

    @functools.cached_property
    def _fields(self) -> MelFields:
        stated = {name: value for name, value in self.content.items() if value is not None or name not in DEFAULTED}
        return fields_as(MelFields, stated)

    @property
    def sample_rate(self) -> int:
        """Hz, of the sounds that are taken."""
        return self._fields.input_sampling_rate or self._fields.sampling_rate

    @property
    def max_seconds(self) -> float | None:
        """How much of a sound is heard, from its beginning on; None: all of it."""
        return None if self.has_fusion else float(self._fields.max_length_s)

    @property
    def has_fusion(self) -> bool:
        """Whether four spectrograms are made of each sound."""
        return self._fields.truncation == "fusion"

    def __call__(self, sounds: Sequence[Float[np.ndarray, "_"]]) -> Mels:
        """Spectrograms of mono sounds in -1..1 at `sample_rate`, of any lengths. Raises SoundError for an empty one."""
        rates = self.sample_rate, self._fields.sampling_rate
        heard = sounds if len({*rates}) == 1 else [sinc_resampled(sound, *rates) for sound in sounds]
        made = [self._fused(sound) if self.has_fusion else self._cut(sound) for sound in heard]
        return Mels(np.stack([mel for mel, _ in made]), np.array([is_longer for _, is_longer in made]))

    def _cut(self, sound: Float[np.ndarray, "samples"]) -> tuple[Float[np.ndarray, "1 T M"], bool]:
        """The beginning of a longer sound, where transformers draws a place: no more of a file needs to be read."""
        return self._log_mel(self._lengthened(sound[: self._fields.samples]))[None], False

    def _fused(self, sound: Float[np.ndarray, "samples"]) -> tuple[Float[np.ndarray, "4 T M"], bool]:
        """Of a longer sound T frames from the middle of each third of the places where they can begin; transformers
        draws one there."""
        mel_TM = self._log_mel(self._lengthened(sound))
        frames = self._fields.frames
        if len(mel_TM) == frames:
            return np.stack([mel_TM] * 4), False
        thirds = np.array_split(np.arange(len(mel_TM) - frames + 1), 3)
        starts = [third[len(third) // 2] if len(third) else 0 for third in thirds]
        return np.stack([_shrunk(mel_TM, frames), *(mel_TM[start : start + frames] for start in starts)]), True

    def _lengthened(self, sound: Float[np.ndarray, "samples"]) -> Float[np.ndarray, "S"]:
        """A shorter sound repeated as often as it fits into the wanted length, and silence behind it ("repeatpad")."""
        if not len(sound):
            raise SoundError("a sound has no samples: expected one at least")
        padding = self._fields.padding
        if len(sound) >= self._fields.samples:
            return sound
        times = self._fields.samples // len(sound)
        if padding == "repeat":
            return np.tile(sound, times + 1)[: self._fields.samples]
        repeated = np.tile(sound, times) if padding == "repeatpad" else sound
        return np.pad(repeated, (0, self._fields.samples - len(repeated)))

    def _log_mel(self, sound: Float[np.ndarray, "samples"]) -> Float[np.ndarray, "frames M"]:
        """Decibels. In float64 as transformers: float32 would drown what is 100 dB below the loudest."""
        width, hop = self._fields.fft_window_size, self._fields.hop_length
        padded = np.pad(sound, width // 2, mode="reflect")
        frames_FN = np.lib.stride_tricks.sliding_window_view(padded, width)[::hop]
        mel_FM = np.empty((len(frames_FN), self._fields.feature_size), np.float32)
        for start in range(0, len(frames_FN), BLOCK_FRAMES):
            block = slice(start, start + BLOCK_FRAMES)
            spectrum_FK = scipy.fft.rfft(frames_FN[block] * self._window_N, axis=1)
            power_FK = spectrum_FK.real**2 + spectrum_FK.imag**2
            mel_FM[block] = 10 * np.log10(np.maximum(power_FK @ self._filters_KM, FLOOR))
        return mel_FM

    @functools.cached_property
    def _window_N(self) -> Float[np.ndarray, "N"]:
        """A periodic Hann window."""
        width = self._fields.fft_window_size
        return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(width) / width)

    @functools.cached_property
    def _filters_KM(self) -> scipy.sparse.csr_array:
        """Triangles over the frequencies: torchaudio's with fusion, librosa's without, as in laion_clap."""
        low, high, rate = (self._fields.frequency_min, self._fields.frequency_max, self._fields.sampling_rate)
        to_mel, to_hertz = (_htk, _htk_hertz) if self.has_fusion else (_slaney, _slaney_hertz)
        lowest, highest = to_mel(np.array([low, high], np.float64))
        corners = to_hertz(np.linspace(float(lowest), float(highest), self._fields.feature_size + 2))
        frequencies_K1 = np.linspace(0, rate // 2, self._fields.fft_window_size // 2 + 1)[:, None]
        rising_KM = (frequencies_K1 - corners[:-2]) / np.diff(corners)[:-1]
        falling_KM = (corners[2:] - frequencies_K1) / np.diff(corners)[1:]
        filters_KM = np.maximum(0, np.minimum(rising_KM, falling_KM))
        return scipy.sparse.csr_array(filters_KM if self.has_fusion else filters_KM * 2 / (corners[2:] - corners[:-2]))


def _htk(hertz: np.ndarray) -> np.ndarray:
    return 2595 * np.log10(1 + hertz / 700)


def _htk_hertz(mel: np.ndarray) -> np.ndarray:
    return 700 * (10 ** (mel / 2595) - 1)


def _slaney(hertz: np.ndarray) -> np.ndarray:
    """Slaney's Auditory Toolbox (1998): linear to 1 kHz, then 27 steps for a factor of 6.4."""
    return np.where(hertz < 1000, 3 * hertz / 200, 15 + 27 * np.log(np.maximum(hertz, 1) / 1000) / np.log(6.4))


def _slaney_hertz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, 200 * mel / 3, 1000 * 6.4 ** ((mel - 15) / 27))


def _shrunk(mel_FM: Float[np.ndarray, "frames M"], frames: int) -> Float[np.ndarray, "T M"]:
    """Linear interpolation in time at the middles of T equal spans, as torch's "bilinear" without align_corners.

    The places are rounded as there (a fused multiplication and subtraction in float32): in a long sound one rounding
    more would move them by a part of a frame that is heard.
    """
    scale = np.float64(np.float32(len(mel_FM)) / np.float32(frames))
    places_T = np.maximum(scale * (np.arange(frames) + 0.5) - 0.5, 0).astype(np.float32)
    before_T = places_T.astype(int)
    after_T = np.minimum(before_T + 1, len(mel_FM) - 1)
    share_T1 = (places_T - before_T).astype(np.float32)[:, None]
    return mel_FM[before_T] * (1 - share_T1) + mel_FM[after_T] * share_T1


def sinc_resampled(sound: Float[np.ndarray, "samples"], rate: int, wanted: int) -> Float[np.ndarray, "resampled"]:
    """A sound at another rate as torchaudio.functional.resample makes it by default, which AudioLDM's program does.

    A sinc six zero crossings long on each side, in a Hann window: above its cutoff at 0.99 of the lower rate's half it
    leaves of a sound what a tower hears, which is why no better resampler is in its place.
    """
    common = math.gcd(rate, wanted)
    rate, wanted = rate // common, wanted // common
    cutoff = 0.99 * min(rate, wanted)
    width = math.ceil(6 * rate / cutoff)
    apart = (np.arange(-width, width + rate) / rate - np.arange(wanted)[:, None] / wanted) * cutoff
    apart = apart.clip(-6, 6)
    kernels = (np.sinc(apart) * np.cos(np.pi * apart / 12) ** 2 * cutoff / rate).astype(np.float32)
    padded = np.pad(sound, (width, width + rate))
    around = np.lib.stride_tricks.sliding_window_view(padded, kernels.shape[1])[::rate]
    return (around @ kernels.T).reshape(-1)[: -(-wanted * len(sound) // rate)]

"""Sound synthesis methods shared by the voices of all sources."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
import scipy.fft
from jaxtyping import Float

SAMPLE_RATE = 16_000
TABLE = 4096  # samples of one period
MAX_HERTZ = 7600.0  # higher harmonics would alias
EDGE = 0.12  # of noise bands: standard deviation in natural log-frequency
TRAITS = 4  # of a clip, see Event

Number = float | int
Samples = Float[np.ndarray, " N"]


def arch(fraction: Samples) -> Samples:
    """Returns half a period of a sine: 0 at 0, 1 at 0.5 and 0 at 1."""
    return np.maximum(np.sin(np.pi * fraction), 0)


def band_noise(samples: int, low: Number, high: Number, rng: np.random.Generator, edge: float = EDGE) -> Samples:
    """Returns noise of unit RMS between two frequencies in hertz. Outside of the band, amplitudes fall as a Gaussian of
    log-frequency with standard deviation `edge`."""
    points = scipy.fft.next_fast_len(samples, real=True)
    width = SAMPLE_RATE / points  # of a frequency bin, in hertz
    first = max(1, int(low * math.exp(-4 * edge) / width))
    lines = np.arange(first, min(points // 2, int(high * math.exp(4 * edge) / width) + 1), dtype=np.float32)
    logs = np.log(lines)
    outside = np.maximum(np.maximum(math.log(low / width) - logs, logs - math.log(high / width)), 0)
    gain = np.exp(-0.5 * (outside / edge) ** 2)
    real, imaginary = rng.standard_normal((2, len(lines)), dtype=np.float32) * gain
    spectrum = np.zeros(points // 2 + 1, np.complex64)
    spectrum[first : first + len(lines)] = real + 1j * imaginary
    noise = scipy.fft.irfft(spectrum, points)[:samples]
    return noise / np.sqrt(np.mean(noise**2))


@dataclasses.dataclass(frozen=True, eq=False)
class Event:
    """Parameters of a single event, such as one bark.

    samples: length at 16 kHz. pitch: factor relative to the mean pitch of the source. traits: numbers in 0..1, shared
    by all events of a clip, so that they sound like the same thing.
    """

    samples: int
    pitch: float
    traits: Sequence[float]
    rng: np.random.Generator

    @functools.cached_property
    def time(self) -> Samples:
        """Time in seconds."""
        return np.arange(self.samples, dtype=np.float32) / SAMPLE_RATE

    @functools.cached_property
    def progress(self) -> Samples:
        """Time scaled to 0 at the start and 1 at the end."""
        return np.linspace(0, 1, self.samples, dtype=np.float32)

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return self.samples / SAMPLE_RATE

    def trait(self, index: int, low: Number, high: Number) -> float:
        """Scales a trait to the range from low to high."""
        return low + (high - low) * self.traits[index]

    def fade(self, attack: Number, release: Number) -> Samples:
        """Returns an envelope that rises in `attack` seconds and falls in the last `release` seconds, as sin²."""
        rising = np.minimum(self.time / attack, 1)
        falling = np.minimum((self.seconds - self.time) / release, 1)
        return np.sin(np.pi / 2 * rising) ** 2 * np.sin(np.pi / 2 * falling) ** 2

    def curve(self, *values: Number) -> Samples:
        """Interpolates linearly between values equally spaced over the event."""
        return np.interp(self.progress, np.linspace(0, 1, len(values)), values).astype(np.float32)

    def tone(self, hertz: Number | Samples, amplitudes: Sequence[Number] = (1,)) -> Samples:
        """Returns a harmonic tone of constant or varying pitch, without harmonics above 7.6 kHz."""
        cycles = np.cumsum(np.broadcast_to(np.asarray(hertz, np.float64), self.samples)) / SAMPLE_RATE
        count = max(1, min(len(amplitudes), int(MAX_HERTZ / np.max(hertz))))
        if count == 1:
            return (amplitudes[0] * np.sin(2 * np.pi * (cycles % 1).astype(np.float32))).astype(np.float32)
        spectrum = np.zeros(TABLE // 2 + 1, np.complex64)
        spectrum[1 : count + 1] = -0.5j * TABLE * np.asarray(amplitudes[:count], np.float32)
        table = scipy.fft.irfft(spectrum, TABLE)
        position = (cycles % 1) * TABLE
        below = position.astype(np.int64)
        fraction = (position - below).astype(np.float32)
        table = np.append(table, table[0])
        return table[below] * (1 - fraction) + table[below + 1] * fraction

    def noise(self, low: Number, high: Number) -> Samples:
        """Returns noise of unit RMS between two frequencies in hertz."""
        return band_noise(self.samples, low, high, self.rng)

    def spoken(self, source: Samples, *vowels: Sequence[Number], stretch: float = 1.0) -> Samples:
        """Filters a source with formants that move from vowel to vowel (Fant's source–filter model).

        vowels: formants in hertz at equally spaced times, to be multiplied by pitch and stretch.
        """
        points = scipy.fft.next_fast_len(self.samples, real=True)
        lines = np.arange(points // 2 + 1, dtype=np.float32) * (SAMPLE_RATE / points / self.pitch / stretch)
        spectrum = scipy.fft.rfft(source, points)
        spoken = np.zeros(self.samples, np.float32)
        for vowel, weights in zip(vowels, np.eye(len(vowels)).tolist(), strict=True):
            gains = (0.6**n / (1 + ((lines - hertz) / (0.12 * hertz + 30)) ** 2) for n, hertz in enumerate(vowel))
            weight = self.curve(*weights) if len(vowels) > 1 else 1.0
            spoken += weight * scipy.fft.irfft(spectrum * sum(gains), points)[: self.samples]
        return spoken

    def scatter(self, starts: Float[np.ndarray, " G"], grains: Float[np.ndarray, "G T"]) -> Samples:
        """Adds up grains (rows) that start at given seconds; cuts the sum at the end of the event."""
        first = (np.asarray(starts) * SAMPLE_RATE).astype(np.int64)
        places = first[:, None] + np.arange(grains.shape[1])
        mixed = np.bincount(places.ravel(), grains.ravel(), minlength=self.samples)
        return mixed[: self.samples].astype(np.float32)

    def rings(
        self, hertz: Float[np.ndarray, " G"], decay: Float[np.ndarray, " G"] | float, seconds: float
    ) -> Float[np.ndarray, "G T"]:
        """Returns grains of sines that decay to 1/e in `decay` seconds."""
        time = np.arange(int(seconds * SAMPLE_RATE), dtype=np.float32) / SAMPLE_RATE
        decays = np.broadcast_to(np.asarray(decay, np.float32), len(hertz))
        return np.sin(2 * np.pi * np.asarray(hertz, np.float32)[:, None] * time) * np.exp(-time / decays[:, None])

    def clicks(self, decay: Float[np.ndarray, " G"], seconds: float) -> Float[np.ndarray, "G T"]:
        """Returns grains of white noise that decay to 1/e in `decay` seconds."""
        time = np.arange(int(seconds * SAMPLE_RATE), dtype=np.float32) / SAMPLE_RATE
        noise = self.rng.standard_normal((len(decay), len(time)), dtype=np.float32)
        return noise * np.exp(-time / np.asarray(decay, np.float32)[:, None])

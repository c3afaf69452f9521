"""Synthesises the sounds of the mini world: clips of 2.56 seconds.

A clip has one separate event for each thing in the scene; small things sound high and large ones low. The background is
surf at the shore and near silence in a field. Echo and noise exist only in sounds.
"""

import math

import numpy as np
import scipy.fft
from jaxtyping import Float

from c2c_jax.miniworld import voices
from c2c_jax.miniworld.event import SAMPLE_RATE, TRAITS, Event, Samples, band_noise
from c2c_jax.miniworld.world import Scene

SAMPLES = 40_960  # 2.56 s, 256 frames of a mel-spectrogram
OCTAVES = (0.35, 0.8)  # above or below the mean pitch of a source
SECONDS = {1: (0.5, 0.75), 2: (0.42, 0.62), 3: (0.38, 0.46)}  # of one event, by count
GAP = (0.3, 0.55)  # seconds of silence between events
EDGES = (0.03, 0.08)  # seconds of silence before the first and after the last event
LEVEL = 0.09  # RMS of an event
CREST = 6.0  # maximum peak of an event, in LEVELs
GAIN = (0.6, 1.4)  # of the clip
REVERBERATION = (0.35, 0.5)  # seconds in which an echo decays by 60 dB
TAIL = (0.5, 0.8)  # energy of the echo relative to the sound
SURF = ((200.0, 700.0), (700.0, 2200.0))  # hertz: steady noise, and foam
SURF_DB, HISS_DB, HUM_DB, AIR_DB = (-16.0, -12.0), (-32.0, -26.0), (-24.0, -18.0), (-57.0, -53.0)  # relative to LEVEL
MAINS = 50.0  # hertz
PEAK = 0.98


def synthesise(scene: Scene, rng: np.random.Generator) -> Float[np.ndarray, "40960"]:
    """Synthesises the sound of a scene at 16 kHz, float32 in -1..1; `rng` decides what the scene does not specify."""
    gain = rng.uniform(*GAIN)  # drawn first, so that scenes that differ in one attribute have the same gain
    clip = events(scene, rng)
    if scene.echo == "echo":
        clip = with_echo(clip, rng)
    air = HISS_DB if scene.noise == "hiss" else AIR_DB
    clip += _level(air, rng) * rng.standard_normal(SAMPLES, dtype=np.float32)
    if scene.noise == "hum":
        clip += _level(HUM_DB, rng) * hum(rng)
    if scene.place == "shore":
        clip += _level(SURF_DB, rng) * surf(rng)
    clip *= gain
    return clip * np.float32(min(1.0, PEAK / np.abs(clip).max()))


def events(scene: Scene, rng: np.random.Generator) -> Samples:
    """Synthesises the events of a scene, without echo and background."""
    octaves = rng.uniform(*OCTAVES) * (1 if scene.size == "small" else -1)
    traits = rng.random(TRAITS).tolist()
    seconds = rng.uniform(*SECONDS[scene.count])
    clip = np.zeros(SAMPLES, np.float32)
    for start in _starts(scene.count, seconds, rng):
        event = Event(int(seconds * SAMPLE_RATE), 2**octaves * rng.uniform(0.98, 1.02), traits, rng)
        samples = getattr(voices, scene.source)(event)
        loudness = max(float(np.sqrt(np.mean(samples**2))), float(np.abs(samples).max()) / CREST)
        first = int(start * SAMPLE_RATE)
        clip[first : first + event.samples] = samples * (LEVEL * rng.uniform(0.85, 1.15) / loudness)
    return clip


def _starts(count: int, seconds: float, rng: np.random.Generator) -> Float[np.ndarray, " count"]:
    """Draws the start times of events in seconds, at nearly equal distances."""
    room = SAMPLES / SAMPLE_RATE - sum(EDGES) - count * seconds
    gaps = np.zeros(count)
    if count > 1:
        gap = rng.uniform(GAP[0], min(GAP[1], room / (count - 1) / 1.08))
        gaps[1:] = gap * rng.uniform(0.92, 1.08, count - 1)
    return EDGES[0] + rng.uniform(0, room - gaps.sum()) + np.cumsum(gaps) + seconds * np.arange(count)


def with_echo(clip: Samples, rng: np.random.Generator) -> Samples:
    """Adds reverberation to a clip: a tail of exponentially decaying noise (Moorer 1979)."""
    reverberation = rng.uniform(*REVERBERATION)
    time = np.arange(int(reverberation * SAMPLE_RATE), dtype=np.float32) / SAMPLE_RATE
    tail = rng.standard_normal(len(time), dtype=np.float32) * np.exp(-math.log(1000) / reverberation * time)
    tail *= math.sqrt(rng.uniform(*TAIL) / float(np.sum(tail**2)))
    tail[0] = 1
    points = scipy.fft.next_fast_len(SAMPLES + len(time), real=True)
    return scipy.fft.irfft(scipy.fft.rfft(clip, points) * scipy.fft.rfft(tail, points), points)[:SAMPLES]


def surf(rng: np.random.Generator) -> Samples:
    """Synthesises waves of unit RMS: steady low noise, and foam that swells slowly."""
    time = np.arange(SAMPLES, dtype=np.float32) / SAMPLE_RATE
    swell = 0.5 - 0.5 * np.cos(2 * np.pi * (rng.uniform(0.35, 0.6) * time + rng.uniform(0, 1)))
    low, high = (band_noise(SAMPLES, *band, rng, edge=0.3) for band in SURF)
    waves = low * (0.7 + 0.6 * swell) + high * (0.3 + swell)
    return waves / waves.std()


def hum(rng: np.random.Generator) -> Samples:
    """Synthesises mains hum of unit RMS: 50 Hz and its multiples."""
    order = np.arange(1, 9)
    loudness = np.array([1, 0.8, 0.6, 0.35, 0.3, 0.2, 0.15, 0.1]) * rng.uniform(0.8, 1.2, len(order))
    period = int(SAMPLE_RATE / MAINS)
    phase = 2 * np.pi * (np.outer(np.arange(period) / period, order) + rng.uniform(0, 1, len(order)))
    wave = np.sin(phase) @ loudness
    return np.resize(wave / wave.std(), SAMPLES).astype(np.float32)


def _level(decibels: tuple[float, float], rng: np.random.Generator) -> float:
    """Draws the RMS of a background from a range of decibels relative to LEVEL."""
    return LEVEL * 10 ** (rng.uniform(*decibels) / 20)

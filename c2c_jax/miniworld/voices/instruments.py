"""What is struck, plucked and blown: bell, drum, trumpet, piano and guitar."""

import math

import numpy as np
import scipy.fft
from jaxtyping import Float

from c2c_jax.miniworld.voices.event import SAMPLE_RATE, Event, Samples


def bell(event: Event) -> Samples:
    """A church bell's partials (hum, prime, tierce, quint, nominal and above), the high ones dying first."""
    ratios = np.array([0.5, 1, 1.2, 1.5, 2, 2.62, 3.0, 4.15, 5.4])
    loudness = np.array([0.35, 0.8, 0.6, 0.35, 1, 0.4, 0.5, 0.35, 0.25])
    loudness = loudness * event.trait(0, 0.93, 1.08) ** np.arange(len(ratios))
    decay = event.trait(1, 0.28, 0.4) * ratios**-0.6
    ringing = loudness @ event.rings(610 * event.pitch * ratios, decay, event.seconds + 0.001)
    return ringing[: event.samples].astype(np.float32) * event.fade(0.002, 0.35 * event.seconds)


def drum(event: Event) -> Samples:
    """A membrane's partials whose pitch drops after the blow, and the stick's slap."""
    drop = 1 + event.trait(0, 0.7, 1.1) * np.exp(-event.time / 0.03)
    modes = ((1, 1, 0.16), (1.59, 0.5, 0.08), (2.14, 0.35, 0.06), (2.65, 0.25, 0.045))
    skin = sum(
        loudness
        * event.tone(120 * event.pitch * ratio * drop)
        * np.exp(-event.time / (decay * event.trait(1, 0.8, 1.1)))
        for ratio, loudness, decay in modes
    )
    slap = event.noise(350 * event.pitch, 1600 * event.pitch) * np.exp(-event.time / 0.015)
    return (skin + 0.5 * slap) * event.fade(0.002, 0.1)


def trumpet(event: Event) -> Samples:
    """A short note and a long one a fourth above it, brighter where they are louder."""
    turn = event.trait(0, 0.2, 0.3)
    first = event.progress < turn
    vibrato = 1 + 0.008 * np.sin(2 * np.pi * 5.5 * event.time) * ~first
    hertz = 440 * event.pitch * np.where(first, 3 / 4, 1) * vibrato
    since = np.where(first, event.time, event.time - turn * event.seconds)
    left = np.where(first, turn * event.seconds - event.time, event.seconds - event.time)
    swell = np.clip(since / 0.05, 0, 1) * np.clip(left / np.where(first, 0.02, 0.07), 0, 1)
    dull, bright = ([k**0.3 * math.exp(-k / width) for k in range(1, 17)] for width in (1.2, event.trait(1, 4, 6)))
    return swell * event.tone(hertz, dull) + swell**2 * event.tone(hertz, bright)


def piano(event: Event) -> Samples:
    """Two struck strings, one after the other: stiff, so that partials are a little sharp; high ones die first."""
    second = 0.42 * event.seconds
    interval = (5 / 4, 4 / 3, 3 / 2)[int(event.trait(0, 0, 2.99))]
    order = np.arange(1, 9)
    ratios = order * np.sqrt((1 + 4e-4 * order**2) / (1 + 4e-4))
    loudness = event.trait(1, 0.5, 0.65) ** (order - 1)
    notes = []
    for start, ratio in ((0.0, 1.0), (second, interval)):
        strings = event.rings(300 * event.pitch * ratio * ratios, 0.35 / (1 + 0.6 * (order - 1)), event.seconds - start)
        notes.append(event.scatter(np.array([start]), (loudness @ strings)[None]))
    hammer = event.scatter(np.array([0, second]), event.clicks(np.full(2, 0.004), 0.02))
    return (notes[0] + notes[1] + 0.15 * hammer) * event.fade(0.003, 0.1)


def guitar(event: Event) -> Samples:
    """A chord strummed, string after string, all plucked at one place: harmonic k starts as |sin(π k place)| / k."""
    strum = event.trait(0, 0.012, 0.028)
    place = event.trait(1, 0.14, 0.3)
    chord = np.zeros(event.samples, np.float32)
    for index, ratio in enumerate((1, 3 / 2, 2.5)):
        start = int(index * strum * SAMPLE_RATE)
        period = round(SAMPLE_RATE / (165 * event.pitch * ratio))
        harmonics = np.arange(1, period // 2 + 1)
        phases = np.exp(2j * np.pi * event.rng.random(len(harmonics)))
        plucked = np.concatenate([[0], np.sin(np.pi * place * harmonics) / harmonics * phases])
        chord[start:] += string(np.fft.irfft(plucked, period), event.trait(2, 0.985, 0.993), event.samples - start)
    return chord * event.fade(0.002, 0.08)


def string(shape: Float[np.ndarray, " period"], loss: float, samples: int) -> Samples:
    """A plucked string: a period of any shape, averaged with its neighbour at every turn (Karplus and Strong 1983).

    In closed form: after j turns each harmonic is multiplied by the average's response to the power of j.
    """
    harmonics = np.arange(len(shape) // 2 + 1)
    average = loss * 0.5 * (1 + np.exp(-2j * np.pi * harmonics / len(shape)))
    turns = np.arange(-(-samples // len(shape)), dtype=np.float32)[:, None]
    powers = np.exp(turns * np.log(average + 1e-9).astype(np.complex64))
    rows = scipy.fft.irfft(scipy.fft.rfft(shape.astype(np.float32)) * powers, len(shape), axis=1)
    return rows.ravel()[:samples]

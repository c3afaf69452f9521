"""What lives: bird, bee, dog, frog, cat, cow and cricket."""

import dataclasses

import numpy as np

from c2c_jax.miniworld.voices.event import SAMPLE_RATE, Event, Samples, arch

GLOTTIS = tuple(1 / k for k in range(1, 41))  # amplitudes of a voice's harmonics at their source


def bird(event: Event) -> Samples:
    """Chirps in a row, each a quick sweep; every second one sweeps the other way."""
    chirps = round(event.seconds / event.trait(0, 0.075, 0.1))
    chirp, within = np.divmod(event.progress * chirps * 0.9999, 1)
    sweep = np.where(chirp % 2, within - 0.5, 0.5 - within) * (1 if event.traits[1] < 0.5 else -1)
    leap = event.rng.uniform(0.9, 1.1, chirps)[chirp.astype(int)]
    hertz = 2500 * event.pitch * leap * (1 + event.trait(2, 0.35, 0.55) * sweep)
    return event.tone(hertz, (1, 0.12)) * arch(np.minimum(within / 0.85, 1)) ** 0.7


def bee(event: Event) -> Samples:
    """Wings: a buzz whose pitch wanders, nearer and farther."""
    steps = np.cumsum(event.rng.normal(0, 0.035, 10))
    wander = event.curve(*(1 + steps - steps.mean()))
    near = 1 + event.trait(0, 0.2, 0.35) * np.sin(
        2 * np.pi * (event.trait(1, 9, 14) * event.time + event.between(0, 1))
    )
    order = np.arange(1, 31)
    wings = event.tone(215 * event.pitch * wander, (order**-0.5 * (0.4 + 0.6 * (order % 2))).tolist())
    return near * wings * event.fade(0.08, 0.1)


WOOF = ((350, 700, 2000), (600, 1250, 2400), (600, 1250, 2400), (450, 900, 2300))


def dog(event: Event) -> Samples:
    """A bark, w-oo-f: a harsh voice that leaps up and falls under a mouth that opens and closes, and rest after it."""
    bark = dataclasses.replace(event, samples=min(event.samples, int(event.trait(0, 0.34, 0.42) * SAMPLE_RATE)))
    voice = bark.tone(270 * bark.pitch * bark.curve(0.75, 1.3, 1.15, 0.85, 0.6), GLOTTIS)
    rough = 1 + bark.trait(1, 0.4, 0.8) * bark.noise(30, 90)
    breath = bark.noise(500 * bark.pitch, 3000 * bark.pitch)
    mouth = bark.spoken(voice * rough + 0.12 * breath, *WOOF)
    loudness = bark.curve(0, 0.5, 1, 0.9, 0.5, 0.2, 0.06, 0)
    return np.pad(mouth * loudness, (0, event.samples - bark.samples))


def frog(event: Event) -> Samples:
    """Rib-bit: two runs of pulses that ring in its throat, the second higher."""
    rate = event.trait(0, 34, 42)
    starts = np.arange(0.005, event.seconds - 0.03, 1 / rate)
    second = starts > event.trait(1, 0.35, 0.45) * event.seconds
    hertz = 520 * event.pitch * np.where(second, 1.25, 1)
    loud = np.where(second, 1.0, 0.7) * (0.35 + 0.65 * np.abs(np.sin(np.pi * starts / event.seconds * 2)))
    throat = event.rings(hertz, 0.005, 0.03) + 0.5 * event.rings(2.3 * hertz, 0.004, 0.03)
    return event.scatter(starts, throat * loud[:, None]) * event.fade(0.004, 0.03)


MEOW = ((500, 2500), (900, 2300, 3400), (950, 1600, 3000), (600, 1000))


def cat(event: Event) -> Samples:
    """Mi-a-ow: a clear voice, up and down, from a narrow to a wide to a round mouth."""
    hertz = 470 * event.pitch * event.curve(0.85, 1.15, 1.25, 1.1, 0.8) * (1 + 0.01 * np.sin(40 * event.time))
    voice = event.spoken(event.tone(hertz, GLOTTIS), *MEOW, stretch=event.trait(0, 0.95, 1.05))
    return voice * event.curve(0, 0.7, 1, 0.9, 0.6, 0)


MOO = ((250, 1100), (430, 800, 2200), (500, 900, 2300), (380, 700))


def cow(event: Event) -> Samples:
    """Moo: a long, low voice behind closed lips that open, and a fall at the end."""
    hertz = 150 * event.pitch * event.curve(0.82, 0.95, 1, 1, 0.95, 0.75)
    voice = event.tone(hertz, [1 / k**0.8 for k in range(1, 31)]) * (1 + 0.15 * event.noise(20, 60))
    return event.spoken(voice, *MOO, stretch=event.trait(0, 0.95, 1.05)) * event.fade(0.08, 0.12)


def cricket(event: Event) -> Samples:
    """Chirps of a few pulses each at one high pitch, as a wing is drawn over the other."""
    pulses = int(event.trait(0, 3, 4.99))
    period = event.trait(1, 0.019, 0.023)
    chirp = (pulses + 2.5) * period
    within = event.time % chirp
    beat = arch(within / period % 1) ** 1.5 * (within < pulses * period)
    return (
        event.tone(3500 * event.pitch) * beat * np.sqrt(np.minimum(within / period, 3) + 0.2) * event.fade(0.005, 0.01)
    )

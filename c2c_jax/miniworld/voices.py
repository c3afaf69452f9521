"""Synthesises the events of each source of the mini world, by one function per source, with the source's name."""

import dataclasses
import math

import numpy as np
import scipy.fft
from jaxtyping import Float

from c2c_jax.miniworld.event import SAMPLE_RATE, Event, Samples, arch

GLOTTIS = tuple(1 / k for k in range(1, 41))  # amplitudes of the harmonics of a voice before the vocal tract


def bird(event: Event) -> Samples:
    """A bird: a series of chirps, which are quick sweeps in alternating directions."""
    chirps = round(event.seconds / event.trait(0, 0.075, 0.1))
    chirp, within = np.divmod(event.progress * chirps * 0.9999, 1)
    sweep = np.where(chirp % 2, within - 0.5, 0.5 - within) * (1 if event.traits[1] < 0.5 else -1)
    leap = event.rng.uniform(0.9, 1.1, chirps)[chirp.astype(int)]
    hertz = 2500 * event.pitch * leap * (1 + event.trait(2, 0.35, 0.55) * sweep)
    return event.tone(hertz, (1, 0.12)) * arch(np.minimum(within / 0.85, 1)) ** 0.7


def bee(event: Event) -> Samples:
    """A bee: a buzz whose pitch wanders and whose loudness pulses."""
    steps = np.cumsum(event.rng.normal(0, 0.035, 10))
    wander = event.curve(*(1 + steps - steps.mean()))
    beats = event.trait(1, 9, 14) * event.time + event.rng.uniform(0, 1)
    near = 1 + event.trait(0, 0.2, 0.35) * np.sin(2 * np.pi * beats)
    order = np.arange(1, 31)
    wings = event.tone(215 * event.pitch * wander, (order**-0.5 * (0.4 + 0.6 * (order % 2))).tolist())
    return near * wings * event.fade(0.08, 0.1)


WOOF = ((350, 700, 2000), (600, 1250, 2400), (600, 1250, 2400), (450, 900, 2300))


def dog(event: Event) -> Samples:
    """A dog: one bark, a harsh voice with rising and falling pitch and moving formants, then silence."""
    bark = dataclasses.replace(event, samples=min(event.samples, int(event.trait(0, 0.34, 0.42) * SAMPLE_RATE)))
    voice = bark.tone(270 * bark.pitch * bark.curve(0.75, 1.3, 1.15, 0.85, 0.6), GLOTTIS)
    rough = 1 + bark.trait(1, 0.4, 0.8) * bark.noise(30, 90)
    breath = bark.noise(500 * bark.pitch, 3000 * bark.pitch)
    mouth = bark.spoken(voice * rough + 0.12 * breath, *WOOF)
    loudness = bark.curve(0, 0.5, 1, 0.9, 0.5, 0.2, 0.06, 0)
    return np.pad(mouth * loudness, (0, event.samples - bark.samples))


def frog(event: Event) -> Samples:
    """A frog: two series of resonating pulses, the second higher."""
    rate = event.trait(0, 34, 42)
    starts = np.arange(0.005, event.seconds - 0.03, 1 / rate)
    second = starts > event.trait(1, 0.35, 0.45) * event.seconds
    hertz = 520 * event.pitch * np.where(second, 1.25, 1)
    loud = np.where(second, 1.0, 0.7) * (0.35 + 0.65 * np.abs(np.sin(np.pi * starts / event.seconds * 2)))
    throat = event.rings(hertz, 0.005, 0.03) + 0.5 * event.rings(2.3 * hertz, 0.004, 0.03)
    return event.scatter(starts, throat * loud[:, None]) * event.fade(0.004, 0.03)


MEOW = ((500, 2500), (900, 2300, 3400), (950, 1600, 3000), (600, 1000))


def cat(event: Event) -> Samples:
    """A cat: a meow, a clear voice whose pitch rises and falls, with moving formants."""
    hertz = 470 * event.pitch * event.curve(0.85, 1.15, 1.25, 1.1, 0.8) * (1 + 0.01 * np.sin(40 * event.time))
    voice = event.spoken(event.tone(hertz, GLOTTIS), *MEOW, stretch=event.trait(0, 0.95, 1.05))
    return voice * event.curve(0, 0.7, 1, 0.9, 0.6, 0)


MOO = ((250, 1100), (430, 800, 2200), (500, 900, 2300), (380, 700))


def cow(event: Event) -> Samples:
    """A cow: a moo, a long low voice with opening formants and a falling end."""
    hertz = 150 * event.pitch * event.curve(0.82, 0.95, 1, 1, 0.95, 0.75)
    voice = event.tone(hertz, [1 / k**0.8 for k in range(1, 31)]) * (1 + 0.15 * event.noise(20, 60))
    return event.spoken(voice, *MOO, stretch=event.trait(0, 0.95, 1.05)) * event.fade(0.08, 0.12)


def cricket(event: Event) -> Samples:
    """A cricket: chirps of a few pulses at one high pitch."""
    pulses = int(event.trait(0, 3, 4.99))
    period = event.trait(1, 0.019, 0.023)
    chirp = (pulses + 2.5) * period
    within = event.time % chirp
    beat = arch(within / period % 1) ** 1.5 * (within < pulses * period)
    swell = np.sqrt(np.minimum(within / period, 3) + 0.2)
    return event.tone(3500 * event.pitch) * beat * swell * event.fade(0.005, 0.01)


def bell(event: Event) -> Samples:
    """A church bell: its partials (hum, prime, tierce, quint, nominal and above), the higher decaying faster."""
    ratios = np.array([0.5, 1, 1.2, 1.5, 2, 2.62, 3.0, 4.15, 5.4])
    loudness = np.array([0.35, 0.8, 0.6, 0.35, 1, 0.4, 0.5, 0.35, 0.25])
    loudness = loudness * event.trait(0, 0.93, 1.08) ** np.arange(len(ratios))
    decay = event.trait(1, 0.28, 0.4) * ratios**-0.6
    ringing = loudness @ event.rings(610 * event.pitch * ratios, decay, event.seconds + 0.001)
    return ringing[: event.samples].astype(np.float32) * event.fade(0.002, 0.35 * event.seconds)


def drum(event: Event) -> Samples:
    """A drum: partials of a membrane, which drop in pitch, and a burst of noise from the stick."""
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
    """A trumpet: a short note and a long one a fourth above it; louder parts are brighter."""
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
    """A piano: two notes with the slightly sharp partials of stiff strings; higher partials decay faster."""
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
    """A guitar: a strummed chord of strings plucked at one place; harmonic k starts as |sin(π k place)| / k."""
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
    """Synthesises a plucked string by the Karplus-Strong algorithm (1983): a period that is averaged with its neighbour
    in every turn.

    In closed form: after j turns, each harmonic is multiplied by the filter's response to the power of j.
    """
    harmonics = np.arange(len(shape) // 2 + 1)
    average = loss * 0.5 * (1 + np.exp(-2j * np.pi * harmonics / len(shape)))
    turns = np.arange(-(-samples // len(shape)), dtype=np.float32)[:, None]
    powers = np.exp(turns * np.log(average + 1e-9).astype(np.complex64))
    rows = scipy.fft.irfft(scipy.fft.rfft(shape.astype(np.float32)) * powers, len(shape), axis=1)
    return rows.ravel()[:samples]


def car(event: Event) -> Samples:
    """A car: an engine that revs up, changes gear and revs up again; every second stroke is louder."""
    change = event.trait(0, 0.45, 0.6)
    first = event.progress < change
    rev = np.where(first, event.progress / change, 0.35 + 0.6 * (event.progress - change) / (1 - change))
    hertz = 80 * event.pitch * (1 + 1.3 * rev)
    order = np.arange(1, 25)
    strokes = event.tone(hertz, (order**-0.4 * np.where(order % 2, 0.45, 1)).tolist())
    exhaust = event.spoken(strokes, (300, 900, 1900))
    air = event.noise(120 * event.pitch, 700 * event.pitch)
    clutch = 1 - 0.6 * np.exp(-(((event.progress - change) / 0.05) ** 2))
    loudness = (0.5 + 0.5 * rev) * clutch * event.fade(0.04, 0.08)
    return (exhaust / exhaust.std() + event.trait(1, 0.15, 0.3) * air) * loudness


def siren(event: Event) -> Samples:
    """A siren: two alternating tones, or one that wails up and down."""
    turns = max(1, round(event.seconds / event.trait(0, 0.24, 0.3)))
    phase = event.progress * turns
    is_wailing = event.traits[1] >= 0.5
    bend = 1.15 - 0.35 * np.cos(2 * np.pi * phase) if is_wailing else np.where(phase % 1 < 0.5, 1.0, 4 / 3)
    return event.tone(640 * event.pitch * bend, (1, 0.55, 0.5, 0.2, 0.2)) * event.fade(0.03, 0.05)


def clock(event: Event) -> Samples:
    """A clock: alternating high and low ticks of wood and brass."""
    starts = np.arange(0.005, event.seconds - 0.04, event.trait(0, 0.095, 0.12))
    tick = np.arange(len(starts)) % 2 == 0
    hertz = 2100 * event.pitch * np.where(tick, 1.15, 0.87)
    blows = event.rings(hertz, 0.007, 0.05) + 0.4 * event.rings(1.62 * hertz, 0.004, 0.05)
    knock = event.rings(0.36 * hertz, 0.006, 0.05)
    return event.scatter(starts, blows + event.trait(1, 0.4, 0.8) * knock)


def windmill(event: Event) -> Samples:
    """A windmill: wind noise whose pitch rises and falls with each blade."""
    blades = max(2, round(event.seconds / event.trait(0, 0.17, 0.22)))
    passing = np.sin(np.pi * event.progress * blades) ** 2
    low = event.noise(260 * event.pitch, 480 * event.pitch)
    high = event.noise(520 * event.pitch, 900 * event.pitch)
    return (low * (0.55 + 0.45 * passing) + event.trait(1, 0.6, 0.9) * high * passing**2) * event.fade(0.1, 0.12)


def train(event: Event) -> Samples:
    """A train: the chord of a steam whistle over the chuffing of the engine."""
    rise = 1 - 0.06 * np.exp(-event.time / 0.04)
    chord = sum(event.tone(hertz * event.pitch * rise, (1, 0.25)) for hertz in (370, 466, 554))
    steam = event.noise(1200 * event.pitch, 3200 * event.pitch)
    chuff = event.noise(180 * event.pitch, 700 * event.pitch)
    beat = np.exp(-(event.time % event.trait(0, 0.1, 0.13)) / 0.03)
    whistle = chord * event.fade(0.04, 0.08) + event.trait(1, 0.15, 0.3) * steam * (0.4 + beat)
    return whistle * event.fade(0.01, 0.04) + 1.2 * chuff * beat * event.fade(0.01, 0.02)


def phone(event: Event) -> Samples:
    """A phone: a clapper that alternates between two gongs, at least 24 times a second."""
    starts = np.arange(0.003, event.seconds - 0.05, 1 / event.trait(0, 24, 30))
    other = np.arange(len(starts)) % 2 == 1
    hertz = 1150 * event.pitch * np.where(other, event.trait(1, 1.2, 1.26), 1)
    gongs = event.rings(hertz, 0.05, 0.15) + 0.6 * event.rings(2.7 * hertz, 0.025, 0.15)
    return event.scatter(starts, gongs) * event.fade(0.002, 0.04)


def saw(event: Event) -> Samples:
    """A saw: rasping strokes, faster in the middle; the back strokes are lower and softer."""
    strokes = 2 * max(1, round(event.seconds / event.trait(0, 0.3, 0.4)))
    stroke, within = np.divmod(event.progress * strokes * 0.9999, 1)
    speed = arch(within)
    back = stroke % 2 == 1
    teeth = 0.5 + 0.5 * event.tone(event.pitch * (45 + 75 * speed) * np.where(back, 0.8, 1))
    forth = event.noise(1300 * event.pitch, 2700 * event.pitch)
    rasp = np.where(back, 0.7 * event.noise(850 * event.pitch, 1700 * event.pitch), forth)
    blade = event.tone(690 * event.pitch * (1 + 0.12 * speed), (1, 0.5))
    return (rasp * teeth**2 + event.trait(1, 0.15, 0.3) * blade) * (0.05 + 0.95 * speed) * event.fade(0.02, 0.03)


def kettle(event: Event) -> Samples:
    """A kettle: a rising whistle and the hiss of steam."""
    rise = event.progress ** event.trait(0, 0.45, 0.7)
    hertz = 1500 * event.pitch * (0.75 + 0.5 * rise) * (1 + 0.006 * np.sin(2 * np.pi * 16 * event.time))
    whistle = event.tone(hertz, (1, 0.25)) * (0.15 + 0.85 * rise)
    steam = event.noise(2400 * event.pitch, 4200 * event.pitch)
    return (whistle + event.trait(1, 0.12, 0.22) * steam) * event.fade(0.04, 0.06)


def robot(event: Event) -> Samples:
    """A robot: beeps of square waves at random pitches."""
    beeps = round(event.seconds / event.trait(0, 0.06, 0.08))
    beep, within = np.divmod(event.progress * beeps * 0.9999, 1)
    steps = event.rng.permutation(np.arange(beeps) % 7)
    hertz = 520 * event.pitch * 2 ** ((steps - 3) / 6)
    square = [1 / k if k % 2 else 0.0 for k in range(1, 16)]
    return event.tone(hertz[beep.astype(int)], square) * np.clip(8 * np.minimum(within, 0.9 - within), 0, 1)


def rain(event: Event) -> Samples:
    """Rain: many short resonating drops over the noise of distant ones."""
    drops = int(event.trait(0, 90, 150) * event.seconds)
    starts = event.rng.uniform(0, event.seconds - 0.02, drops)
    hertz = 2900 * event.pitch * np.exp(event.rng.normal(0, 0.16, drops))
    loud = event.rng.uniform(0.3, 1, drops)
    plinks = event.rings(hertz, 0.004 / event.pitch**0.5, 0.02) * loud[:, None]
    far = event.noise(2000 * event.pitch, 3900 * event.pitch)
    return (event.scatter(starts, plinks) + event.trait(1, 0.12, 0.2) * far) * event.fade(0.06, 0.08)


def fire(event: Event) -> Samples:
    """A fire: cracks of sparks over the fluttering noise of flames."""
    sparks = int(event.trait(0, 40, 60) * event.seconds)
    starts = event.rng.uniform(0, event.seconds - 0.02, sparks)
    loud = event.rng.uniform(0.3, 1, sparks) ** 2
    cracks = event.rings(1200 * event.pitch * np.exp(event.rng.normal(0, 0.3, sparks)), 0.003 / event.pitch, 0.02)
    snaps = event.clicks(np.full(sparks, 0.001 / event.pitch), 0.02)
    flutter = 1 + 0.5 * np.sin(2 * np.pi * (event.trait(1, 9, 13) * event.time + event.rng.uniform(0, 1)))
    flames = event.noise(130 * event.pitch, 420 * event.pitch) * flutter
    crackle = event.scatter(starts, (cracks + 0.25 * snaps) * loud[:, None])
    return (crackle / crackle.std() + 0.8 * flames) * event.fade(0.03, 0.08)


def lightning(event: Event) -> Samples:
    """Lightning: a few cracks of thunder and a fading rumble."""
    tears = np.concatenate([[0.002], event.rng.uniform(0.03, 0.11, 2)])
    crack = event.scatter(tears, event.clicks(np.full(3, 0.02), 0.12) * np.array([[1], [0.7], [0.6]]))
    body = event.noise(450 * event.pitch, 2600 * event.pitch) * np.exp(-event.time / event.trait(0, 0.06, 0.09))
    roll = event.curve(0.7, *event.rng.uniform(0.5, 1.3, 4), 0.5, 0.3)
    rumble = event.noise(95 * event.pitch, 330 * event.pitch) * roll
    return (0.8 * crack + 1.3 * body + rumble) * event.fade(0.004, 0.35 * event.seconds)

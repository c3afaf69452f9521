"""What people built: car, siren, clock, windmill, train, phone, saw, kettle and robot."""

import numpy as np

from c2c_jax.miniworld.voices.event import Event, Samples, arch


def car(event: Event) -> Samples:
    """An engine that revs up, changes gear and revs again; every second stroke is louder."""
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
    """Two tones in turn, or one that wails up and down."""
    turns = max(1, round(event.seconds / event.trait(0, 0.24, 0.3)))
    phase = event.progress * turns
    if event.traits[1] < 0.5:
        bend = np.where(phase % 1 < 0.5, 1.0, 4 / 3)
    else:
        bend = 1.15 - 0.35 * np.cos(2 * np.pi * phase)
    return event.tone(640 * event.pitch * bend, (1, 0.55, 0.5, 0.2, 0.2)) * event.fade(0.03, 0.05)


def clock(event: Event) -> Samples:
    """Tick, tock: blows on wood and brass, high and low in turn."""
    starts = np.arange(0.005, event.seconds - 0.04, event.trait(0, 0.095, 0.12))
    tick = np.arange(len(starts)) % 2 == 0
    hertz = 2100 * event.pitch * np.where(tick, 1.15, 0.87)
    blows = event.rings(hertz, 0.007, 0.05) + 0.4 * event.rings(1.62 * hertz, 0.004, 0.05)
    knock = event.rings(0.36 * hertz, 0.006, 0.05)
    return event.scatter(starts, blows + event.trait(1, 0.4, 0.8) * knock)


def windmill(event: Event) -> Samples:
    """A gust in the sails: wind whose pitch rises and falls as each blade goes by."""
    blades = max(2, round(event.seconds / event.trait(0, 0.17, 0.22)))
    passing = np.sin(np.pi * event.progress * blades) ** 2
    low = event.noise(260 * event.pitch, 480 * event.pitch)
    high = event.noise(520 * event.pitch, 900 * event.pitch)
    return (low * (0.55 + 0.45 * passing) + event.trait(1, 0.6, 0.9) * high * passing**2) * event.fade(0.1, 0.12)


def train(event: Event) -> Samples:
    """A steam whistle's chord, breathy at its start, over the chuffing of the engine."""
    rise = 1 - 0.06 * np.exp(-event.time / 0.04)
    chord = sum(event.tone(hertz * event.pitch * rise, (1, 0.25)) for hertz in (370, 466, 554))
    steam = event.noise(1200 * event.pitch, 3200 * event.pitch)
    chuff = event.noise(180 * event.pitch, 700 * event.pitch)
    beat = np.exp(-(event.time % event.trait(0, 0.1, 0.13)) / 0.03)
    whistle = chord * event.fade(0.04, 0.08) + event.trait(1, 0.15, 0.3) * steam * (0.4 + beat)
    return whistle * event.fade(0.01, 0.04) + 1.2 * chuff * beat * event.fade(0.01, 0.02)


def phone(event: Event) -> Samples:
    """A clapper that goes to and fro between two gongs, twenty times a second and more."""
    starts = np.arange(0.003, event.seconds - 0.05, 1 / event.trait(0, 24, 30))
    other = np.arange(len(starts)) % 2 == 1
    hertz = 1150 * event.pitch * np.where(other, event.trait(1, 1.2, 1.26), 1)
    gongs = event.rings(hertz, 0.05, 0.15) + 0.6 * event.rings(2.7 * hertz, 0.025, 0.15)
    return event.scatter(starts, gongs) * event.fade(0.002, 0.04)


def saw(event: Event) -> Samples:
    """Strokes forth and back: teeth that rasp faster in mid-stroke, the way back lower and softer."""
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
    """A whistle that rises as the steam comes, and its hiss."""
    rise = event.progress ** event.trait(0, 0.45, 0.7)
    hertz = 1500 * event.pitch * (0.75 + 0.5 * rise) * (1 + 0.006 * np.sin(2 * np.pi * 16 * event.time))
    whistle = event.tone(hertz, (1, 0.25)) * (0.15 + 0.85 * rise)
    steam = event.noise(2400 * event.pitch, 4200 * event.pitch)
    return (whistle + event.trait(1, 0.12, 0.22) * steam) * event.fade(0.04, 0.06)


def robot(event: Event) -> Samples:
    """Beeps of square waves at pitches of its own mind."""
    beeps = round(event.seconds / event.trait(0, 0.06, 0.08))
    beep, within = np.divmod(event.progress * beeps * 0.9999, 1)
    steps = event.rng.permutation(np.arange(beeps) % 7)
    hertz = 520 * event.pitch * 2 ** ((steps - 3) / 6)
    square = [1 / k if k % 2 else 0.0 for k in range(1, 16)]
    return event.tone(hertz[beep.astype(int)], square) * np.clip(8 * np.minimum(within, 0.9 - within), 0, 1)

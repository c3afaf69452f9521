"""Rain, fire and lightning."""

import numpy as np

from c2c_jax.miniworld.voices.event import Event, Samples


def rain(event: Event) -> Samples:
    """Many drops that each ring for a moment, and the patter of all that are farther away."""
    drops = int(event.trait(0, 90, 150) * event.seconds)
    starts = event.rng.uniform(0, event.seconds - 0.02, drops)
    hertz = 2900 * event.pitch * np.exp(event.rng.normal(0, 0.16, drops))
    loud = event.rng.uniform(0.3, 1, drops)
    plinks = event.rings(hertz, 0.004 / event.pitch**0.5, 0.02) * loud[:, None]
    far = event.noise(2000 * event.pitch, 3900 * event.pitch)
    return (event.scatter(starts, plinks) + event.trait(1, 0.12, 0.2) * far) * event.fade(0.06, 0.08)


def fire(event: Event) -> Samples:
    """Sparks that crack, faint and loud, over the flames' flutter."""
    sparks = int(event.trait(0, 40, 60) * event.seconds)
    starts = event.rng.uniform(0, event.seconds - 0.02, sparks)
    loud = event.rng.uniform(0.3, 1, sparks) ** 2
    cracks = event.rings(1200 * event.pitch * np.exp(event.rng.normal(0, 0.3, sparks)), 0.003 / event.pitch, 0.02)
    snaps = event.clicks(np.full(sparks, 0.001 / event.pitch), 0.02)
    flutter = 1 + 0.5 * np.sin(2 * np.pi * (event.trait(1, 9, 13) * event.time + event.between(0, 1)))
    flames = event.noise(130 * event.pitch, 420 * event.pitch) * flutter
    crackle = event.scatter(starts, (cracks + 0.25 * snaps) * loud[:, None])
    return (crackle / crackle.std() + 0.8 * flames) * event.fade(0.03, 0.08)


def lightning(event: Event) -> Samples:
    """The crack of thunder, torn in a few pieces, and a rumble that rolls away."""
    tears = np.concatenate([[0.002], event.rng.uniform(0.03, 0.11, 2)])
    crack = event.scatter(tears, event.clicks(np.full(3, 0.02), 0.12) * np.array([[1], [0.7], [0.6]]))
    body = event.noise(450 * event.pitch, 2600 * event.pitch) * np.exp(-event.time / event.trait(0, 0.06, 0.09))
    roll = event.curve(0.7, *event.rng.uniform(0.5, 1.3, 4), 0.5, 0.3)
    rumble = event.noise(95 * event.pitch, 330 * event.pitch) * roll
    return (0.8 * crack + 1.3 * body + rumble) * event.fade(0.004, 0.35 * event.seconds)

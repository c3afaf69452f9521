"""Short sounds on the command line, and back from their files."""

from pathlib import Path

import numpy as np
import soundfile

FAST = ["--steps", "2", "--seconds", "0.64"]


def sound(path: Path) -> np.ndarray:
    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == 16_000
    return samples


NAMES = "a.wav", "b.flac", "deep/c.wav", "deep/d e.wav"


def noise(path: Path, seed: int) -> None:
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, 24_000).cumsum() * np.geomspace(
        1, 1e-2 * (seed + 1), 24_000
    )
    soundfile.write(path, samples / np.abs(samples).max(), 48_000)

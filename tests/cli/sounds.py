"""Short sounds on the command line, and back from their files."""

from pathlib import Path

import numpy as np
import soundfile

FAST = ["--steps", "2", "--seconds", "0.64"]


def sound(path: Path) -> np.ndarray:
    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == 16_000
    return samples

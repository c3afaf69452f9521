"""Constants for the differences between operating systems. Tests replace them to simulate another system."""

import sys

IS_WINDOWS = sys.platform == "win32"
IGNORES_CASE = sys.platform in ("win32", "darwin")  # whether `Dog.wav` and `dog.wav` are the same file, by default

"""Defines the scenes of the mini world: their attributes, random generation and held-out combinations.

A scene contains one to three things of one source, small or large, at a place; image, sound and captions share these.
Colour and sky appear only in the image, echo and noise only in the sound. Some cells (combinations of source, count,
size and place) are held out: no training uses them.
"""

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np

SOURCES = (
    *("bell", "bird", "rain", "car", "drum", "siren", "clock", "bee"),
    *("dog", "windmill", "trumpet", "piano", "guitar", "frog", "cat", "train"),
    *("cow", "fire", "lightning", "phone", "saw", "kettle", "robot", "cricket"),
)
COUNTS = (1, 2, 3)
SIZES = ("small", "large")  # a small thing sounds high, a large one low
PLACES = ("field", "shore")  # a field is quiet and green; the shore has water and surf
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "black")
SKIES = ("grey", "sandy", "dark", "pale", "pink", "teal")
ECHOES = ("dry", "echo")
NOISES = ("none", "hiss", "hum")

SHARED = tuple(itertools.product(COUNTS, SIZES, PLACES))  # the combinations of each source
CELLS = len(SOURCES) * len(SHARED)
SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """The attributes from which an image, a sound and captions are generated."""

    source: str
    count: int
    size: str
    place: str
    colour: str
    sky: str
    echo: str
    noise: str

    @property
    def cell(self) -> int:
        """Index of the combination of source, count, size and place, 0 to 287."""
        return SOURCES.index(self.source) * len(SHARED) + SHARED.index((self.count, self.size, self.place))


def is_held_out(cell: int) -> bool:
    """Whether a cell is excluded from all training.

    Two cells of each source are held out. They differ in count, size and place, and vary between sources, so that each
    value of each attribute is held out equally often.
    """
    source, combination = divmod(cell, len(SHARED))
    first = (5 * source + source // len(SHARED)) % len(SHARED)
    count, size_and_place = divmod(first, 4)
    return combination in (first, (count + 1) % len(COUNTS) * 4 + 3 - size_and_place)


TRAINING_CELLS = tuple(cell for cell in range(CELLS) if not is_held_out(cell))
HELD_OUT_CELLS = tuple(cell for cell in range(CELLS) if is_held_out(cell))


def scene_of(cell: int, pick: Callable[[tuple[str, ...]], str]) -> Scene:
    """Builds a scene of a cell; `pick` chooses colour, sky, echo and noise from their values."""
    count, size, place = SHARED[cell % len(SHARED)]
    unshared = {"colour": pick(COLOURS), "sky": pick(SKIES), "echo": pick(ECHOES), "noise": pick(NOISES)}
    return Scene(source=SOURCES[cell // len(SHARED)], count=count, size=size, place=place, **unshared)


def scene_at(split: str, index: int, seed: int = 0) -> tuple[Scene, np.random.Generator]:
    """Returns scene `index` of a split, and the random generator for its image, sound and captions.

    Both are functions of (seed, split, index). The training split draws from the cells that are not held out;
    validation and test cycle through all cells, so that 288 consecutive scenes contain each cell once.
    """
    rng = np.random.default_rng((seed, SPLITS.index(split), index))
    cell = TRAINING_CELLS[rng.integers(len(TRAINING_CELLS))] if split == "train" else index % CELLS
    return scene_of(cell, lambda values: values[rng.integers(len(values))]), rng

"""What there is in the mini world: sources of sound, what a picture and a sound of them share, and what only one shows.

A scene is one or several things of one source, small or large, at a place. A picture shows, a sound tells and a caption
may name each of these; small things sound high and large ones low. Colours and skies are seen alone, echo and noise are
heard alone. Of every source some combinations of what is shared are held out: no training of any kind meets them.
"""

import dataclasses
import itertools

import numpy as np

SOURCES = (
    *("bell", "bird", "rain", "car", "drum", "siren", "clock", "bee"),
    *("dog", "windmill", "trumpet", "piano", "guitar", "frog", "cat", "train"),
    *("cow", "fire", "lightning", "phone", "saw", "kettle", "robot", "cricket"),
)
COUNTS = (1, 2, 3)
SIZES = ("small", "large")  # a small thing sounds high, a large one low
PLACES = ("field", "shore")  # a field is quiet and green, at the shore there are water and surf
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "black")
SKIES = ("grey", "sandy", "dark", "pale", "pink", "teal")
ECHOES = ("dry", "echo")
NOISES = ("none", "hiss", "hum")

SHARED = tuple(itertools.product(COUNTS, SIZES, PLACES))  # the combinations that each source has
HELD_OUT = 2  # of them, for each source
SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """source, count, size and place are shared by picture and sound; the rest is seen or heard alone."""

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
        """The number of what is shared, 0 to 287: scenes of one cell have pictures and sounds of one meaning."""
        return SOURCES.index(self.source) * len(SHARED) + SHARED.index((self.count, self.size, self.place))


CELLS = len(SOURCES) * len(SHARED)


def source_of(cell: int) -> str:
    return SOURCES[cell // len(SHARED)]


def shared_of(cell: int) -> tuple[int, str, str]:
    """Count, size and place of a cell."""
    return SHARED[cell % len(SHARED)]


def is_held_out(cell: int) -> bool:
    """Whether no training meets this cell. The two held-out combinations of a source are opposite in size and place and
    differ in count, and go round over the sources, so that each value of each attribute is held out equally often."""
    source, combination = divmod(cell, len(SHARED))
    first = (5 * source + source // len(SHARED)) % len(SHARED)
    count, size, place = (int(i) for i in np.unravel_index(first, (len(COUNTS), len(SIZES), len(PLACES))))
    second = np.ravel_multi_index(
        ((count + 1) % len(COUNTS), 1 - size, 1 - place), (len(COUNTS), len(SIZES), len(PLACES))
    )
    return combination in (first, int(second))


SEEN_CELLS = tuple(cell for cell in range(CELLS) if not is_held_out(cell))
HELD_OUT_CELLS = tuple(cell for cell in range(CELLS) if is_held_out(cell))


def random_scene(cell: int, rng: np.random.Generator) -> Scene:
    """A scene of a cell; what is seen or heard alone is drawn evenly."""
    count, size, place = shared_of(cell)
    return Scene(
        source=source_of(cell),
        count=count,
        size=size,
        place=place,
        colour=COLOURS[rng.integers(len(COLOURS))],
        sky=SKIES[rng.integers(len(SKIES))],
        echo=ECHOES[rng.integers(len(ECHOES))],
        noise=NOISES[rng.integers(len(NOISES))],
    )


def scene_at(split: str, index: int, seed: int = 0) -> tuple[Scene, np.random.Generator]:
    """Scene number `index` of a split, and the generator for all else that is drawn for it.

    A function of (seed, split, index) alone. Training has seen cells only; validation and test go through all cells in
    turn, so that any 288 scenes in a row have each once.
    """
    rng = np.random.default_rng((seed, SPLITS.index(split), index))
    cell = SEEN_CELLS[rng.integers(len(SEEN_CELLS))] if split == "train" else index % CELLS
    return random_scene(cell, rng), rng

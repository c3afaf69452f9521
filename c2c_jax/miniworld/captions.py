"""Captions of scenes: in the style of pictures, of sounds, and of both.

A caption names the source and the count always, each other attribute by chance (`NAMED`). Colour and sky are named
seldom: where most captions name them, a CLIP tells captions apart by these alone and learns hardly any source.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from c2c_jax.errors import CaptionError
from c2c_jax.miniworld import words
from c2c_jax.miniworld.world import (
    CELLS,
    COLOURS,
    COUNTS,
    ECHOES,
    NOISES,
    SEEN_CELLS,
    SKIES,
    SPLITS,
    Scene,
    random_scene,
    shared_of,
    source_of,
)

STYLES = ("picture", "sound", "mixed")
# How often a caption names what; the rest of the attributes never.
NAMED: Mapping[str, Mapping[str, float]] = {
    "picture": {"size": 0.88, "place": 0.7, "colour": 0.35, "sky": 0.25},
    "sound": {"size": 0.88, "place": 0.7, "echo": 0.3, "noise": 0.3},
    "mixed": {"size": 0.88, "place": 0.7, "colour": 0.18, "sky": 0.12, "echo": 0.15, "noise": 0.15},
}
ATTRIBUTES = ("size", "place", "colour", "sky", "echo", "noise")
SIZE_SEEN_ONLY, SIZE_HEARD_ONLY = 0.4, 0.4  # of the mixed captions that name the size; the rest name it twice
PROMPTS = 8  # of a cell

BLOCK = 4096  # captions whose numbers are drawn by one generator
DRAWS = 40  # numbers for one caption and its scene, more than any uses

_ARTICLE = re.compile(r"\ba (?=[aeiou])")
T = TypeVar("T")


class Chance:
    """Numbers even in [0, 1), used up one after another."""

    __slots__ = ("_next",)

    def __init__(self, numbers: Sequence[float]):
        self._next = iter(numbers).__next__

    def number(self) -> float:
        return self._next()

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self._next() * len(options))]


def caption(scene: Scene, style: str, rng: np.random.Generator, named: Mapping[str, float] | None = None) -> str:
    """One caption in a style of `STYLES`: lower-case words with one space between, no punctuation.

    named: how often size, place, colour, sky, echo and noise are named, each; `NAMED[style]` unless given.
    """
    return _caption(scene, style, Chance(rng.random(DRAWS).tolist()), NAMED[style] if named is None else named)


def paraphrases(scene: Scene, style: str, count: int, rng: np.random.Generator) -> list[str]:
    """`count` different captions of one scene. Every scene has thousands of them in each style."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[caption(scene, style, rng)] = None
    return list(found)


def captions(
    split: str, count: int, seed: int = 0, styles: Sequence[str] = STYLES, named: Mapping[str, float] | None = None
) -> Iterator[str]:
    """The first `count` captions of a split, each of a scene of its own and in one of `styles` by even chance."""
    return (text for _, _, text in captioned_scenes(split, count, seed, styles, named))


def captioned_scenes(
    split: str, count: int, seed: int = 0, styles: Sequence[str] = STYLES, named: Mapping[str, float] | None = None
) -> Iterator[tuple[Scene, str, str]]:
    """`captions` with the scene and the style of each: (scene, style, caption).

    Number i is a function of (seed, split, i) and of what may be said, `styles` and `named`, alone. Training has seen
    cells only; validation and test go through all cells in turn. These scenes are not those of `world.scene_at`.

    Raises CaptionError for a split or a style that there is not.
    """
    if split not in SPLITS:
        raise CaptionError(f"no split {split!r} in the mini world; there are {', '.join(SPLITS)}")
    if not styles or set(styles) - set(STYLES):
        raise CaptionError(f"no style {', '.join(styles) or 'at all'} in the mini world; there are {', '.join(STYLES)}")
    return _captioned_scenes(split, count, seed, styles, named)


def _captioned_scenes(
    split: str, count: int, seed: int, styles: Sequence[str], named: Mapping[str, float] | None
) -> Iterator[tuple[Scene, str, str]]:
    for start in range(0, count, BLOCK):
        rng = np.random.default_rng((seed, SPLITS.index(split), start // BLOCK))
        numbers = rng.random((BLOCK, DRAWS))
        for index in range(start, min(start + BLOCK, count)):
            chance = Chance(numbers[index - start].tolist())
            seen = chance.pick(SEEN_CELLS)  # used up in any case: what is said does not hang on the split
            scene = _scene(seen if split == "train" else index % CELLS, chance)
            style = chance.pick(styles)
            yield scene, style, _caption(scene, style, chance, NAMED[style] if named is None else named)


def cell_prompts(cell: int, style: str) -> list[str]:
    """`PROMPTS` captions that name the cell's source, count, size and place, and nothing else.

    All cells have the same sentences and the same turns of phrase, so that their prompts differ in meaning alone.
    """
    scene = random_scene(cell, np.random.default_rng(0))
    return [_caption(scene, style, Chance(row), {"size": 1.0, "place": 1.0}) for row in _even_numbers(PROMPTS)]


def source_prompts(source: str, style: str) -> list[str]:
    """Captions that name the source and one count, `PROMPTS` for each count, and nothing else."""
    of_count = {shared_of(cell)[0]: cell for cell in range(CELLS) if source_of(cell) == source}
    scenes = [random_scene(of_count[count], np.random.default_rng(0)) for count in COUNTS]
    return [_caption(scene, style, Chance(row), {}) for scene in scenes for row in _even_numbers(PROMPTS)]


def vocabulary() -> list[str]:
    """All words that a caption can have, in the order of the alphabet."""
    return sorted({word for phrase in words.phrases() for word in re.sub(r"{\w+}", " ", phrase).split()})


def _even_numbers(count: int) -> list[list[float]]:
    """`count` rows of numbers for a caption each; every column goes evenly through 0 to 1 (a Latin hypercube), so that
    the rows choose different sentences and words."""
    rows = np.tile((np.arange(count) + 0.5) / count, (DRAWS, 1))
    return np.random.default_rng(0).permuted(rows, axis=1).T.tolist()


def _scene(cell: int, chance: Chance) -> Scene:
    count, size, place = shared_of(cell)
    return Scene(
        source=source_of(cell),
        count=count,
        size=size,
        place=place,
        colour=chance.pick(COLOURS),
        sky=chance.pick(SKIES),
        echo=chance.pick(ECHOES),
        noise=chance.pick(NOISES),
    )


def _caption(scene: Scene, style: str, chance: Chance, named: Mapping[str, float]) -> str:
    """Uses the same numbers for the same ends whatever the scene and the style are."""
    pick, number = chance.pick, chance.number
    says = {attribute: number() < named.get(attribute, 0.0) for attribute in ATTRIBUTES}
    which, many, of_source = number(), scene.count > 1, words.SOURCE_WORDS[scene.source]
    size, pitch = pick(words.SEEN_SIZE[scene.size]), pick(words.HEARD_SIZE[scene.size])
    if not says["size"] or style == "sound" or style == "mixed" and which >= 1 - SIZE_HEARD_ONLY:
        size = ""
    if not says["size"] or style == "picture" or style == "mixed" and which < SIZE_SEEN_ONLY:
        pitch = ""
    colour = scene.colour if says["colour"] else ""
    looks = f"{size} and {colour}" if size and colour else size or colour

    noun, verb, call = pick(of_source.nouns), pick(of_source.verbs), pick(of_source.calls)
    nouns = f"{noun}s" if many else noun
    some, be = pick(words.NUMBER[scene.count])
    few, whole = pick(words.PLAIN_NUMBER[scene.count]), pick(words.WHOLE_NUMBER[scene.count])

    seen_or_heard = pick((words.SEEN_PLACE, words.HEARD_PLACE))
    places = {"picture": words.SEEN_PLACE, "sound": words.HEARD_PLACE, "mixed": seen_or_heard}[style]
    place, view = pick(places[scene.place]), pick(words.SCENE[scene.place if says["place"] else ""])
    sky, echo, noise = pick(words.SKY), pick(words.ECHO[scene.echo]), pick(words.NOISE[scene.noise])
    at_pitch = pick(words.AT_PITCH)
    text = pick((words.TEMPLATES if looks else _WITHOUT_LOOKS)[style]).format(
        things=f"{some} {size} {colour} {nouns}",
        few_things=f"{few} {size} {colour} {nouns}",
        all_things=f"{whole} {nouns}",
        noun=noun,
        be=be,
        are="are" if many else "is",
        looks=looks,
        few=few,
        pitch=pitch,
        at_pitch=at_pitch.format(pitch=pitch) if pitch else "",
        verb=verb[0],
        verbs=verb[1],
        verbing=verb[2],
        agree=verb[0] if many else verb[1],
        calls=call[1] if many else call[0],
        times=pick(words.TIMES[scene.count]),
        place=place if says["place"] else "",
        scene=view,
        sky=sky.format(sky=scene.sky) if says["sky"] else "",
        echo=echo if says["echo"] else "",
        noise=noise if says["noise"] else "",
        image=pick(words.IMAGE),
        recording=pick(words.RECORDING),
        hearer=pick(words.HEARER),
    )
    return _ARTICLE.sub("an ", " ".join(text.split()))


_WITHOUT_LOOKS = {
    style: tuple(sentence for sentence in sentences if words.NEEDS_LOOKS not in sentence)
    for style, sentences in words.TEMPLATES.items()
}

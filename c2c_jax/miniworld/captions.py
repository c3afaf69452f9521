"""Generates captions of scenes in three styles: of images, of sounds, and of both.

A caption always names the source and the count, and each other attribute with a probability (`NAMED`). Those of colour
and sky are low: a CLIP trained on captions that usually name them separates captions by colour and sky alone, and
learns little about sources.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from c2c_jax.errors import CaptionError
from c2c_jax.miniworld import words
from c2c_jax.miniworld.world import CELLS, SPLITS, TRAINING_CELLS, Scene, scene_of

STYLES = ("picture", "sound", "mixed")
# Probability that a caption of a style names an attribute; 0 if missing.
NAMED: Mapping[str, Mapping[str, float]] = {
    "picture": {"size": 0.88, "place": 0.7, "colour": 0.35, "sky": 0.25},
    "sound": {"size": 0.88, "place": 0.7, "echo": 0.3, "noise": 0.3},
    "mixed": {"size": 0.88, "place": 0.7, "colour": 0.18, "sky": 0.12, "echo": 0.15, "noise": 0.15},
}
ATTRIBUTES = ("size", "place", "colour", "sky", "echo", "noise")
SIZE_ONLY, PITCH_ONLY = 0.4, 0.4  # fractions of the mixed captions with a size; the rest name both
PROMPTS = 8  # for each cell

BLOCK = 4096  # captions that share a random generator
DRAWS = 40  # random numbers per caption and scene; no caption uses all

_ARTICLE = re.compile(r"\ba (?=[aeiou])")
_WITHOUT_LOOKS = {
    style: tuple(template for template in templates if "{looks}" not in template)
    for style, templates in words.TEMPLATES.items()
}
T = TypeVar("T")


class ChoiceSequence:
    """Draws from a fixed sequence of uniform random numbers in [0, 1)."""

    def __init__(self, numbers: Sequence[float]):
        self.draw = iter(numbers).__next__

    def pick(self, options: Sequence[T]) -> T:
        """Returns one of the options with equal probability, using the next number."""
        return options[int(self.draw() * len(options))]


def caption(scene: Scene, style: str, rng: np.random.Generator) -> str:
    """Returns a caption in a style of `STYLES`: lower-case words separated by single spaces, no punctuation."""
    return _caption(scene, style, ChoiceSequence(rng.random(DRAWS).tolist()), NAMED[style])


def paraphrases(scene: Scene, style: str, count: int, rng: np.random.Generator) -> list[str]:
    """Returns `count` different captions of one scene. Each scene has thousands of captions in each style."""
    texts: dict[str, None] = {}
    while len(texts) < count:
        texts[caption(scene, style, rng)] = None
    return list(texts)


def captions(split: str, count: int, seed: int = 0, styles: Sequence[str] = STYLES) -> Iterator[str]:
    """Yields the first `count` captions of a split; see `captioned_scenes`."""
    return (text for _, _, text in captioned_scenes(split, count, seed, styles))


def captioned_scenes(
    split: str, count: int, seed: int = 0, styles: Sequence[str] = STYLES
) -> Iterator[tuple[Scene, str, str]]:
    """Yields the first `count` captions of a split as (scene, style, caption), each with its own scene.

    Caption i is a function of (seed, split, i, styles); all styles are equally likely. The training split uses only
    cells that are not held out; validation and test cycle through all cells. The scenes differ from those of
    `world.scene_at`. Raises CaptionError for an unknown split or style.
    """
    if split not in SPLITS:
        raise CaptionError(f"no split {split!r} in the mini world; there are {', '.join(SPLITS)}")
    if not styles or set(styles) - set(STYLES):
        raise CaptionError(f"no style {', '.join(styles) or 'at all'} in the mini world; there are {', '.join(STYLES)}")

    def generate() -> Iterator[tuple[Scene, str, str]]:
        for start in range(0, count, BLOCK):
            rng = np.random.default_rng((seed, SPLITS.index(split), start // BLOCK))
            for index, row in enumerate(rng.random((BLOCK, DRAWS))[: count - start], start):
                choices = ChoiceSequence(row.tolist())
                training_cell = choices.pick(
                    TRAINING_CELLS
                )  # drawn in every split, so that all splits use the same numbers
                scene = scene_of(training_cell if split == "train" else index % CELLS, choices.pick)
                style = choices.pick(styles)
                yield scene, style, _caption(scene, style, choices, NAMED[style])

    return generate()


def cell_prompts(cell: int, style: str) -> list[str]:
    """Returns `PROMPTS` captions that name only the source, count, size and place of a cell.

    All cells use the same sentences and phrases, so that their prompts differ only in meaning.
    """
    # A Latin hypercube: each column covers 0 to 1 evenly, so that the rows choose different sentences and words.
    columns = np.tile((np.arange(PROMPTS) + 0.5) / PROMPTS, (DRAWS, 1))
    rows = np.random.default_rng(0).permuted(columns, axis=1).T.tolist()
    scene = scene_of(cell, lambda values: values[0])
    return [_caption(scene, style, ChoiceSequence(row), {"size": 1.0, "place": 1.0}) for row in rows]


def _caption(scene: Scene, style: str, choices: ChoiceSequence, named: Mapping[str, float]) -> str:
    """Builds a caption. Each choice uses a fixed random number, independent of scene and style."""
    pick, draw = choices.pick, choices.draw
    names = {attribute: draw() < named.get(attribute, 0.0) for attribute in ATTRIBUTES}
    which, many, of_source = draw(), scene.count > 1, words.SOURCE_WORDS[scene.source]
    size, pitch = pick(words.VISUAL_SIZE[scene.size]), pick(words.PITCH[scene.size])
    if not names["size"] or style == "sound" or style == "mixed" and which >= 1 - PITCH_ONLY:
        size = ""
    if not names["size"] or style == "picture" or style == "mixed" and which < SIZE_ONLY:
        pitch = ""
    colour = scene.colour if names["colour"] else ""
    looks = f"{size} and {colour}" if size and colour else size or colour

    noun, verb, call = pick(of_source.nouns), pick(of_source.verbs), pick(of_source.calls)
    nouns = f"{noun}s" if many else noun
    some, be = pick(words.NUMBER[scene.count])
    few, whole = pick(words.PLAIN_NUMBER[scene.count]), pick(words.WHOLE_NUMBER[scene.count])

    mixed_place = pick((words.VISUAL_PLACE, words.AUDIO_PLACE))
    places = {"picture": words.VISUAL_PLACE, "sound": words.AUDIO_PLACE, "mixed": mixed_place}[style]
    place, view = pick(places[scene.place]), pick(words.SCENE[scene.place if names["place"] else ""])
    sky, echo, noise = pick(words.SKY), pick(words.ECHO[scene.echo]), pick(words.NOISE[scene.noise])
    at_pitch = pick(words.AT_PITCH)
    text = pick((words.TEMPLATES if looks else _WITHOUT_LOOKS)[style]).format(
        things=f"{some} {size} {colour} {nouns}", few_things=f"{few} {size} {colour} {nouns}",
        all_things=f"{whole} {nouns}", noun=noun, be=be, are="are" if many else "is", looks=looks, few=few,
        pitch=pitch, at_pitch=at_pitch.format(pitch=pitch) if pitch else "",
        verb=verb[0], verbs=verb[1], verbing=verb[2], agree=verb[0] if many else verb[1],
        calls=call[1] if many else call[0], times=pick(words.TIMES[scene.count]),
        place=place if names["place"] else "", scene=view, sky=sky.format(sky=scene.sky) if names["sky"] else "",
        echo=echo if names["echo"] else "", noise=noise if names["noise"] else "",
        image=pick(words.IMAGE), recording=pick(words.RECORDING), observer=pick(words.OBSERVER),
    )  # fmt: skip
    return _ARTICLE.sub("an ", " ".join(text.split()))

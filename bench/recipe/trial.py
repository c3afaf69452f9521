"""The trial: settings are chosen on the validation drawings, and what is chosen is reported on the test drawings."""

import dataclasses
from collections.abc import Sequence

from bench.recipe.material import Draw
from bench.recipe.methods import Recipe, Variant
from bench.recipe.scores import (
    Figures,
    Summary,
    caption_scores,
    chance_scores,
    image_scores,
    space_scores,
    summaries,
)
from c2c_jax.miniworld.world import CELLS

CHOSEN_BY = "cell"  # the figure that chooses a setting, by its mean over seeds and validation drawings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """A row of the table. setting: the one that was chosen. validation: what chose it; None where there was no choice
    to make, as nothing is carried."""

    name: str
    figures: dict[str, Summary]
    setting: str = ""
    validation: Summary | None = None


def scored(variant: Variant, draws: Sequence[Draw], *, reads_texts: bool, gallery: int = CELLS) -> list[Figures]:
    """Figures of every seed on every drawing."""
    rows = []
    for method in variant.methods:
        for draw in draws:
            figures = image_scores(method.of_images(draw.scenes.image_NS), draw.scenes, gallery)
            if reads_texts:
                figures |= caption_scores(method.of_texts(draw.captions.source_MS), draw.captions)
            rows.append(figures)
    return rows


def choose(recipe: Recipe, validation: Sequence[Draw], gallery: int = CELLS) -> tuple[Variant, Summary]:
    """The variant that carries most pictures to their cell, of equal ones the first, and that share."""
    shares = [
        summaries(scored(variant, validation, reads_texts=False, gallery=gallery))[CHOSEN_BY]
        for variant in recipe.variants
    ]
    best = max(range(len(shares)), key=lambda number: shares[number].mean)
    return recipe.variants[best], shares[best]


def result(recipe: Recipe, validation: Sequence[Draw], test: Sequence[Draw], gallery: int = CELLS) -> Result:
    variant, share = choose(recipe, validation, gallery)
    figures = summaries(scored(variant, test, reads_texts=recipe.reads_texts, gallery=gallery))
    return Result(name=recipe.name, figures=figures, setting=variant.setting, validation=share)


def ceiling(test: Sequence[Draw], gallery: int = CELLS) -> Result:
    """The scene's own sound caption in the target space: what a perfect translation would come to."""
    rows = [image_scores(draw.scenes.heard_NE, draw.scenes, gallery) for draw in test]
    return Result(name="ceiling", figures=summaries(rows))


def chance(test: Sequence[Draw], gallery: int = CELLS) -> Result:
    return Result(
        name="chance", figures=summaries([chance_scores(draw.scenes, draw.captions, gallery) for draw in test])
    )


def spaces(test: Sequence[Draw]) -> Result:
    """The gaps before anything is carried."""
    return Result(name="spaces", figures=summaries([space_scores(draw.scenes) for draw in test]))

"""The trial: settings are chosen on the validation drawings, and what is chosen is reported on the test drawings."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

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

Mean = Float[np.ndarray, "E"]  # of the training captions' unit target vectors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """A row of the table. setting: the one that was chosen. kept: what its runs chose, by seed. validation: what chose
    the setting; None where there was no choice to make, as nothing is translated."""

    name: str
    figures: dict[str, Summary]
    setting: str = ""
    kept: tuple[str, ...] = ()
    validation: Summary | None = None


def scored(
    variant: Variant, draws: Sequence[Draw], mean_E: Mean, *, reads_texts: bool, gallery: int = CELLS
) -> list[Figures]:
    """Figures of every seed on every drawing."""
    rows = []
    for method in variant.methods:
        around_E = mean_E if method.image_mean_E is None else method.image_mean_E
        for draw in draws:
            figures = image_scores(method.of_images(draw.scenes.image_NS), draw.scenes, around_E, gallery)
            if reads_texts:
                figures |= caption_scores(method.of_texts(draw.captions.source_MS), draw.captions, mean_E)
            rows.append(figures)
    return rows


def choose(recipe: Recipe, validation: Sequence[Draw], mean_E: Mean, gallery: int = CELLS) -> tuple[Variant, Summary]:
    """The variant whose pictures find their cell most often, the first of equal ones, and that share."""
    shares = [
        summaries(scored(variant, validation, mean_E, reads_texts=False, gallery=gallery))[CHOSEN_BY]
        for variant in recipe.variants
    ]
    best = max(range(len(shares)), key=lambda number: shares[number].mean)
    return recipe.variants[best], shares[best]


def result(
    recipe: Recipe, validation: Sequence[Draw], test: Sequence[Draw], mean_E: Mean, gallery: int = CELLS
) -> Result:
    """Of the variant that the validation drawings choose, on the test drawings."""
    variant, share = choose(recipe, validation, mean_E, gallery)
    figures = summaries(scored(variant, test, mean_E, reads_texts=recipe.reads_texts, gallery=gallery))
    return Result(name=recipe.name, figures=figures, setting=variant.setting, kept=variant.kept, validation=share)


def ceiling(test: Sequence[Draw], mean_E: Mean, gallery: int = CELLS) -> Result:
    """The scene's own sound caption in the target space: what a perfect translation would come to."""
    rows = [image_scores(draw.scenes.heard_NE, draw.scenes, mean_E, gallery) for draw in test]
    return Result(name="ceiling", figures=summaries(rows))


def chance(test: Sequence[Draw], gallery: int = CELLS) -> Result:
    """What a random ranking would come to."""
    return Result(
        name="chance", figures=summaries([chance_scores(draw.scenes, draw.captions, gallery) for draw in test])
    )


def spaces(test: Sequence[Draw]) -> Result:
    """The gaps before anything is translated."""
    return Result(name="spaces", figures=summaries([space_scores(draw.scenes) for draw in test]))

"""Which score of a run, to be had without pairs, tells how well its translator carries pictures?"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from bench.recipe.configs import Settings
from bench.recipe.ground import Ground
from bench.recipe.methods import NO_ROWS
from bench.recipe.scores import caption_scores, image_scores
from bench.recipe.use import as_trained
from c2c_jax.config import Config, MemoryConfig
from c2c_jax.evaluation.baselines import TrainingCaptions, nearest_caption
from c2c_jax.evaluation.tables import Table
from c2c_jax.training.pictures import agreement, transfer

SCORES = ("caption_recall@1", "agreement@1", "transfer", "agreement@1 behind the memory")  # to be had without pairs
TRUTHS = ("cell", "cell_held_out")  # of test pictures
WAYS = ("alone", "memory")  # how they are carried: by the translator alone, and behind the memory that is given
PICTURES = 1000  # of the training split, unlabelled

Point = dict[str, Any]


def points(ground: Ground, rows: Mapping[str, Settings], memory: MemoryConfig) -> Iterator[Point]:
    """Of every translator that the rows' settings train, each once: its scores, and `TRUTH WAY`. Captions are the first
    drawing's of the validation split, true figures those of the first test drawing."""
    image_PS = ground.pairs.image_NS[:PICTURES]
    route_PE = nearest_caption(image_PS, TrainingCaptions(ground.store, NO_ROWS))
    captions, scenes = ground.drawings["validation"][0].captions, ground.drawings["test"][0].scenes
    for name, config in _distinct(rows):
        ways = config, dataclasses.replace(config, memory=memory)
        methods = zip(*(ground.trained(name, {"": used}).variants[0].methods for used in ways), strict=True)
        for seed, (alone, remembering) in enumerate(methods):
            recall = caption_scores(alone.of_texts(captions.source_MS), captions)["caption_recall@1"]
            agreed, behind = (
                agreement(method.of_images(image_PS), route_PE)["agreement@1"] for method in (alone, remembering)
            )
            scores = recall, agreed, transfer(recall, agreed), behind
            point: Point = {"name": name, "seed": seed, **dict(zip(SCORES, scores, strict=True))}
            for way, method in zip(WAYS, (alone, remembering), strict=True):
                figures = image_scores(method.of_images(scenes.image_NS), scenes)
                point |= {f"{truth} {way}": figures[truth] for truth in TRUTHS}
            yield point


def _distinct(rows: Mapping[str, Settings]) -> Iterator[tuple[str, Config]]:
    seen = set()
    for row, settings in rows.items():
        for setting, config in settings.items():
            config = as_trained(config)
            key = json.dumps(dataclasses.asdict(config), sort_keys=True)
            if key not in seen:
                seen.add(key)
                yield f"{row} {setting}".strip(), config


def correlations(found: Sequence[Point]) -> dict[str, float]:
    """`SCORE.TRUTH WAY` → Spearman's rank correlation over all points, and `runs`."""
    truths = [f"{truth} {way}" for way in WAYS for truth in TRUTHS]
    figures: dict[str, float] = {"runs": len(found)}
    for score in SCORES:
        for truth in truths:
            pairs = np.array([(point[score], point[truth]) for point in found])
            figures[f"{score}.{truth}"] = float(spearmanr(*pairs.T).statistic)
    return figures


def table(figures: Mapping[str, float]) -> Table:
    truths = [f"{truth} {way}" for way in WAYS for truth in TRUTHS]
    cells = [[score, *(f"{figures[f'{score}.{truth}']:.2f}" for truth in truths)] for score in SCORES]
    return Table(
        title=f"selection: rank correlation with test pictures, {figures['runs']} runs",
        header=["score", *(truth.replace("_", " ") for truth in truths)],
        cells=cells,
    )

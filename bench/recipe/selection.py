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
from c2c_jax.training.pictures import agreement

SCORES = ("agreement@1", "agreement@10", "caption_recall@1")  # to be had without pairs
TRUTHS = ("cell", "cell_seen", "cell_held_out", "source")  # of test pictures
PICTURES = 1000  # of the training split, unlabelled
WAYS = ("alone", "memory")  # a translator alone, and behind the memory that is given

Point = dict[str, Any]


def points(ground: Ground, rows: Mapping[str, Settings], memory: MemoryConfig) -> Iterator[Point]:
    """Scores and truths of every translator that the rows' settings train, each once, in both ways. Captions are the
    first drawing's of the validation split, true figures those of the first test drawing."""
    image_PS = ground.pairs.image_NS[:PICTURES]
    route_PE = nearest_caption(image_PS, TrainingCaptions(ground.store, NO_ROWS))
    validation, test = (ground.drawings[split][0] for split in ("validation", "test"))
    for name, config in _distinct(rows):
        for way in WAYS:
            used = dataclasses.replace(config, memory=memory) if way == "memory" else config
            (variant,) = ground.trained(name, {"": used}).variants
            for seed, method in enumerate(variant.methods):
                found = agreement(method.of_images(image_PS), route_PE)
                found |= caption_scores(method.of_texts(validation.captions.source_MS), validation.captions)
                found |= image_scores(method.of_images(test.scenes.image_NS), test.scenes)
                yield {"name": name, "way": way, "seed": seed} | {key: found[key] for key in (*SCORES, *TRUTHS)}


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
    """`WAY.SCORE.TRUTH` → Spearman's rank correlation over all points of that way, and `WAY.runs`."""
    figures: dict[str, float] = {}
    for way in WAYS:
        of_way = [point for point in found if point["way"] == way]
        figures[f"{way}.runs"] = len(of_way)
        for score in SCORES:
            for truth in TRUTHS:
                pairs = np.array([(point[score], point[truth]) for point in of_way])
                figures[f"{way}.{score}.{truth}"] = float(spearmanr(*pairs.T).statistic)
    return figures


def table(figures: Mapping[str, float]) -> Table:
    header = ["score", *(f"{truth.replace('_', ' ')}, {way}" for way in WAYS for truth in TRUTHS)]
    cells = [
        [score, *(f"{figures[f'{way}.{score}.{truth}']:.2f}" for way in WAYS for truth in TRUTHS)] for score in SCORES
    ]
    runs = figures[f"{WAYS[0]}.runs"]
    return Table(title=f"selection: rank correlation with test pictures, {runs} runs", header=header, cells=cells)

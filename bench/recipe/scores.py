"""Scores the rows of the table from their vectors."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from bench.recipe.material import Captions, Draw, Scenes
from bench.recipe.methods import Row
from c2c_jax.evaluation.geometry import gap_length
from c2c_jax.evaluation.retrieval import RECALL_CUTOFFS
from c2c_jax.miniworld.world import CELLS, HELD_OUT_CELLS, SHARED
from c2c_jax.retrieval.nearest import paired_ranks, top_k
from c2c_jax.retrieval.scoring import Scoring, unit_mean

Figures = dict[str, float]
Mean = Float[np.ndarray, "E"]  # of the training captions' unit target vectors


@dataclasses.dataclass(frozen=True)
class Summary:
    """Mean and standard deviation (n − 1) of a figure over seeds and drawings."""

    mean: float
    spread: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """A scored row of the table. kept: the selection of each seed's run."""

    name: str
    figures: dict[str, Summary]
    kept: tuple[str, ...] = ()


def result(row: Row, draws: Sequence[Draw], mean_E: Mean, gallery: int = CELLS) -> Result:
    """Scores every seed of a row on every drawing."""
    rows = []
    for method in row.methods:
        around_E = mean_E if method.image_mean_E is None else method.image_mean_E
        for draw in draws:
            figures = image_scores(method.of_images(draw.scenes.image_NS), draw.scenes, around_E, gallery)
            if row.reads_texts:
                figures |= caption_scores(method.of_texts(draw.captions.source_MS), draw.captions, mean_E)
            rows.append(figures)
    return Result(name=row.name, figures=summaries(rows), kept=row.kept)


def bounds(draws: Sequence[Draw], mean_E: Mean) -> list[Result]:
    """Rows without a translation: the scene's own sound caption (the result of a perfect translation), a random
    ranking, and the gaps of the two spaces."""
    rows = {
        "ceiling": [image_scores(draw.scenes.sound_caption_NE, draw.scenes, mean_E) for draw in draws],
        "chance": [chance_scores(draw.scenes, draw.captions) for draw in draws],
        "spaces": [space_scores(draw.scenes) for draw in draws],
    }
    return [Result(name=name, figures=summaries(figures)) for name, figures in rows.items()]


def summaries(rows: Sequence[Mapping[str, float]]) -> dict[str, Summary]:
    """rows: figures of one seed and drawing each. The spread of a single row is 0."""
    values = {name: np.asarray([row[name] for row in rows]) for name in rows[0]}
    return {
        name: Summary(float(x.mean()), float(x.std(ddof=1)) if len(rows) > 1 else 0.0) for name, x in values.items()
    }


def by_cells(
    name: str, values_N: Num[np.ndarray, "N"] | Bool[np.ndarray, "N"], cells_N: Int[np.ndarray, "N"]
) -> Figures:
    """The mean over all cells, over those that training uses, and over the held-out ones."""
    is_held_out_N = np.isin(cells_N, HELD_OUT_CELLS)
    return {
        name: float(values_N.mean()),
        f"{name}_seen": float(values_N[~is_held_out_N].mean()),
        f"{name}_held_out": float(values_N[is_held_out_N].mean()),
    }


def caption_scores(translated_ME: Float[np.ndarray, "M E"], captions: Captions, mean_E: Mean) -> Figures:
    """caption_recall@1: the fraction of captions whose translation is nearer to their own target vector than to that of
    any other caption, by centred cosines."""
    scoring = Scoring(query_mean_E=mean_E, candidate_mean_E=mean_E)
    ranks_M = paired_ranks(scoring.queries(translated_ME), scoring.candidates(captions.target_ME))
    return by_cells("caption_recall@1", ranks_M == 1, captions.cells_M)


def image_scores(
    translated_NE: Float[np.ndarray, "N E"], scenes: Scenes, mean_E: Float[np.ndarray, "E"], gallery: int = CELLS
) -> Figures:
    """Figures of translated images by centred cosines to sounds. mean_E: centres the translations; sounds are centred
    by their own mean.

    source, cell: the fraction of images whose nearest sound, of all N, is of their source or cell. recall@k: the
    fraction whose own sound is among the k nearest of a gallery; a gallery is `gallery` consecutive scenes, which
    contain each cell once. gap_target: the distance between the means of translated images and sounds.
    """
    scoring = Scoring(query_mean_E=mean_E, candidate_mean_E=unit_mean([scenes.audio_NE]))
    query_NE, audio_NE = scoring.queries(translated_NE), scoring.candidates(scenes.audio_NE)
    nearest_cell_N = scenes.cells_N[top_k(query_NE, audio_NE, 1)[1][:, 0]]
    figures = by_cells("source", nearest_cell_N // len(SHARED) == scenes.cells_N // len(SHARED), scenes.cells_N)
    figures |= by_cells("cell", nearest_cell_N == scenes.cells_N, scenes.cells_N)
    galleries = [slice(start, start + gallery) for start in range(0, len(query_NE), gallery)]
    ranks_N = np.concatenate([paired_ranks(query_NE[rows], audio_NE[rows]) for rows in galleries])
    for k in RECALL_CUTOFFS:
        figures |= by_cells(f"recall@{k}", ranks_N <= k, scenes.cells_N)
    return figures | {"gap_target": gap_length(translated_NE, scenes.audio_NE)}


def chance_scores(scenes: Scenes, captions: Captions, gallery: int = CELLS) -> Figures:
    """The exact expected figures of a random ranking."""
    cells_N, N = scenes.cells_N, len(scenes.cells_N)
    M, sizes_N = len(captions.cells_M), np.minimum(N - np.arange(N) // gallery * gallery, gallery)
    figures = by_cells("caption_recall@1", np.full(M, 1 / M), captions.cells_M)
    for name, kinds_N in (("source", cells_N // len(SHARED)), ("cell", cells_N)):
        figures |= by_cells(name, np.bincount(kinds_N)[kinds_N] / N, cells_N)
    for k in RECALL_CUTOFFS:
        figures |= by_cells(f"recall@{k}", np.minimum(k / sizes_N, 1.0), cells_N)
    return figures


def space_scores(scenes: Scenes) -> Figures:
    """Distances between the means of images and their captions, and of sounds and theirs."""
    return {
        "gap_source": gap_length(scenes.image_caption_NS, scenes.image_NS),
        "gap_target": gap_length(scenes.sound_caption_NE, scenes.audio_NE),
    }

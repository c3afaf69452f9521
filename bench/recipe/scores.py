"""Figures of one method on one drawing, and what comes of several: all from vectors."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from bench.recipe.material import Captions, Scenes
from c2c_jax.evaluation.chance import RECALLS
from c2c_jax.evaluation.gaps import gap_length
from c2c_jax.miniworld.world import CELLS, HELD_OUT_CELLS, SHARED
from c2c_jax.retrieval.nearest import paired_ranks, top_k
from c2c_jax.retrieval.scoring import Scoring, unit_mean

Figures = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Summary:
    """The mean of a figure over translator seeds and drawings, and its standard deviation over them (by n − 1)."""

    mean: float
    spread: float


def summaries(rows: Sequence[Mapping[str, float]]) -> dict[str, Summary]:
    """Of figures of one method, those of one seed and drawing a row. One row has no spread: it is 0."""
    values = {name: np.asarray([row[name] for row in rows]) for name in rows[0]}
    return {
        name: Summary(float(x.mean()), float(x.std(ddof=1)) if len(rows) > 1 else 0.0) for name, x in values.items()
    }


def by_cells(
    name: str, values_N: Num[np.ndarray, "N"] | Bool[np.ndarray, "N"], cells_N: Int[np.ndarray, "N"]
) -> Figures:
    """The mean over all, over those of cells that training meets, and over those of cells that it does not."""
    is_held_out_N = np.isin(cells_N, HELD_OUT_CELLS)
    return {
        name: float(values_N.mean()),
        f"{name}_seen": float(values_N[~is_held_out_N].mean()),
        f"{name}_held_out": float(values_N[is_held_out_N].mean()),
    }


def caption_scores(
    translated_ME: Float[np.ndarray, "M E"], captions: Captions, mean_E: Float[np.ndarray, "E"]
) -> Figures:
    """caption_recall@1: the share of captions whose translation is nearer to their own target vector than to any other
    caption's, by centred cosines. mean_E: of the training captions' unit target vectors."""
    scoring = Scoring(query_mean_E=mean_E, candidate_mean_E=mean_E)
    ranks_M = paired_ranks(scoring.queries(translated_ME), scoring.candidates(captions.target_ME))
    return by_cells("caption_recall@1", ranks_M == 1, captions.cells_M)


def image_scores(
    translated_NE: Float[np.ndarray, "N E"], scenes: Scenes, mean_E: Float[np.ndarray, "E"], gallery: int = CELLS
) -> Figures:
    """Figures of translated pictures by centred cosines to sounds. mean_E: of unit vectors, around which the
    translations lie; sounds are centred by their own mean.

    source, cell: the share of pictures whose nearest sound, of all N, is of their source, of their cell. recall@k: the
    share whose own sound is among the k nearest of a gallery; galleries are `gallery` scenes in a row, which of the
    splits that are scored have every cell once. gap_target: the length between translated pictures and sounds.
    """
    scoring = Scoring(query_mean_E=mean_E, candidate_mean_E=unit_mean([scenes.audio_NE]))
    query_NE, sound_NE = scoring.queries(translated_NE), scoring.candidates(scenes.audio_NE)
    found_N = scenes.cells_N[top_k(query_NE, sound_NE, 1)[1][:, 0]]
    figures = by_cells("source", found_N // len(SHARED) == scenes.cells_N // len(SHARED), scenes.cells_N)
    figures |= by_cells("cell", found_N == scenes.cells_N, scenes.cells_N)
    galleries = [slice(start, start + gallery) for start in range(0, len(query_NE), gallery)]
    ranks_N = np.concatenate([paired_ranks(query_NE[rows], sound_NE[rows]) for rows in galleries])
    for k in RECALLS:
        figures |= by_cells(f"recall@{k}", ranks_N <= k, scenes.cells_N)
    return figures | {"gap_target": gap_length(translated_NE, scenes.audio_NE)}


def chance_scores(scenes: Scenes, captions: Captions, gallery: int = CELLS) -> Figures:
    """What one may expect of a random ranking, exactly."""
    cells_N, N = scenes.cells_N, len(scenes.cells_N)
    sources_N = cells_N // len(SHARED)
    M, sizes_N = len(captions.cells_M), np.minimum(N - np.arange(N) // gallery * gallery, gallery)
    figures = by_cells("caption_recall@1", np.full(M, 1 / M), captions.cells_M)
    for name, kinds_N in (("source", sources_N), ("cell", cells_N)):
        figures |= by_cells(name, np.bincount(kinds_N)[kinds_N] / N, cells_N)
    for k in RECALLS:
        figures |= by_cells(f"recall@{k}", np.minimum(k / sizes_N, 1.0), cells_N)
    return figures


def space_scores(scenes: Scenes) -> Figures:
    """The gaps as they are: between pictures and captions in their style, and between these of sounds and sounds."""
    return {
        "gap_source": gap_length(scenes.seen_NS, scenes.image_NS),
        "gap_target": gap_length(scenes.heard_NE, scenes.audio_NE),
    }

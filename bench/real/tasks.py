"""Tasks: photographs retrieve captions, captions and sounds retrieve each other, and images retrieve sounds."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from bench.real.material import COUNTERPARTS, Material, View, centred, mean_of, unit32
from c2c_jax.evaluation.methods import Translate
from c2c_jax.retrieval.scoring import Scoring

HALVES_SEED = 0

Figures = dict[str, Float[np.ndarray, "Q"]]


def halves(count: int) -> tuple[Int[np.ndarray, "H"], Int[np.ndarray, "G"]]:
    """Splits all rows into two random halves, which are always the same."""
    rows_N = np.random.default_rng(HALVES_SEED).permutation(count)
    return rows_N[: count // 2], rows_N[count // 2 :]


def ranks(score_QN: Float[np.ndarray, "Q N"], own_Q: Int[np.ndarray, "Q"]) -> Int[np.ndarray, "Q"]:
    """Ranks of the own candidates, from 1. Ties do not count against them, because AudioCaps' sounds with several
    captions occur several times."""
    own_Q1 = np.take_along_axis(score_QN, own_Q[:, None], axis=1)
    return 1 + (score_QN > own_Q1 + 1e-6).sum(axis=1)


def photographs(material: Material, view: View, translate: Translate) -> Figures:
    """Whether the own caption of each photograph is the nearest of all captions, and among the ten nearest. One half of
    the photographs gives the mean of images and the other half are the queries; then the halves are swapped."""
    caption_PE = centred(material.caption_PE, view.target_mean_E)
    rank_P = np.zeros(len(caption_PE), np.int64)
    first, second = halves(len(caption_PE))
    for reference, query in ((first, second), (second, first)):
        images = view.images(material.image_PS[query], mean_of(material.image_PS[reference]))
        rank_P[query] = ranks(view.translated(translate(images)) @ caption_PE.T, query)
    return {"r1": (rank_P == 1).astype(np.float64), "r10": (rank_P <= 10).astype(np.float64)}


def sounds(material: Material) -> dict[str, dict[str, Figures]]:
    """AudioCaps' captions and sounds retrieve each other: scoring → direction → figures. One half of the queries gives
    the means and the references; then the halves are swapped."""
    sides = {"text_to_sound": (material.written_QA, material.audio_QA)}
    sides["sound_to_text"] = sides["text_to_sound"][::-1]
    figures: dict[str, dict[str, Figures]] = {"raw": {}, "centred": {}, "centred minus hubness": {}}
    for direction, (query_QA, candidate_QA) in sides.items():
        rank_of = {scoring: np.zeros(len(query_QA), np.int64) for scoring in figures}
        first, second = halves(len(query_QA))
        for reference, query in ((first, second), (second, first)):
            scorings = {
                "raw": Scoring(),
                "centred": Scoring(query_mean_E=mean_of(query_QA[reference]), candidate_mean_E=mean_of(candidate_QA)),
            }
            scorings["centred minus hubness"] = dataclasses.replace(
                scorings["centred"], reference_RE=query_QA[reference]
            )
            for name, scoring in scorings.items():
                rank_of[name][query] = ranks(scores(scoring, query_QA[query], candidate_QA), query)
        for scoring, rank_Q in rank_of.items():
            figures[scoring][direction] = {"r1": (rank_Q == 1).astype(float), "r10": (rank_Q <= 10).astype(float)}
    return figures


def scores(
    scoring: Scoring, query_QE: Float[np.ndarray, "Q E"], candidate_NE: Float[np.ndarray, "N E"]
) -> Float[np.ndarray, "Q N"]:
    """The scores of all queries and candidates."""
    candidate_NE = unit32(scoring.candidates(candidate_NE))
    penalty_N = scoring.penalty(candidate_NE)
    score_QN = unit32(scoring.queries(query_QE)) @ candidate_NE.T
    return score_QN if penalty_N is None else score_QN - penalty_N[None]


def images_to_sounds(
    material: Material, vector_CA: Float[np.ndarray, "C A"], of_audio: Scoring, of_texts: Scoring
) -> Figures:
    """CIFAR-10's images, translated to CLAP vectors, retrieve ESC-50's sounds and the names of its classes.

    p10: the fraction of an image's ten nearest sounds that have a matching class. top1: whether its nearest class name
    matches. Both for each image with matching classes, weighted so that the mean over images is the mean over their
    classes."""
    audio_score_CN = scores(of_audio, vector_CA, material.audio_NA)
    class_score_CK = scores(of_texts, vector_CA, material.class_text_KA)
    figures: dict[str, list[np.ndarray]] = {"p10": [], "top1": []}
    for name, counterparts in COUNTERPARTS.items():
        matching = [material.classes.index(counterpart) for counterpart in counterparts]
        is_of_C = _are(material.small_classes_C, name)
        nearest_C10 = np.argsort(-audio_score_CN[is_of_C], axis=1, kind="stable")[:, :10]
        figures["p10"].append(np.isin(material.audio_classes_N[nearest_C10], matching).mean(axis=1))
        figures["top1"].append(np.isin(class_score_CK[is_of_C].argmax(axis=1), matching).astype(np.float64))
    mean = np.mean([len(values_C) for values_C in figures["p10"]])
    return {
        name: np.concatenate([values_C * mean / len(values_C) for values_C in of_classes])
        for name, of_classes in figures.items()
    }


def images_to_sounds_chance(material: Material) -> tuple[float, float]:
    """The expected figures of `images_to_sounds` for a random ranking."""
    fractions = [
        np.isin(material.audio_classes_N, [material.classes.index(counterpart) for counterpart in counterparts]).mean()
        for counterparts in COUNTERPARTS.values()
    ]
    return float(np.mean(fractions)), float(
        np.mean([len(counterparts) for counterparts in COUNTERPARTS.values()])
    ) / len(material.classes)


def mixed(vectors: Sequence[Float[np.ndarray, "C A"]]) -> Float[np.ndarray, "C A"]:
    """The mean of unit vectors, scaled to unit length."""
    return unit32(np.mean([unit32(vector_CA) for vector_CA in vectors], axis=0))


def _are(names: Sequence[str], name: str) -> Bool[np.ndarray, "C"]:
    return np.asarray([other == name for other in names])

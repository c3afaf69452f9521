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
    """All rows in two random halves, always the same."""
    rows_N = np.random.default_rng(HALVES_SEED).permutation(count)
    return rows_N[: count // 2], rows_N[count // 2 :]


def ranks(score_QN: Float[np.ndarray, "Q N"], own_Q: Int[np.ndarray, "Q"]) -> Int[np.ndarray, "Q"]:
    """Ranks from 1: the number of candidates with a higher score than the own one, plus 1. Equal scores do not count,
    because sounds of AudioCaps with several captions occur several times."""
    own_Q1 = np.take_along_axis(score_QN, own_Q[:, None], axis=1)
    return 1 + (score_QN > own_Q1 + 1e-6).sum(axis=1)


def photographs(material: Material, view: View, translate: Translate) -> Figures:
    """Whether the own caption of each photograph is the first, or among the first ten, of all captions. The mean of
    pictures comes from one half of the photographs and the other half are the queries; then the halves are swapped."""
    caption_PE = centred(material.caption_PE, view.target_mean_E)
    rank_P = np.zeros(len(caption_PE), np.int64)
    first, second = halves(len(caption_PE))
    for known, query in ((first, second), (second, first)):
        pictures = view.pictures(material.image_PS[query], mean_of(material.image_PS[known]))
        rank_P[query] = ranks(view.translated(translate(pictures)) @ caption_PE.T, query)
    return {"r1": (rank_P == 1).astype(np.float64), "r10": (rank_P <= 10).astype(np.float64)}


def sounds(material: Material) -> dict[str, dict[str, Figures]]:
    """Scoring → direction → figures: AudioCaps' captions and sounds retrieve each other. One half of the queries gives
    the means and the references; then the halves are swapped."""
    sides = {"text_to_sound": (material.written_QA, material.heard_QA)}
    sides["sound_to_text"] = sides["text_to_sound"][::-1]
    found: dict[str, dict[str, Figures]] = {"raw": {}, "centred": {}, "centred, less hubness": {}}
    for direction, (query_QA, candidate_QA) in sides.items():
        rank_of = {scoring: np.zeros(len(query_QA), np.int64) for scoring in found}
        first, second = halves(len(query_QA))
        for known, query in ((first, second), (second, first)):
            scorings = {
                "raw": Scoring(),
                "centred": Scoring(query_mean_E=mean_of(query_QA[known]), candidate_mean_E=mean_of(candidate_QA)),
            }
            scorings["centred, less hubness"] = dataclasses.replace(scorings["centred"], reference_RE=query_QA[known])
            for name, scoring in scorings.items():
                rank_of[name][query] = ranks(scores(scoring, query_QA[query], candidate_QA), query)
        for scoring, rank_Q in rank_of.items():
            found[scoring][direction] = {"r1": (rank_Q == 1).astype(float), "r10": (rank_Q <= 10).astype(float)}
    return found


def scores(
    scoring: Scoring, query_QE: Float[np.ndarray, "Q E"], candidate_NE: Float[np.ndarray, "N E"]
) -> Float[np.ndarray, "Q N"]:
    """Of all queries and candidates."""
    candidate_NE = unit32(scoring.candidates(candidate_NE))
    penalty_N = scoring.penalty(candidate_NE)
    score_QN = unit32(scoring.queries(query_QE)) @ candidate_NE.T
    return score_QN if penalty_N is None else score_QN - penalty_N[None]


def pictures_to_sounds(
    material: Material, vector_CA: Float[np.ndarray, "C A"], of_audio: Scoring, of_texts: Scoring
) -> Figures:
    """CIFAR-10's pictures, translated to CLAP vectors, retrieve ESC-50's sounds and the names of its classes.

    p10: the fraction of a picture's ten nearest sounds that have a matching class. top1: whether its nearest class name
    matches. Both for each picture with matching classes, weighted so that the mean over pictures is the mean over their
    classes."""
    of_sound_CN = scores(of_audio, vector_CA, material.sound_NA)
    of_class_CK = scores(of_texts, vector_CA, material.class_text_KA)
    found: dict[str, list[np.ndarray]] = {"p10": [], "top1": []}
    for name, others in COUNTERPARTS.items():
        wanted = [material.classes.index(other) for other in others]
        is_of_C = _are(material.small_classes_C, name)
        nearest_C10 = np.argsort(-of_sound_CN[is_of_C], axis=1, kind="stable")[:, :10]
        found["p10"].append(np.isin(material.sound_classes_N[nearest_C10], wanted).mean(axis=1))
        found["top1"].append(np.isin(of_class_CK[is_of_C].argmax(axis=1), wanted).astype(np.float64))
    mean = np.mean([len(values_C) for values_C in found["p10"]])
    return {
        name: np.concatenate([values_C * mean / len(values_C) for values_C in of_classes])
        for name, of_classes in found.items()
    }


def chance_of_sounds(material: Material) -> tuple[float, float]:
    """The same figures of a random ranking."""
    shares = [
        np.isin(material.sound_classes_N, [material.classes.index(other) for other in others]).mean()
        for others in COUNTERPARTS.values()
    ]
    return float(np.mean(shares)), float(np.mean([len(others) for others in COUNTERPARTS.values()])) / len(
        material.classes
    )


def mixed(vectors: Sequence[Float[np.ndarray, "C A"]]) -> Float[np.ndarray, "C A"]:
    """The mean of unit vectors, scaled to unit length."""
    return unit32(np.mean([unit32(one) for one in vectors], axis=0))


def _are(names: Sequence[str], name: str) -> Bool[np.ndarray, "C"]:
    return np.asarray([one == name for one in names])

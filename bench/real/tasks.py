"""What the recipes are judged by: photographs and their captions, sounds and theirs, and pictures among sounds."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from bench.real.material import COUNTERPARTS, Material, View, centred, mean_of, unit32
from c2c_jax.evaluation.translation import Translate

HALVES_SEED = 0
NEIGHBOURS, HUB_WEIGHT = 8, 0.75  # of nearest-neighbour normalisation (Wang et al. 2024): references, and their weight

Figures = dict[str, Float[np.ndarray, "Q"]]


def halves(count: int) -> tuple[Int[np.ndarray, "H"], Int[np.ndarray, "G"]]:
    """All rows in two halves, drawn once."""
    rows_N = np.random.default_rng(HALVES_SEED).permutation(count)
    return rows_N[: count // 2], rows_N[count // 2 :]


def ranks(score_QN: Float[np.ndarray, "Q N"], own_Q: Int[np.ndarray, "Q"]) -> Int[np.ndarray, "Q"]:
    """From 1: one more than there are candidates with a higher score than the own one. Some sounds of AudioCaps have
    several captions, and their vectors come several times."""
    own_Q1 = np.take_along_axis(score_QN, own_Q[:, None], axis=1)
    return 1 + (score_QN > own_Q1 + 1e-6).sum(axis=1)


def photographs(material: Material, view: View, translate: Translate) -> Figures:
    """Whether each photograph finds its own caption's vector first, or among ten, of all photographs' captions. The
    mean of pictures comes from one half of the photographs, the queries are the other half; and the other way round."""
    caption_PE = centred(material.caption_PE, view.target_mean_E)
    rank_P = np.zeros(len(caption_PE), np.int64)
    first, second = halves(len(caption_PE))
    for known, asked in ((first, second), (second, first)):
        pictures = view.pictures(material.image_PS[asked], mean_of(material.image_PS[known]))
        rank_P[asked] = ranks(view.translated(translate(pictures)) @ caption_PE.T, asked)
    return {"r1": (rank_P == 1).astype(np.float64), "r10": (rank_P <= 10).astype(np.float64)}


def less_hubness(
    score_QN: Float[np.ndarray, "Q N"], reference_RN: Float[np.ndarray, "R N"]
) -> Float[np.ndarray, "Q N"]:
    """Scores of candidates, less their mean score for the nearest of reference queries, weighted."""
    nearest_kN = -np.partition(-reference_RN, NEIGHBOURS - 1, axis=0)[:NEIGHBOURS]
    return score_QN - HUB_WEIGHT * nearest_kN.mean(axis=0)[None]


def sounds(material: Material) -> dict[str, dict[str, Figures]]:
    """Scoring → direction → figures: AudioCaps' captions and sounds look for each other. Half of the queries are
    references and give the means, the other half are asked; and the other way round."""
    sides = {"text_to_sound": (material.written_QA, material.heard_QA)}
    sides["sound_to_text"] = sides["text_to_sound"][::-1]
    found: dict[str, dict[str, Figures]] = {"raw": {}, "centred": {}, "centred, less hubness": {}}
    for direction, (query_QA, candidate_QA) in sides.items():
        rank_of = {scoring: np.zeros(len(query_QA), np.int64) for scoring in found}
        first, second = halves(len(query_QA))
        for known, asked in ((first, second), (second, first)):
            library_QA = centred(candidate_QA, mean_of(candidate_QA))
            reference_RN = centred(query_QA[known], mean_of(query_QA[known])) @ library_QA.T
            score_QN = centred(query_QA[asked], mean_of(query_QA[known])) @ library_QA.T
            rank_of["raw"][asked] = ranks(query_QA[asked] @ candidate_QA.T, asked)
            rank_of["centred"][asked] = ranks(score_QN, asked)
            rank_of["centred, less hubness"][asked] = ranks(less_hubness(score_QN, reference_RN), asked)
        for scoring, rank_Q in rank_of.items():
            found[scoring][direction] = {"r1": (rank_Q == 1).astype(float), "r10": (rank_Q <= 10).astype(float)}
    return found


def pictures_to_sounds(material: Material, vector_CA: Float[np.ndarray, "C A"]) -> tuple[float, float]:
    """CIFAR-10's pictures, as vectors centred among CLAP's, among ESC-50's sounds.

    P@10: the share of a picture's ten nearest sounds that are of a class like its own, the mean over classes. Class
    top-1: the share of pictures whose nearest class name is one, the mean over classes."""
    sound_NA = centred(material.sound_NA, mean_of(material.sound_NA))
    class_KA = centred(material.class_text_KA, mean_of(material.class_text_KA))
    precisions, firsts = [], []
    for name, others in COUNTERPARTS.items():
        wanted = [material.classes.index(other) for other in others]
        is_of_C = _are(material.small_classes_C, name)
        nearest_C10 = np.argsort(-(vector_CA[is_of_C] @ sound_NA.T), axis=1, kind="stable")[:, :10]
        precisions.append(float(np.isin(material.sound_classes_N[nearest_C10], wanted).mean()))
        firsts.append(float(np.isin((vector_CA[is_of_C] @ class_KA.T).argmax(axis=1), wanted).mean()))
    return float(np.mean(precisions)), float(np.mean(firsts))


def chance_of_sounds(material: Material) -> tuple[float, float]:
    """The same figures of sounds and class names at random."""
    shares = [
        np.isin(material.sound_classes_N, [material.classes.index(other) for other in others]).mean()
        for others in COUNTERPARTS.values()
    ]
    return float(np.mean(shares)), float(np.mean([len(others) for others in COUNTERPARTS.values()])) / len(
        material.classes
    )


def mixed(vectors: Sequence[Float[np.ndarray, "C A"]]) -> Float[np.ndarray, "C A"]:
    """The mean of unit vectors, of unit length."""
    return unit32(np.mean([unit32(one) for one in vectors], axis=0))


def _are(names: Sequence[str], name: str) -> Bool[np.ndarray, "C"]:
    return np.asarray([one == name for one in names])

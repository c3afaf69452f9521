"""The exact expectations of random rankings, as method "chance"."""

import numpy as np
from jaxtyping import Float, Int

from c2c_jax.evaluation.rows import Row
from c2c_jax.evaluation.vectors import NONE, PairVectors

RECALLS = (1, 5, 10)


def caption_rows(n: int) -> list[Row]:
    """Chance rows of retrieval among n captions, in both directions; none for one caption."""
    directions = ("source_to_target", "target_to_source") if n > 1 else ()
    return [row for direction in directions for row in rank_rows("captions", np.ones(n, int), n, direction)]


def image_audio_rows(pairs: PairVectors) -> list[Row]:
    """Chance rows of retrieval between images and sounds, and of a class drawn at random."""
    rows: list[Row] = []
    for task, query, candidate in (
        ("images_to_sounds", pairs.images, pairs.sounds),
        ("sounds_to_images", pairs.sounds, pairs.images),
    ):
        relevant_Q, n = _relevant(query.groups_N, candidate.groups_N)
        if len({*candidate.groups_N.tolist()} - {NONE}) > 1 and len(relevant_Q):
            rows += rank_rows(task, relevant_Q, n)
        relevant_Q, n = _relevant(query.labels_N, candidate.labels_N)
        if n > 1 and len(relevant_Q):
            rows += label_rows(task, relevant_Q, n)
        labelled = int(np.sum(query.labels_N != NONE))
        if pairs.sounds.prompts_CE is not None and labelled:
            rows.append(Row(task, "chance", "class_accuracy", 1 / len(pairs.sounds.prompts_CE), labelled))
    return rows


def _relevant(numbers_Q: Int[np.ndarray, "Q"], numbers_N: Int[np.ndarray, "N"]) -> tuple[Int[np.ndarray, "_"], int]:
    """How many candidates have each query's number, for queries that have any; and how many candidates have a number
    at all."""
    known_Q, known_N = (numbers[numbers != NONE] for numbers in (numbers_Q, numbers_N))
    relevant_Q = np.bincount(known_N, minlength=known_Q.max(initial=0) + 1)[known_Q]
    return relevant_Q[relevant_Q > 0], len(known_N)


def rank_rows(task: str, relevant_Q: Int[np.ndarray, "Q"], n: int, direction: str | None = None) -> list[Row]:
    """Chance rows of `retrieval.rank_rows` for queries with one or more relevant candidates among n."""
    fraction_n = rank_fractions(relevant_Q, n)
    until_n, ranks_n = np.cumsum(fraction_n), np.arange(1, n + 1)
    values = {f"recall@{k}": float(until_n[min(k, n) - 1]) for k in RECALLS}
    half = 0.5 - 1e-9
    median = (np.searchsorted(until_n, half) + np.searchsorted(until_n, 1 - half, side="right")) / 2 + 1
    values |= {"median_rank": float(median), "mrr": float(np.sum(fraction_n / ranks_n))}
    n = len(relevant_Q)
    return [Row(task, "chance", metric, value, n, direction=direction) for metric, value in values.items()]


def label_rows(task: str, relevant_Q: Int[np.ndarray, "Q"], n: int) -> list[Row]:
    """Chance rows of neighbour_accuracy and map for queries with one or more candidates of their class among n."""
    values = {
        "neighbour_accuracy": float(np.mean(relevant_Q / n)),
        "map": float(np.mean([average_precision(int(relevant), n) for relevant in relevant_Q])),
    }
    return [Row(task, "chance", metric, value, len(relevant_Q)) for metric, value in values.items()]


def rank_fractions(relevant_Q: Int[np.ndarray, "Q"], n: int) -> Float[np.ndarray, "n"]:
    """The chance that the first of a query's relevant candidates comes at rank 1 … n, averaged over queries.

    Of R relevant among n, none is before rank k + 1 with chance C(n − R, k) / C(n, k).
    """
    k = np.arange(n)
    fraction_n, queries = np.zeros(n), len(relevant_Q)
    for relevant, count in zip(*np.unique(relevant_Q, return_counts=True), strict=True):
        not_before_n = np.cumprod(np.concatenate([[1.0], np.maximum(n - relevant - k, 0) / (n - k)]))
        fraction_n += count / queries * (not_before_n[:-1] - not_before_n[1:])
    return fraction_n


def average_precision(relevant: int, n: int) -> float:
    """The mean of average precision over all rankings of n candidates, `relevant` of which are (Bestgen 2015, "Exact
    Expected Average Precision of the Random Baseline for System Evaluation")."""
    if n == 1:
        return float(relevant)
    harmonic = float(np.sum(1 / np.arange(1, n + 1)))
    return (harmonic + (relevant - 1) / (n - 1) * (n - harmonic)) / n

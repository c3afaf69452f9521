"""What a random ranking is expected to score, exactly."""

import numpy as np
from jaxtyping import Float, Int

from c2c_jax.evaluation.rows import Row

RECALLS = (1, 5, 10)


def rank_shares(relevant_Q: Int[np.ndarray, "Q"], n: int) -> Float[np.ndarray, "n"]:
    """The chance that the first of a query's relevant candidates comes at rank 1 … n, averaged over queries.

    Of R relevant among n, none is before rank k + 1 with chance C(n − R, k) / C(n, k).
    """
    k = np.arange(n)
    shares_n, queries = np.zeros(n), len(relevant_Q)
    for relevant, count in zip(*np.unique(relevant_Q, return_counts=True), strict=True):
        not_before_n = np.cumprod(np.concatenate([[1.0], np.maximum(n - relevant - k, 0) / (n - k)]))
        shares_n += count / queries * (not_before_n[:-1] - not_before_n[1:])
    return shares_n


def average_precision(relevant: int, n: int) -> float:
    """The mean of average precision over all rankings of n candidates, `relevant` of which are (Bestgen 2015, "Exact
    Expected Average Precision of the Random Baseline for System Evaluation")."""
    if n == 1:
        return float(relevant)
    harmonic = float(np.sum(1 / np.arange(1, n + 1)))
    return (harmonic + (relevant - 1) / (n - 1) * (n - harmonic)) / n


def own_rows(task: str, relevant_Q: Int[np.ndarray, "Q"], n: int, direction: str | None = None) -> list[Row]:
    """Of queries that have so many relevant ones among n candidates, one or more."""
    shares_n = rank_shares(relevant_Q, n)
    until_n, ranks_n = np.cumsum(shares_n), np.arange(1, n + 1)
    values = {f"recall@{k}": float(until_n[min(k, n) - 1]) for k in RECALLS}
    half = 0.5 - 1e-9
    median = (np.searchsorted(until_n, half) + np.searchsorted(until_n, 1 - half, side="right")) / 2 + 1
    values |= {"median_rank": float(median), "mrr": float(np.sum(shares_n / ranks_n))}
    return [
        Row(task=task, method="chance", metric=metric, value=value, n=len(relevant_Q), direction=direction)
        for metric, value in values.items()
    ]


def label_rows(task: str, relevant_Q: Int[np.ndarray, "Q"], n: int) -> list[Row]:
    """Of queries that have so many candidates of their label among n, one or more."""
    values = {
        "neighbour_accuracy": float(np.mean(relevant_Q / n)),
        "map": float(np.mean([average_precision(int(relevant), n) for relevant in relevant_Q])),
    }
    return [
        Row(task=task, method="chance", metric=name, value=value, n=len(relevant_Q)) for name, value in values.items()
    ]

"""Retrieval scores of held-out captions: how often a translated vector is nearest to its own target."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from c2c_jax.retrieval.nearest import paired_ranks
from c2c_jax.spaces.models.layers import unit

IN_BATCH = 32


def retrieval_scores(
    predicted_NE: Float[np.ndarray, "N E"], target_NE: Float[np.ndarray, "N E"], tile: int = 1024
) -> dict[str, float]:
    """Ranks all N targets by their cosine to each of N predictions; row i belongs to row i.

    recall@k: fraction of predictions whose own target is among the k nearest (k = 1, 5, 10). median_rank: of the own
    targets, from 1. in_batch_top1: fraction whose own target is the nearest of 32, as CLIP2CLAP's author logged it; an
    incomplete last batch is left out. mean_cosine: mean cosine of predictions and their own targets. Ties count against
    the own target, so that a translator that maps everything to one vector scores 0. tile: rows and columns of the
    cosines in memory at a time.
    """
    rank_N = paired_ranks(predicted_NE, target_NE, tile=tile)
    query_NE, candidates_NE = (np.asarray(unit(jnp.asarray(v, jnp.float32))) for v in (predicted_NE, target_NE))
    return {
        **{f"recall@{k}": float(np.mean(rank_N <= k)) for k in (1, 5, 10)},
        "in_batch_top1": _in_batch_top1(query_NE, candidates_NE),
        "median_rank": float(np.median(rank_N)),
        "mean_cosine": float(np.mean(np.einsum("ne,ne->n", query_NE, candidates_NE))),
    }


def _in_batch_top1(query_NE: Float[np.ndarray, "N E"], candidates_NE: Float[np.ndarray, "N E"]) -> float:
    rows = min(IN_BATCH, len(query_NE))
    batches = len(query_NE) // rows
    query_GBE, candidates_GBE = (x[: batches * rows].reshape(batches, rows, -1) for x in (query_NE, candidates_NE))
    scores_GBB = query_GBE @ candidates_GBE.transpose(0, 2, 1)
    own_GB1 = np.einsum("gbb->gb", scores_GBB)[:, :, None]
    return float(np.mean((~(scores_GBB < own_GB1)).sum(2) == 1))

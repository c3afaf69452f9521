"""Retrieval of held-out captions: does a translated vector find its own target among all the others?"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from c2c_jax.retrieval.nearest import paired_ranks
from c2c_jax.spaces.models.layers import unit

IN_BATCH = 32


def retrieval(
    predicted_NE: Float[np.ndarray, "N E"], target_NE: Float[np.ndarray, "N E"], block: int = 1024
) -> dict[str, float]:
    """Scores of N predictions against all N targets by cosine; row i belongs to row i.

    recall@k: share of predictions whose own target is among the k nearest (k = 1, 5, 10). median_rank: from 1.
    in_batch_top1: share whose own target is the nearest of 32, as CLIP2CLAP's author logged it; the last rows that fill
    no 32 are left out. mean_cosine: of each prediction with its own target. A candidate that scores as high as the own
    one counts as ranked before it, so vectors that all fell together score nothing. Cosines are held for block × block.
    """
    rank_N = paired_ranks(predicted_NE, target_NE, tile=block)
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

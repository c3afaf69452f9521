"""Held-out captions: does the translation of a caption's source vector find the caption's own target vector?"""

import numpy as np
from jaxtyping import Float, Int

from c2c_jax.evaluation import chance
from c2c_jax.evaluation.bootstrap import Bootstrap
from c2c_jax.evaluation.gaps import cosines
from c2c_jax.evaluation.rows import Row
from c2c_jax.evaluation.scored import Centring, compared
from c2c_jax.retrieval.nearest import paired_ranks

TASK = "captions"
ROWS_AT_ONCE = 16_384


def rank_rows(
    task: str,
    method: str,
    ranks_N: Int[np.ndarray, "N"],
    bootstrap: Bootstrap,
    direction: str | None = None,
    prefix: str = "",
) -> list[Row]:
    """Rows of the ranks, from 1, at which queries find what they look for.

    recall@k: the share of ranks up to k (1, 5, 10). median_rank. mrr: mean of 1/rank (Voorhees 1999, TREC-8 question
    answering). prefix: goes before the metrics' names.
    """
    figures = {f"recall@{k}": (ranks_N <= k).astype(np.float64) for k in chance.RECALLS} | {"mrr": 1 / ranks_N}
    rows = []
    for metric, values_N in figures.items():
        rows.append((metric, float(values_N.mean()), bootstrap.of_mean(values_N)))
    rows.insert(-1, ("median_rank", float(np.median(ranks_N)), bootstrap.of_median(ranks_N.astype(np.float64))))
    return [
        Row(
            task=task, method=method, metric=prefix + metric, value=value, low=low, high=high, n=len(ranks_N),
            direction=direction,
        )
        for metric, value, (low, high) in rows
    ]  # fmt: skip


def caption_rows(
    method: str,
    translated_NE: Float[np.ndarray, "N E"],
    target_NE: Float[np.ndarray, "N E"],
    bootstrap: Bootstrap,
    csls: int | None = None,
    centring: Centring | None = None,
) -> list[Row]:
    """Retrieval among the same N captions, by cosine, in both directions, and the mean cosine of a translation and its
    own target (as CLIP2CLAP's evaluation would have it). Of one caption the cosine alone.

    csls: also rank by CSLS with so many neighbours, against hubs (Conneau et al. 2018, eq. 3). centring: also rank by
    centred cosine and, if translations are the queries, by centred cosine less hubness; see `scored.compared`.
    """
    rows: list[Row] = []
    text_E, reference_RE = (centring.text_E, centring.reference_RE) if centring else (None, None)
    both = {
        "source_to_target": (translated_NE, target_NE, reference_RE),
        "target_to_source": (target_NE, translated_NE, None),
    }
    for direction, (query_NE, candidates_NE, references) in both.items():
        scorings = compared(query_NE, candidates_NE, text_E, reference_RE=references, reference_mean_E=text_E)
        for one in scorings if len(target_NE) > 1 else ():
            ranks_N = paired_ranks(one.query_QE, one.candidate_NE, penalty_N=one.penalty_N)
            rows += rank_rows(TASK, method, ranks_N, bootstrap, direction, one.prefix)
        if direction == "source_to_target":
            rows.append(cosine_row(method, translated_NE, target_NE, bootstrap, direction))
        if csls and len(target_NE) > 1:
            ranks_N = paired_ranks(query_NE, candidates_NE, csls=csls)
            rows += rank_rows(TASK, method, ranks_N, bootstrap, direction, prefix="csls_")
    return rows


def cosine_row(
    method: str,
    translated_NE: Float[np.ndarray, "N E"],
    target_NE: Float[np.ndarray, "N E"],
    bootstrap: Bootstrap,
    direction: str | None,
    task: str = TASK,
) -> Row:
    """The mean cosine of rows."""
    blocks = [slice(start, start + ROWS_AT_ONCE) for start in range(0, len(target_NE), ROWS_AT_ONCE)]
    cosine_N = np.concatenate([cosines(translated_NE[block], target_NE[block]) for block in blocks])
    low, high = bootstrap.of_mean(cosine_N)
    return Row(
        task=task, method=method, metric="mean_cosine", value=float(cosine_N.mean()), low=low, high=high,
        n=len(cosine_N), direction=direction,
    )  # fmt: skip


def chance_rows(n: int) -> list[Row]:
    """Of a random ranking of n captions; none of one."""
    if n < 2:
        return []
    relevant_N = np.ones(n, int)
    return [
        row for way in ("source_to_target", "target_to_source") for row in chance.own_rows(TASK, relevant_N, n, way)
    ]

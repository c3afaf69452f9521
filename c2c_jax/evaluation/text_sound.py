"""Sounds and their captions in the target space alone: does a caption find its sound, and a sound its caption?"""

import numpy as np
from jaxtyping import Float, Int

from c2c_jax.evaluation import chance
from c2c_jax.evaluation.bootstrap import Bootstrap
from c2c_jax.evaluation.captions import rank_rows
from c2c_jax.evaluation.rows import Row
from c2c_jax.evaluation.scored import Centring, compared, own_mean
from c2c_jax.retrieval.nearest import label_ranks, paired_ranks

TASKS = ("texts_to_sounds", "sounds_to_texts")


def text_sound_rows(
    caption_DE: Float[np.ndarray, "D E"],
    own_D: Int[np.ndarray, "D"],
    audio_NE: Float[np.ndarray, "N E"],
    bootstrap: Bootstrap,
    centring: Centring | None = None,
) -> list[Row]:
    """recall@k, median_rank and mrr of captions' target vectors among all sounds, and of captioned sounds among the
    captions, as method "caption"; and of chance. No rows for a single candidate.

    own_D: number of each caption's sound. centring: adds the same by centred cosine and, from texts to sounds, by
    centred cosine less hubness, if `scored.compared` has the means; sounds are centred by their own mean.
    """
    rows: list[Row] = []
    text_E, reference_RE = (centring.text_E, centring.reference_RE) if centring else (None, None)
    if len(own_D) and len(audio_NE) > 1:
        forth = compared(caption_DE, audio_NE, text_E, reference_RE=reference_RE, reference_mean_E=text_E)
        for one in forth:
            all_N = np.arange(len(audio_NE))
            ranks_D, _ = label_ranks(one.query_QE, one.candidate_NE, own_D, all_N, penalty_N=one.penalty_N)
            rows += rank_rows(TASKS[0], "caption", ranks_D, bootstrap, prefix=one.prefix)
        rows += chance.own_rows(TASKS[0], np.ones(len(own_D), int), len(audio_NE))
    if len(own_D) > 1:
        for one in compared(audio_NE[own_D], caption_DE, own_mean(audio_NE) if centring else None):
            rows += rank_rows(
                TASKS[1], "caption", paired_ranks(one.query_QE, one.candidate_NE), bootstrap, prefix=one.prefix
            )
        rows += chance.own_rows(TASKS[1], np.ones(len(own_D), int), len(own_D))
    return rows

"""Names of a translator's validation scores."""

SCORES = ("recall@1", "recall@5", "recall@10", "in_batch_top1", "median_rank", "mean_cosine")


NOISY_MRR, NOISY_COSINE = NOISY_SCORES = ("noisy_mrr", "noisy_cosine")  # see `training.selection`


def candidate_score(select_by: str) -> str:
    """The score by which candidates compete in a run of this `config.select_by`: its own if it is one of perturbed
    captions, else noisy_mrr."""
    return select_by if select_by in NOISY_SCORES else NOISY_MRR

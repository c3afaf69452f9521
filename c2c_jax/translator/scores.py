"""Names of a translator's validation scores."""

from c2c_jax.config import CAPTION_SCORES as SCORES
from c2c_jax.config import PERTURBED_SCORES as NOISY_SCORES

NOISY_MRR, NOISY_COSINE = NOISY_SCORES

__all__ = ["NOISY_COSINE", "NOISY_MRR", "NOISY_SCORES", "SCORES", "candidate_score"]


def candidate_score(select_by: str) -> str:
    """The score by which candidates compete in a run of this `config.select_by`: its own if it is one of perturbed
    captions, else noisy_mrr."""
    return select_by if select_by in NOISY_SCORES else NOISY_MRR

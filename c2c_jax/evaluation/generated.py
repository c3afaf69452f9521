"""Scores of generated sounds by their CLAP audio vectors, without any file.

All take vectors of any length and look at unit ones.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from c2c_jax.evaluation.bootstrap import Bootstrap, Interval
from c2c_jax.evaluation.gaps import cosines
from c2c_jax.io.vectors import unit_rows

TEMPERATURE = 0.01  # of the softmax over labels: CLIP's scale of logits, 100, where its training bounds it


def clap_scores(sounds_NE: Float[np.ndarray, "N E"], wanted_NE: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "N"]:
    """Cosine of each sound's vector and the vector it was to sound like (as in Huang et al. 2023,
    "Make-An-Audio"; the CLAP score is its mean)."""
    return cosines(sounds_NE, wanted_NE)


def label_shares(
    sounds_NE: Float[np.ndarray, "N E"], prompts_CE: Float[np.ndarray, "C E"], temperature: float = TEMPERATURE
) -> Float[np.ndarray, "N C"]:
    """p(label | sound): softmax over C label prompts of their cosines to each sound, over the temperature."""
    logits_NC = unit_rows(sounds_NE) @ unit_rows(prompts_CE).T / temperature
    shares_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
    return shares_NC / shares_NC.sum(axis=1, keepdims=True)


def inception_score(shares_NC: Float[np.ndarray, "N C"], bootstrap: Bootstrap) -> tuple[float, Interval]:
    """exp of the mean KL divergence of p(label | sound) from the mean of them (Salimans et al. 2016, section 4), CLAP's
    zero-shot classifier in Inception's place: 1 where all sounds are alike or none is clear, C at most."""
    N = len(shares_NC)
    told_N = np.sum(shares_NC * np.log(np.maximum(shares_NC, 1e-300)), axis=1)  # minus each sound's entropy

    def score(counts_RN: np.ndarray) -> np.ndarray:
        mean_RC = counts_RN @ shares_NC / N
        entropy_R = -np.sum(mean_RC * np.log(np.maximum(mean_RC, 1e-300)), axis=1)
        return np.exp(counts_RN @ told_N / N + entropy_R)

    return float(score(np.ones((1, N)))[0]), bootstrap.of_counts(N, score)


def diversities(candidates: Sequence[Float[np.ndarray, "_ E"]]) -> Float[np.ndarray, "P"]:
    """For each picture, the mean of 1 − cosine over the pairs of its candidates (seeds), two or more; 0: all alike."""
    return np.array([_apart(unit_rows(sounds_KE)) for sounds_KE in candidates])


def _apart(sounds_KE: Float[np.ndarray, "K E"]) -> float:
    pairs = np.triu_indices(len(sounds_KE), 1)
    return float(np.mean(1 - (sounds_KE @ sounds_KE.T)[pairs]))

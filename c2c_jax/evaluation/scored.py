"""How queries are compared with candidates: by cosine, by centred cosine, and by centred cosine less hubness."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Bool, Float, Shaped

from c2c_jax.evaluation.rows import CENTRED, LESS_HUBNESS
from c2c_jax.io.scratch import empty_vectors
from c2c_jax.retrieval.scoring import MIN_TO_CENTRE, Scoring, centred_array, unit_mean

ROWS_AT_ONCE = 16_384


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Compared:
    """Queries and candidates, vectors of any length, to be ranked by cosine minus a penalty for each candidate.

    prefix: of the metrics' names, a key of `rows.SCORINGS`.
    """

    prefix: str
    query_QE: Shaped[np.ndarray, "Q E"]
    candidate_NE: Shaped[np.ndarray, "N E"]
    penalty_N: Float[np.ndarray, "N"] | None = None

    def some(self, is_query_Q: Bool[np.ndarray, "Q"], is_candidate_N: Bool[np.ndarray, "N"]) -> "Compared":
        """Selects some of the queries and some of the candidates."""
        return dataclasses.replace(
            self,
            query_QE=self.query_QE[is_query_Q],
            candidate_NE=self.candidate_NE[is_candidate_N],
            penalty_N=None if self.penalty_N is None else self.penalty_N[is_candidate_N],
        )


def compared(
    query_QE: Shaped[np.ndarray, "Q E"],
    candidate_NE: Shaped[np.ndarray, "N E"],
    query_mean_E: Float[np.ndarray, "E"] | None = None,
    *,
    candidate_mean_E: Float[np.ndarray, "E"] | None = None,
    reference_RE: Float[np.ndarray, "R E"] | None = None,
    reference_mean_E: Float[np.ndarray, "E"] | None = None,
) -> list[Compared]:
    """Queries and candidates for each scoring: plain; centred, if both means are known; and less hubness, if there are
    references.

    query_mean_E: mean of unit vectors. candidate_mean_E: for fewer than MIN_TO_CENTRE candidates; more candidates
    are centred by their own mean. reference_RE, reference_mean_E: the reference queries that hubness is measured
    with, and their mean.
    """
    found = [Compared(prefix="", query_QE=query_QE, candidate_NE=candidate_NE)]
    if query_mean_E is None:
        return found
    if (own_E := own_mean(candidate_NE)) is not None:
        candidate_mean_E = own_E
    if candidate_mean_E is None:
        return found
    scoring = Scoring(
        query_mean_E=query_mean_E,
        candidate_mean_E=candidate_mean_E,
        reference_RE=reference_RE,
        reference_mean_E=reference_mean_E,
    )
    centred = Compared(
        prefix=CENTRED,
        query_QE=_in_blocks(scoring.queries, query_QE),
        candidate_NE=_in_blocks(scoring.candidates, candidate_NE),
    )
    found.append(centred)
    if scoring.is_less_hubness:
        penalty_N = scoring.penalty(centred.candidate_NE)
        found.append(dataclasses.replace(centred, prefix=LESS_HUBNESS, penalty_N=penalty_N))
    return found


def own_mean(x_NE: Shaped[np.ndarray, "N E"] | None) -> Float[np.ndarray, "E"] | None:
    """The mean of vectors scaled to unit length; None for fewer than MIN_TO_CENTRE."""
    return None if x_NE is None or len(x_NE) < MIN_TO_CENTRE else unit_mean(x_NE[block] for block in _blocks(len(x_NE)))


def centred_rows(x_NE: Shaped[np.ndarray, "N E"], mean_E: Float[np.ndarray, "E"]) -> Float[np.ndarray, "N E"]:
    """Centres vectors of any length by a mean of unit vectors."""
    return _in_blocks(lambda x_BE: centred_array(x_BE, mean_E), x_NE)


def _in_blocks(of_block: Callable[[np.ndarray], np.ndarray], x_NE: np.ndarray) -> Float[np.ndarray, "N E"]:
    vectors_NE = empty_vectors(*x_NE.shape)
    for block in _blocks(len(x_NE)):
        vectors_NE[block] = of_block(x_NE[block])
    return vectors_NE


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, start + ROWS_AT_ONCE) for start in range(0, count, ROWS_AT_ONCE))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Centring:
    """Means and reference queries for the centred scores of a method, all in the target space.

    text_E: mean of captions' unit vectors, which centres translated texts. image_E: mean that centres translated
    pictures; None: it is unknown, and they have no centred scores. reference_RE: captions that the method translated,
    centred by text_E; None: there are no scores less hubness.
    """

    text_E: Float[np.ndarray, "E"]
    image_E: Float[np.ndarray, "E"] | None
    reference_RE: Float[np.ndarray, "R E"] | None = None

"""How a query's target vector is compared with candidates: by centred cosines, less the hubness of each candidate."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from c2c_jax.models.gap import centred
from c2c_jax.retrieval import top_k

NEIGHBOURS, WEIGHT = 8, 0.75  # reference queries nearest to a candidate, and the weight of their mean cosine
FEWEST = 32  # candidates whose own mean is taken: that of fewer takes away what tells them apart


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Scoring:
    """Scores of queries and candidates, which are vectors of the target space of any length.

    query_mean_E, candidate_mean_E: means of unit vectors of either kind, by which they are centred; None: both stay as
    they are. reference_RE: queries, such as the bundle's captions, as they are before centring: from a candidate's
    score its mean cosine to the NEIGHBOURS nearest of them is taken, times WEIGHT, as a candidate near to many queries
    is a hub (nearest-neighbour normalisation, Wang et al. 2024, "Nearest Neighbor Normalization Improves Multimodal
    Retrieval"); None: nothing is taken.
    """

    query_mean_E: Float[np.ndarray, "E"] | None = None
    candidate_mean_E: Float[np.ndarray, "E"] | None = None
    reference_RE: Float[np.ndarray, "R E"] | None = None

    def __str__(self) -> str:
        return ("centred cosine" if self.is_centred else "cosine") + (", less hubness" if self.is_less_hubness else "")

    @property
    def is_centred(self) -> bool:
        return self.query_mean_E is not None and self.candidate_mean_E is not None

    @property
    def is_less_hubness(self) -> bool:
        return self.reference_RE is not None

    def queries(self, x_QE: Float[np.ndarray, "Q E"]) -> Float[np.ndarray, "Q E"]:
        """Queries as their cosines are taken."""
        return _centred(x_QE, self.query_mean_E) if self.is_centred else x_QE

    def candidates(self, x_NE: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "N E"]:
        """Candidates as their cosines are taken."""
        return _centred(x_NE, self.candidate_mean_E) if self.is_centred else x_NE

    def penalty(self, candidate_NE: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "N"] | None:
        """What is taken from the cosine of each candidate. candidate_NE: as `candidates` gives them."""
        if self.reference_RE is None:
            return None
        count = min(NEIGHBOURS, len(self.reference_RE))
        return WEIGHT * top_k(candidate_NE, self.queries(self.reference_RE), count)[0].mean(axis=1)


def _centred(x_NE: np.ndarray, mean_E: np.ndarray | None) -> Float[np.ndarray, "N E"]:
    return x_NE if mean_E is None else np.asarray(centred(jnp.asarray(x_NE, jnp.float32), mean_E))

"""How a query's target vector is compared with candidates: by centred cosines, less the hubness of each candidate."""

import dataclasses
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from c2c_jax.retrieval.nearest import top_k
from c2c_jax.translator.centring import centred

NEIGHBOURS, WEIGHT = 2, 0.5  # reference queries nearest to a candidate, and the weight of their mean cosine
MIN_TO_CENTRE = 32  # minimum number of vectors to centre by their own mean; fewer would lose what distinguishes them
AT_ONCE = 2**14  # candidates whose penalties are computed together


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Scoring:
    """How to score candidates for queries; both are vectors of the target space, of any length.

    query_mean_E, candidate_mean_E: means of unit vectors, to centre queries and candidates by; if one is None, neither
    is centred. reference_RE: reference queries, such as the bundle's captions, before centring; None: no hubness is
    subtracted. The hubness of a candidate is its mean cosine to the NEIGHBOURS nearest references; WEIGHT times that is
    subtracted, since a candidate near to many queries is a hub (nearest-neighbour normalisation, Wang et al. 2024,
    "Nearest Neighbor Normalization Improves Multimodal Retrieval"). reference_mean_E: mean to centre references by;
    None: that of queries.
    """

    query_mean_E: Float[np.ndarray, "E"] | None = None
    candidate_mean_E: Float[np.ndarray, "E"] | None = None
    reference_RE: Float[np.ndarray, "R E"] | None = None
    reference_mean_E: Float[np.ndarray, "E"] | None = None

    def __str__(self) -> str:
        return ("centred cosine" if self.is_centred else "cosine") + (", less hubness" if self.is_less_hubness else "")

    @property
    def is_centred(self) -> bool:
        return self._means is not None

    @property
    def _means(self) -> tuple[Float[np.ndarray, "E"], Float[np.ndarray, "E"]] | None:
        if self.query_mean_E is None or self.candidate_mean_E is None:
            return None
        return self.query_mean_E, self.candidate_mean_E

    @property
    def is_less_hubness(self) -> bool:
        return self.reference_RE is not None

    def queries(self, x_QE: Float[np.ndarray, "Q E"]) -> Float[np.ndarray, "Q E"]:
        """Queries as they enter the cosine: centred, if both means are known."""
        return x_QE if self._means is None else centred_array(x_QE, self._means[0])

    def candidates(self, x_NE: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "N E"]:
        """Candidates as they enter the cosine: centred, if both means are known."""
        return x_NE if self._means is None else centred_array(x_NE, self._means[1])

    def penalty(self, candidate_NE: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "N"] | None:
        """WEIGHT times the hubness of each candidate, to be subtracted from its cosines; None without references.
        candidate_NE: as returned by `candidates`."""
        if self.reference_RE is None:
            return None
        reference_RE, count = self.reference_RE, min(NEIGHBOURS, len(self.reference_RE))
        if self._means is not None:
            mean_E = self._means[0] if self.reference_mean_E is None else self.reference_mean_E
            reference_RE = centred_array(reference_RE, mean_E)
        penalty_N = np.empty(len(candidate_NE), np.float32)
        for start in range(0, len(candidate_NE), AT_ONCE):
            block = slice(start, start + AT_ONCE)
            penalty_N[block] = WEIGHT * top_k(candidate_NE[block], reference_RE, count)[0].mean(axis=1)
        return penalty_N


def unit_mean(blocks: Iterable[Shaped[np.ndarray, "_ E"]]) -> Float[np.ndarray, "E"]:
    """The mean of vectors scaled to unit length, from one or more blocks of raw vectors; float32."""
    count, sum_E = 0, np.zeros((), np.float64)
    for block_BE in blocks:
        x_BE = np.asarray(block_BE, np.float32)
        lengths_B = np.sqrt(np.einsum("be,be->b", x_BE, x_BE))
        sum_E = sum_E + (1 / np.maximum(lengths_B, 1e-12)) @ x_BE
        count += len(x_BE)
    return (sum_E / count).astype(np.float32)


def centred_array(x_NE: Shaped[np.ndarray, "N E"], mean_E: Float[np.ndarray, "E"]) -> Float[np.ndarray, "N E"]:
    """`models.gap.centred` for an array of any dtype; returns float32."""
    return np.asarray(_centred(jnp.asarray(x_NE), mean_E))


@jax.jit
def _centred(x_NE: Shaped[Array, "N E"], mean_E: Float[Array, "E"]) -> Float[Array, "N E"]:
    return centred(x_NE.astype(jnp.float32), mean_E)

"""How queries score candidates: by centred cosines, less the hubness of each candidate."""

import dataclasses
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from c2c_jax.retrieval.nearest import top_k
from c2c_jax.spaces.models.layers import unit
from c2c_jax.translator.bundle import Bundle
from c2c_jax.translator.centring import centred, shift_to_audio, uncentred
from c2c_jax.translator.memory import REFERENCES, evenly_spaced

NEIGHBOURS, WEIGHT = 2, 0.5  # reference queries nearest to a candidate, and the weight of their mean cosine
MIN_TO_CENTRE = 32  # minimum number of vectors to centre by their own mean; fewer would lose what distinguishes them


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
        """Whether both means are known."""
        return self.query_mean_E is not None and self.candidate_mean_E is not None

    @property
    def is_less_hubness(self) -> bool:
        """Whether there are reference queries."""
        return self.reference_RE is not None

    def queries(self, x_QE: Float[np.ndarray, "Q E"]) -> Float[np.ndarray, "Q E"]:
        """Queries as they enter the cosine: centred, if both means are known."""
        return self._centred(x_QE, self.query_mean_E)

    def candidates(self, x_NE: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "N E"]:
        """Candidates as they enter the cosine: centred, if both means are known."""
        return self._centred(x_NE, self.candidate_mean_E)

    def penalty(self, candidate_NE: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "N"] | None:
        """WEIGHT times the hubness of each candidate, to be subtracted from its cosines; None without references.
        candidate_NE: as returned by `candidates`."""
        if self.reference_RE is None:
            return None
        mean_E = self.query_mean_E if self.reference_mean_E is None else self.reference_mean_E
        reference_RE = self._centred(self.reference_RE, mean_E)
        return WEIGHT * top_k(candidate_NE, reference_RE, min(NEIGHBOURS, len(reference_RE)))[0].mean(axis=1)

    def _centred(self, x_NE: Float[np.ndarray, "N E"], mean_E: Float[np.ndarray, "E"] | None) -> np.ndarray:
        return centred_array(x_NE, mean_E) if self.is_centred and mean_E is not None else x_NE


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
    """`translator.centring.centred` for an array of any dtype; returns float32."""
    return np.asarray(_centred(jnp.asarray(x_NE), mean_E))


@jax.jit
def _centred(x_NE: Shaped[Array, "N E"], mean_E: Float[Array, "E"]) -> Float[Array, "N E"]:
    return centred(x_NE.astype(jnp.float32), mean_E)


def reference_captions(bundle: Bundle) -> Float[np.ndarray, "R S"] | None:
    """At most REFERENCES of a bundle's stored captions, evenly spaced: unit source vectors, centred if its translator
    takes centred vectors. None if it stores fewer than MIN_TO_CENTRE, or if its translator takes raw vectors, since
    captions are stored without their lengths."""
    if bundle.memory is None or bundle.spec.input_norm == "none" or len(bundle.memory.source) < MIN_TO_CENTRE:
        return None
    return np.asarray(bundle.memory.source[evenly_spaced(len(bundle.memory.source))], np.float32)


def translated_captions(bundle: Bundle) -> Float[np.ndarray, "R E"] | None:
    """`reference_captions`, translated to where the bundle places pictures: unit target vectors."""
    if (source_RS := reference_captions(bundle)) is None:
        return None
    at_once = 64 if bundle.spec.kind == "transformer" else REFERENCES  # a transformer takes 8 MiB of memory for each
    with jax.default_matmul_precision("float32"):
        starts = range(0, len(source_RS), at_once)
        target_RE = jnp.concatenate([bundle.translator(jnp.asarray(source_RS[i : i + at_once])) for i in starts])
        if bundle.spec.input_norm == "centred":
            return np.asarray(uncentred(target_RE, bundle.means.mean("target_text")))
        return np.asarray(unit(shift_to_audio(bundle.means, target_RE)))

"""Scores of candidates for queries: centred cosines, less the hubness of each candidate."""

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

NEIGHBOURS, WEIGHT = 2, 0.5  # the reference queries averaged for hubness, and its weight
MIN_TO_CENTRE = 32  # vectors needed to estimate their mean; that of fewer vectors is too close to each of them


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Scoring:
    """Scores candidates for queries; both are target-space vectors of any length.

    query_mean_E, candidate_mean_E: means of unit vectors, for centring; if either is None, neither side is centred.
    reference_RE: uncentred reference queries, such as the bundle's captions; None: hubness is not subtracted.
    reference_mean_E: mean for centring the references; None: query_mean_E.

    A candidate that is near to many queries is a hub. Its hubness is its mean cosine to the NEIGHBOURS nearest
    references, and WEIGHT times the hubness is subtracted from its cosines (Wang et al. 2024, "Nearest Neighbor
    Normalization Improves Multimodal Retrieval").
    """

    query_mean_E: Float[np.ndarray, "E"] | None = None
    candidate_mean_E: Float[np.ndarray, "E"] | None = None
    reference_RE: Float[np.ndarray, "R E"] | None = None
    reference_mean_E: Float[np.ndarray, "E"] | None = None

    def __str__(self) -> str:
        return ("centred cosine" if self.is_centred else "cosine") + (
            " minus hubness" if self.subtracts_hubness else ""
        )

    @property
    def is_centred(self) -> bool:
        """Whether both means are known, so that vectors are centred."""
        return self.query_mean_E is not None and self.candidate_mean_E is not None

    @property
    def subtracts_hubness(self) -> bool:
        """Whether hubness is subtracted, which needs reference queries."""
        return self.reference_RE is not None

    def queries(self, x_QE: Float[np.ndarray, "Q E"]) -> Float[np.ndarray, "Q E"]:
        """Returns queries centred if both means are known, else unchanged."""
        return self._centred(x_QE, self.query_mean_E)

    def candidates(self, x_NE: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "N E"]:
        """Returns candidates centred if both means are known, else unchanged."""
        return self._centred(x_NE, self.candidate_mean_E)

    def penalty(self, candidate_NE: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "N"] | None:
        """Returns WEIGHT times the hubness of each candidate, or None without references. candidate_NE: output of
        `candidates`."""
        if self.reference_RE is None:
            return None
        mean_E = self.query_mean_E if self.reference_mean_E is None else self.reference_mean_E
        reference_RE = self._centred(self.reference_RE, mean_E)
        return WEIGHT * top_k(candidate_NE, reference_RE, min(NEIGHBOURS, len(reference_RE)))[0].mean(axis=1)

    def _centred(self, x_NE: Float[np.ndarray, "N E"], mean_E: Float[np.ndarray, "E"] | None) -> np.ndarray:
        return centred_array(x_NE, mean_E) if self.is_centred and mean_E is not None else x_NE


def unit_mean(blocks: Iterable[Shaped[np.ndarray, "_ E"]]) -> Float[np.ndarray, "E"]:
    """Returns the float32 mean of vectors scaled to unit length, computed over blocks of raw vectors."""
    count, sum_E = 0, np.zeros((), np.float64)
    for block_BE in blocks:
        x_BE = np.asarray(block_BE, np.float32)
        lengths_B = np.sqrt(np.einsum("be,be->b", x_BE, x_BE))
        sum_E = sum_E + (1 / np.maximum(lengths_B, 1e-12)) @ x_BE
        count += len(x_BE)
    return (sum_E / count).astype(np.float32)


def centred_array(x_NE: Shaped[np.ndarray, "N E"], mean_E: Float[np.ndarray, "E"]) -> Float[np.ndarray, "N E"]:
    """Applies `translator.centring.centred` to an array of any dtype; returns float32."""
    return np.asarray(_centred(jnp.asarray(x_NE), mean_E))


@jax.jit
def _centred(x_NE: Shaped[Array, "N E"], mean_E: Float[Array, "E"]) -> Float[Array, "N E"]:
    return centred(x_NE.astype(jnp.float32), mean_E)


def reference_captions(bundle: Bundle) -> Float[np.ndarray, "R S"] | None:
    """Returns at most REFERENCES evenly spaced captions of a bundle as unit source vectors, centred if the translator
    takes centred vectors.

    Returns None if the bundle stores fewer than MIN_TO_CENTRE captions, or if its translator takes raw vectors, as
    captions are stored at unit length.
    """
    if bundle.memory is None or bundle.spec.input_norm == "none" or len(bundle.memory.source) < MIN_TO_CENTRE:
        return None
    return np.asarray(bundle.memory.source[evenly_spaced(len(bundle.memory.source))], np.float32)


def translated_captions(bundle: Bundle) -> Float[np.ndarray, "R E"] | None:
    """Translates `reference_captions` as the bundle translates images; returns unit target vectors, or None."""
    if (source_RS := reference_captions(bundle)) is None:
        return None
    batch_size = 64 if bundle.spec.kind == "transformer" else REFERENCES  # it takes 4 to 14 MiB per row
    with jax.default_matmul_precision("float32"):
        starts = range(0, len(source_RS), batch_size)
        target_RE = jnp.concatenate([bundle.translator(jnp.asarray(source_RS[i : i + batch_size])) for i in starts])
        if bundle.spec.input_norm == "centred":
            return np.asarray(uncentred(target_RE, bundle.means.mean("target_text")))
        return np.asarray(unit(shift_to_audio(bundle.means, target_RE)))

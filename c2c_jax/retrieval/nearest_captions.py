"""The nearest-caption baseline: translates a vector by averaging the training captions nearest to it."""

import dataclasses
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from c2c_jax.data.store import SIDES, Store
from c2c_jax.io.scratch import empty_vectors
from c2c_jax.spaces.models.layers import unit
from c2c_jax.translator.centring import ModalityMeans, centred

TEMPERATURE = 0.01  # as in DeCap
QUERY_BLOCK = 4096

CaptionBlocks = Iterable[tuple[Shaped[np.ndarray, "_ S"], Shaped[np.ndarray, "_ E"]]]


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingCaptions:
    """Iterates over the source and target vectors of a store's training captions, chunk by chunk; reusable.

    held_out: rows to leave out. means: for centring; None: raw vectors. Iterating raises StoreError for damaged chunks.
    """

    store: Store
    held_out: Int[np.ndarray, "H"]
    means: ModalityMeans | None = None

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        is_training = np.ones(self.store.plan.rows, bool)
        is_training[self.held_out] = False
        for chunk in range(self.store.plan.chunks):
            rows = is_training[self.store.plan.rows_of(chunk)]
            if rows.any():
                source_NS, target_NE = (self._centred(side, self.store.read_chunk(side, chunk)[rows]) for side in SIDES)
                yield source_NS, target_NE

    def _centred(self, side: str, x_NE: Shaped[np.ndarray, "N E"]) -> Shaped[np.ndarray, "N E"]:
        if self.means is None:
            return x_NE
        return np.asarray(centred(jnp.asarray(x_NE, jnp.float32), self.means.mean(f"{side}_text")))


def nearest_caption(
    query_QS: Float[np.ndarray, "Q S"], captions: CaptionBlocks, temperature: float = TEMPERATURE
) -> Float[np.ndarray, "Q E"]:
    """Translates source vectors [Q, S] to unit target vectors [Q, E] without training.

    The result is the mean of the captions' unit target vectors, weighted by softmax(cosine of query and caption /
    temperature). It is DeCap's projection onto its text memory (Li et al. 2023, section 3.3), which averages source
    vectors instead.

    captions: blocks of source and target vectors, iterated once for every QUERY_BLOCK queries. Raises ValueError
    without queries or captions.
    """
    vectors_QE: np.ndarray | None = None
    for start in range(0, len(query_QS), QUERY_BLOCK):
        block = slice(start, start + QUERY_BLOCK)
        queries_QS = unit(jnp.asarray(query_QS[block], jnp.float32)) / temperature
        sums: tuple[Array, Array, Array] | None = None
        for source_BS, target_BE in captions:
            if sums is None:
                Q = len(queries_QS)
                sums = jnp.full(Q, -jnp.inf), jnp.zeros(Q), jnp.zeros((Q, target_BE.shape[1]))
            sums = _accumulate(
                queries_QS, sums, jnp.asarray(source_BS, jnp.float32), jnp.asarray(target_BE, jnp.float32)
            )
        if sums is None:
            raise ValueError("no captions")
        if vectors_QE is None:
            vectors_QE = empty_vectors(len(query_QS), sums[2].shape[1])
        vectors_QE[block] = unit(sums[2] / sums[1][:, None])
    if vectors_QE is None:
        raise ValueError("no queries")
    return vectors_QE


@jax.jit
def _accumulate(
    queries_QS: Float[Array, "Q S"],
    sums: tuple[Float[Array, "Q"], Float[Array, "Q"], Float[Array, "Q E"]],
    source_BS: Float[Array, "B S"],
    target_BE: Float[Array, "B E"],
) -> tuple[Float[Array, "Q"], Float[Array, "Q"], Float[Array, "Q E"]]:
    """Adds a block to the running softmax. sums: the largest logit, the sum of exp(logit − largest), and the sum of
    targets with these weights."""
    max_Q, total_Q, weighted_QE = sums
    with jax.default_matmul_precision("float32"):
        logits_QB = queries_QS @ unit(source_BS).T
        new_max_Q = jnp.maximum(max_Q, logits_QB.max(axis=1))
        scale_Q, weights_QB = jnp.exp(max_Q - new_max_Q), jnp.exp(logits_QB - new_max_Q[:, None])
        weighted_QE = weighted_QE * scale_Q[:, None] + weights_QB @ unit(target_BE)
    return new_max_Q, total_Q * scale_Q + weights_QB.sum(axis=1), weighted_QE

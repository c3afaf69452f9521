"""The nearest-caption baseline: translates a vector by looking up the training captions nearest to it."""

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

TEMPERATURE = 0.01  # DeCap's
QUERIES_AT_ONCE = 4096

Memory = Iterable[tuple[Shaped[np.ndarray, "_ S"], Shaped[np.ndarray, "_ E"]]]


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingCaptions:
    """The source and target vectors of a store's training captions, chunk by chunk, for any number of iterations.
    means: to centre them by; None: raw vectors. Raises StoreError for a damaged chunk."""

    store: Store
    held_out: Int[np.ndarray, "H"]
    means: ModalityMeans | None = None

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        is_training = np.ones(self.store.plan.rows, bool)
        is_training[self.held_out] = False
        for chunk in range(self.store.plan.chunks):
            kept = is_training[self.store.plan.rows_of(chunk)]
            if kept.any():
                source_NS, target_NE = (self._centred(side, self.store.read_chunk(side, chunk)[kept]) for side in SIDES)
                yield source_NS, target_NE

    def _centred(self, side: str, x_NE: Shaped[np.ndarray, "N E"]) -> Shaped[np.ndarray, "N E"]:
        if self.means is None:
            return x_NE
        return np.asarray(centred(jnp.asarray(x_NE, jnp.float32), self.means.mean(f"{side}_text")))


def nearest_caption(
    query_QS: Float[np.ndarray, "Q S"], memory: Memory, temperature: float = TEMPERATURE
) -> Float[np.ndarray, "Q E"]:
    """Unit target vectors [Q, E] of source vectors [Q, S], without training: the captions' unit target vectors,
    weighted by the softmax of their source vectors' cosines to the query over the temperature. This is DeCap's
    projection onto its text memory (Li et al. 2023, section 3.3), which weights the source vectors themselves.

    memory: blocks of captions' vectors of both sides, iterated once for every QUERIES_AT_ONCE queries; the softmax is
    accumulated block by block.
    """
    vectors_QE: np.ndarray | None = None
    for start in range(0, len(query_QS), QUERIES_AT_ONCE):
        block = slice(start, start + QUERIES_AT_ONCE)
        queries_QS = unit(jnp.asarray(query_QS[block], jnp.float32)) / temperature
        sums: tuple[Array, Array, Array] | None = None
        for source_BS, target_BE in memory:
            if sums is None:
                Q = len(queries_QS)
                sums = jnp.full(Q, -jnp.inf), jnp.zeros(Q), jnp.zeros((Q, target_BE.shape[1]))
            sums = _added(queries_QS, sums, jnp.asarray(source_BS, jnp.float32), jnp.asarray(target_BE, jnp.float32))
        if sums is None:
            raise ValueError("no caption to remember")
        if vectors_QE is None:
            vectors_QE = empty_vectors(len(query_QS), sums[2].shape[1])
        vectors_QE[block] = unit(sums[2] / sums[1][:, None])
    if vectors_QE is None:
        raise ValueError("no query")
    return vectors_QE


@jax.jit
def _added(
    queries_QS: Float[Array, "Q S"],
    sums: tuple[Float[Array, "Q"], Float[Array, "Q"], Float[Array, "Q E"]],
    source_BS: Float[Array, "B S"],
    target_BE: Float[Array, "B E"],
) -> tuple[Float[Array, "Q"], Float[Array, "Q"], Float[Array, "Q E"]]:
    """The largest logit, and the sums of exponentials and of targets so weighted, both over exp(largest)."""
    largest_Q, total_Q, weighted_QE = sums
    with jax.default_matmul_precision("float32"):
        logits_QB = queries_QS @ unit(source_BS).T
        now_Q = jnp.maximum(largest_Q, logits_QB.max(axis=1))
        shrunk_Q, weights_QB = jnp.exp(largest_Q - now_Q), jnp.exp(logits_QB - now_Q[:, None])
        weighted_QE = weighted_QE * shrunk_Q[:, None] + weights_QB @ unit(target_BE)
    return now_Q, total_Q * shrunk_Q + weights_QB.sum(axis=1), weighted_QE

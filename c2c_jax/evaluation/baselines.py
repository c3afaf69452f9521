"""What a translator has to beat: captions remembered, linear maps in closed form, and an oracle that saw pairs."""

import dataclasses
import functools
import math
import mmap
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from c2c_jax.data.store import Store
from c2c_jax.evaluation.gaps import unit_rows
from c2c_jax.models.layers import unit

TEMPERATURE = 0.01  # DeCap's
FOLDS, PAIRS_AT_LEAST = 5, 8
WEIGHTS = tuple(10.0**power for power in range(-4, 3))  # of the oracle's squared coefficients, see `ridge_by_svd`
QUERIES_AT_ONCE = 4096
IN_MEMORY = 2**29  # bytes of vectors that are not put into a file

Memory = Iterable[tuple[Shaped[np.ndarray, "_ S"], Shaped[np.ndarray, "_ E"]]]


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingCaptions:
    """The source and target vectors of a store's training captions, chunk by chunk, as often as they are asked for.
    Raises StoreError for a damaged chunk."""

    store: Store
    held_out: Int[np.ndarray, "H"]

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        is_training = np.ones(self.store.plan.rows, bool)
        is_training[self.held_out] = False
        for chunk in range(self.store.plan.chunks):
            kept = is_training[self.store.plan.rows_of(chunk)]
            if kept.any():
                yield self.store.read_chunk("source", chunk)[kept], self.store.read_chunk("target", chunk)[kept]


def nearest_caption(
    query_QS: Float[np.ndarray, "Q S"], memory: Memory, temperature: float = TEMPERATURE
) -> Float[np.ndarray, "Q E"]:
    """Unit target vectors [Q, E] of source vectors [Q, S], without training: the remembered captions' unit target
    vectors, weighted by the softmax of their source vectors' cosines to the query over the temperature. DeCap's
    projection onto its text memory (Li et al. 2023, section 3.3), where the weights go to the source vectors
    themselves.

    memory: blocks of captions' vectors of both sides, of any number: the softmax is taken block by block, and what is
    kept beside a block is a sum for each query. It is gone through once for every 4,096 queries.
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
            vectors_QE = room_for(len(query_QS), sums[2].shape[1])
        vectors_QE[block] = unit(sums[2] / sums[1][:, None])
    if vectors_QE is None:
        raise ValueError("no query")
    return vectors_QE


def room_for(rows: int, dim: int) -> Float[np.ndarray, "N E"]:
    """An array for vectors, float32, to be filled; a large one lies in a file that goes with it, see `InFile`."""
    if 4 * rows * dim < IN_MEMORY:
        return np.empty((rows, dim), np.float32)
    with tempfile.TemporaryFile() as file:
        return InFile(file, np.float32, "w+", shape=(rows, dim))


class InFile(np.memmap):
    """An array in a file that is to be read and written block by block: of what was asked for before, or written, no
    pages stay in the process. The file has them, and they come back where they are asked for again. On Windows, which
    has no such advice, they stay until memory is short."""

    _mmap: mmap.mmap | None  # numpy's; None of what is computed from the array

    def __getitem__(self, key: Any) -> Any:
        self._let_go()
        return super().__getitem__(key)

    def __setitem__(self, key: Any, values: Any) -> None:
        super().__setitem__(key, values)
        self._let_go()

    def _let_go(self) -> None:
        if self._mmap is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._mmap.madvise(mmap.MADV_DONTNEED)  # of pages that are shared with a file nothing is lost by it


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


def oracle(
    image_NS: Float[np.ndarray, "N S"],
    audio_NE: Float[np.ndarray, "N E"],
    groups_N: Int[np.ndarray, "N"] | None = None,
    seed: int = 0,
    folds: int = FOLDS,
) -> Float[np.ndarray, "N E"]:
    """Unit target vectors [N, E] of pictures by a ridge from unit image to unit audio vectors that saw other pairs:
    every fold's by the pairs of the other folds, so that no pair scores itself. The weight is the one of WEIGHTS with
    the least leave-one-out error among those others.

    groups_N: pairs of one number share a picture or sound, and so a fold; None: none do. Folds are drawn by the seed.
    Takes PAIRS_AT_LEAST different groups.
    """
    x_NS, y_NE = unit_rows(image_NS), unit_rows(audio_NE)
    _, group_N = np.unique(np.arange(len(x_NS)) if groups_N is None else groups_N, return_inverse=True)
    count = int(group_N.max()) + 1
    fold_N = (np.random.default_rng((seed, count)).permutation(count) % min(folds, count))[group_N]
    mapped_NE = np.empty_like(y_NE)
    for fold in range(min(folds, count)):
        mine_N = fold_N == fold
        fitted = ridge_by_svd(x_NS[~mine_N], y_NE[~mine_N])
        mapped_NE[mine_N] = fitted(x_NS[mine_N])
    return unit_rows(mapped_NE).astype(np.float32)


def ridge_by_svd(x_NS: Float[np.ndarray, "N S"], y_NE: Float[np.ndarray, "N E"]) -> "functools.partial[np.ndarray]":
    """x → y of a ridge with a free bias (Hoerl & Kennard 1970), its penalty one of WEIGHTS times the inputs' mean
    square summed over rows, chosen by the exact leave-one-out error: residuals over 1 − hᵢᵢ (Allen's PRESS, in
    Golub, Heath & Wahba 1979).
    """
    x_S, y_E = x_NS.mean(0), y_NE.mean(0)
    left_NR, singular_R, right_RS = np.linalg.svd(x_NS - x_S, full_matrices=False)
    scores_RE = left_NR.T @ (y_NE - y_E)
    mean_square = np.sum(singular_R**2) / x_NS.shape[1]
    best = math.inf, singular_R
    for weight in WEIGHTS:
        kept_R = singular_R**2 / (singular_R**2 + weight * mean_square)
        residual_NE = (y_NE - y_E) - (left_NR * kept_R) @ scores_RE
        free_N = 1 - 1 / len(x_NS) - (left_NR**2) @ kept_R
        error = float(np.mean((residual_NE / np.maximum(free_N, 1e-9)[:, None]) ** 2))
        best = min(best, (error, kept_R / np.maximum(singular_R, 1e-12)), key=lambda found: found[0])
    kernel_SE = right_RS.T @ (best[1][:, None] * scores_RE)
    return functools.partial(_mapped, x_S, kernel_SE, y_E)


def _mapped(x_S: np.ndarray, kernel_SE: np.ndarray, y_E: np.ndarray, x_NS: np.ndarray) -> np.ndarray:
    return (x_NS - x_S) @ kernel_SE + y_E

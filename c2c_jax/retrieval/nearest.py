"""Exact retrieval by cosine: the rank of each query's paired candidate, the k best candidates, and class retrieval.

Vectors may have any length and dtype and may be memory-mapped. Scores are computed in tiles; the queries of a tile are
split over the local devices, which hold at most BLOCK candidates at once. All tiles of a call have the same shape, so
that equal vectors have bit-identical scores.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, Shaped

from c2c_jax.spaces.models.layers import unit

TILE = 1024  # queries, and candidates, per tile of scores
BLOCK = 65_536  # candidates on each device at once
MAX_SORTED = 2**24  # scores sorted at once

Penalty = Float[np.ndarray, "N"]  # finite numbers, subtracted from the cosines of each candidate
Blocks = Iterable[tuple[Shaped[np.ndarray, "B E"], Float[np.ndarray, "B"] | None]]  # candidates and their penalties


def paired_ranks(
    query_NE: Shaped[np.ndarray, "N E"],
    candidates_NE: Shaped[np.ndarray, "N E"],
    *,
    csls: int | None = None,
    penalty_N: Penalty | None = None,
    tile: int = TILE,
) -> Int[np.ndarray, "N"]:
    """Ranks candidate i for query i among all N candidates, by cosine; ranks [N] start at 1.

    Ties count against the paired candidate. A NaN query gets rank N.

    csls: number of neighbours for cross-domain similarity local scaling, at most N; None: rank by cosine. CSLS ranks by
    2 cos(q, c) − r(q) − r(c), where r is the mean cosine to the nearest vectors of the other side (Conneau et al. 2018,
    "Word translation without parallel data", eq. 2 and 3, with 10 neighbours).
    penalty_N: finite numbers, subtracted from the cosines of each candidate. tile: scores are computed in squares of
    this side.
    """
    N = len(query_NE)
    penalty_N = _or_zeros(penalty_N, N)
    if csls:  # r(q) does not affect the order; the score is halved, so r(c) is too
        penalty_N = penalty_N + top_k(candidates_NE, query_NE, min(csls, N))[0].mean(axis=1) / 2
    tile = _round_up(min(tile, N))
    paired_N, index_N, count_N = np.empty(N, np.float32), np.arange(N, dtype=np.int32), np.zeros(N, np.int32)
    for rows in _slices(N, tile):
        state = paired_N[rows], index_N[: rows.stop - rows.start]
        _scan(_paired_score, state, query_NE[rows], [(candidates_NE[rows], penalty_N[rows])], tile, tile)
    _scan(_count, (paired_N, index_N, count_N), query_NE, _blocks(candidates_NE, penalty_N), tile, tile)
    return np.minimum(count_N, N)


def top_k(
    query_QE: Shaped[np.ndarray, "Q E"],
    candidates_NE: Shaped[np.ndarray, "N E"],
    k: int,
    penalty_N: Penalty | None = None,
) -> tuple[Float[np.ndarray, "Q k"], Int[np.ndarray, "Q k"]]:
    """Returns scores and indices [Q, k] of the k ≤ N best candidates of each query, best first.

    Of equal candidates the earlier comes first. penalty_N: finite numbers, subtracted from the cosines of each
    candidate.
    """
    return top_k_of_blocks(query_QE, _blocks(candidates_NE, penalty_N), k)


def top_k_of_blocks(
    query_QE: Shaped[np.ndarray, "Q E"], blocks: Blocks, k: int
) -> tuple[Float[np.ndarray, "Q k"], Int[np.ndarray, "Q k"]]:
    """Like `top_k`, for candidates that come in blocks; indices refer to the concatenated blocks."""
    Q = len(query_QE)
    state = np.full((Q, k), -np.inf, np.float32), np.zeros((Q, k), np.int32)
    _scan(_keep_best, state, query_QE, blocks, _round_up(min(TILE, Q)), TILE)
    return state


def label_ranks(
    query_QE: Shaped[np.ndarray, "Q E"],
    candidates_NE: Shaped[np.ndarray, "N E"],
    query_labels_Q: Int[np.ndarray, "Q"],
    candidate_labels_N: Int[np.ndarray, "N"],
    *,
    penalty_N: Penalty | None = None,
    exclude_self: bool = False,
) -> tuple[Int[np.ndarray, "Q"], Float[np.ndarray, "Q"]]:
    """Returns the best rank of a positive, from 1, and the average precision of each query.

    Positives are the candidates with the query's label. Average precision is the mean, over the positives, of the
    precision at the rank of each (Manning et al. 2008, "Introduction to information retrieval", section 8.4); its mean
    over queries is mAP. Ties count against positives. A query without positives has rank N + 1 and average precision
    NaN.

    penalty_N: finite numbers, subtracted from the cosines of each candidate. exclude_self: candidate i is query i and
    is not ranked for it.
    """
    Q, N = len(query_QE), len(candidates_NE)
    rank_Q, precision_Q = np.full(Q, N + 1), np.full(Q, np.nan)
    batch_size = max(MAX_SORTED // N, 1)
    for start in range(0, Q, batch_size):
        rows_B = np.arange(start, min(start + batch_size, Q))
        query_BE = _unit(jnp.asarray(query_QE[rows_B]))
        scores = (
            _scores(query_BE, _unit(jnp.asarray(block_CE)), jnp.asarray(penalty_C))
            for block_CE, penalty_C in _blocks(candidates_NE, penalty_N)
        )
        score_BN = np.concatenate(list(scores), axis=1)
        score_BN[np.isnan(score_BN)] = -np.inf
        is_positive_BN = query_labels_Q[rows_B, None] == candidate_labels_N
        if exclude_self:
            score_BN[rows_B - start, rows_B] = -np.inf
            is_positive_BN[rows_B - start, rows_B] = False
        # Sorts integers: a float's bits, as an integer, have its order; those of negative numbers the reverse order.
        bits_BN = (score_BN + 0).view(np.int32)
        bits_BN ^= (bits_BN >> 31) & 0x7FFFFFFF
        key_BN = is_positive_BN - 2 * bits_BN.astype(np.int64)
        key_BN.sort(axis=1)
        row_P, place_P = np.nonzero(key_BN & 1)
        row, first, count = np.unique(row_P, return_index=True, return_counts=True)
        positives_P = np.arange(len(row_P)) - np.repeat(first, count) + 1
        rank_Q[start + row] = place_P[first] + 1
        precision_Q[start + row] = np.bincount(row_P, positives_P / (place_P + 1))[row] / count
    return rank_Q, precision_Q


def _scan(
    step: Callable[..., Any],
    state: tuple[Shaped[np.ndarray, "Q ..."], ...],
    query_QE: Shaped[np.ndarray, "Q E"],
    blocks: Blocks,
    B: int,
    C: int,
) -> None:
    """Updates the state of each query in place: `step(state, score_BC, index_C)` returns the new state for
    each tile of scores [B, C]. Padding candidates have score −∞ and index −1."""
    first = 0
    for block_NE, penalty_N in blocks:
        index_N = np.arange(first, first + len(block_NE), dtype=np.int32)
        block_SCE, penalty_SC, index_SC = (
            _put(_padded(x_N, C, fill).reshape(-1, C, *x_N.shape[1:]))
            for x_N, fill in ((block_NE, 0), (_or_zeros(penalty_N, len(block_NE)), np.inf), (index_N, -1))
        )
        candidates = _unit(block_SCE), penalty_SC, index_SC
        for rows in _slices(len(query_QE), B):
            query_BE, *state_B = (_put(_padded(x_Q[rows], B), "data") for x_Q in (query_QE, *state))
            new_state = _scan_block(step, query_BE, tuple(state_B), candidates)
            for part_Q, new_B in zip(state, new_state, strict=True):
                part_Q[rows] = np.asarray(new_B)[: len(part_Q[rows])]
        first += len(block_NE)


@functools.partial(jax.jit, static_argnums=0)
def _scan_block(
    step: Callable[..., Any],
    query_BE: Shaped[Array, "B E"],
    state_B: tuple[Shaped[Array, "B ..."], ...],
    candidates: tuple[Float[Array, "S C E"], Float[Array, "S C"], Int[Array, "S C"]],
) -> tuple[Shaped[Array, "B ..."], ...]:
    def scan_shard(query_BE: Array, state_B: Any, candidates: Any) -> Any:
        def scan_tile(state_B: Any, tile: tuple[Array, ...]) -> tuple[Any, None]:
            candidates_CE, penalty_C, index_C = tile
            return step(state_B, _scores(query_BE, candidates_CE, penalty_C), index_C), None

        return jax.lax.scan(scan_tile, state_B, candidates)[0]

    split = jax.shard_map(
        scan_shard, mesh=_mesh(), in_specs=(P("data"), P("data"), P()), out_specs=P("data"), check_vma=False
    )
    return split(_unit(query_BE), state_B, candidates)


def _paired_score(
    state: tuple[Array, ...], score_BC: Float[Array, "B C"], index_C: Int[Array, "C"]
) -> tuple[Array, ...]:
    """Step for `_scan`: stores the score of each query's paired candidate. State: score and index of that candidate."""
    _, paired_index_B = state
    is_paired_BC = index_C[None] == paired_index_B[:, None]
    return jnp.max(jnp.where(is_paired_BC, score_BC, -jnp.inf), axis=1), paired_index_B


def _count(state: tuple[Array, ...], score_BC: Float[Array, "B C"], index_C: Int[Array, "C"]) -> tuple[Array, ...]:
    """Step for `_scan`: counts candidates that do not score below the paired one; NaN scores count. State: score and
    index of the paired candidate, and the count."""
    paired_B, paired_index_B, count_B = state
    is_counted_BC = ~(score_BC < paired_B[:, None]) | (index_C[None] == paired_index_B[:, None])
    return paired_B, paired_index_B, count_B + jnp.sum(is_counted_BC, axis=1, dtype=jnp.int32)


def _keep_best(state: tuple[Array, ...], score_BC: Float[Array, "B C"], index_C: Int[Array, "C"]) -> tuple[Array, ...]:
    """Step for `_scan`: keeps the k best candidates, the earlier of equal ones first. State: scores and indices."""
    best_Bk, index_Bk = state
    new_Bk, place_Bk = jax.lax.top_k(score_BC, min(best_Bk.shape[1], len(index_C)))
    score_Bj = jnp.concatenate([best_Bk, new_Bk], axis=1)
    index_Bj = jnp.concatenate([index_Bk, index_C[place_Bk]], axis=1)
    best_Bk, place_Bk = jax.lax.top_k(score_Bj, best_Bk.shape[1])
    return best_Bk, jnp.take_along_axis(index_Bj, place_Bk, axis=1)


@jax.jit
def _scores(
    query_BE: Float[Array, "B E"], candidates_CE: Float[Array, "C E"], penalty_C: Float[Array, "C"]
) -> Float[Array, "B C"]:
    """Returns the cosines of unit vectors minus the penalties, in float32."""
    with jax.default_matmul_precision("float32"):
        return query_BE @ candidates_CE.T - penalty_C[None]


@jax.jit
def _unit(vectors: Shaped[Array, "*B E"]) -> Float[Array, "*B E"]:
    return unit(vectors.astype(jnp.float32))


@functools.cache
def _mesh() -> Mesh:
    return Mesh(np.asarray(jax.local_devices()), ("data",))


def _put(values: np.ndarray, *axes: str) -> Array:
    """Copies an array to each device, or, with axis "data", splits its rows over the devices."""
    return jax.device_put(values, NamedSharding(_mesh(), P(*axes)))


def _round_up(count: int) -> int:
    """Rounds up to a multiple of the number of devices."""
    return -(-count // _mesh().size) * _mesh().size


def _padded(values_N: Shaped[np.ndarray, "N ..."], multiple: int, fill: int | float = 0) -> np.ndarray:
    padding = [(0, -len(values_N) % multiple)] + [(0, 0)] * (values_N.ndim - 1)
    return np.pad(values_N, padding, constant_values=fill)


def _slices(count: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def _or_zeros(penalty_N: Penalty | None, count: int) -> Penalty:
    return np.zeros(count, np.float32) if penalty_N is None else np.asarray(penalty_N, np.float32)


def _blocks(candidates_NE: Shaped[np.ndarray, "N E"], penalty_N: Penalty | None) -> Blocks:
    penalty_N = _or_zeros(penalty_N, len(candidates_NE))
    return ((candidates_NE[rows], penalty_N[rows]) for rows in _slices(len(candidates_NE), BLOCK))

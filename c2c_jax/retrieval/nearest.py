"""Exact retrieval by cosine: the rank of each query's own candidate, the k best candidates, and retrieval of classes.

Vectors may have any length and dtype and may lie in a memory map. Queries are split among the local devices. A device
holds at most BLOCK vectors of each side and one tile of scores at a time. All tiles of a call have one shape, so that
equal vectors get scores equal to the last bit.
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

TILE = 1024  # queries and candidates whose scores a device computes at once
BLOCK = 65_536  # vectors of one side on the devices at once
SORTED = 2**24  # scores sorted at once

Penalty = Float[np.ndarray, "N"]  # finite numbers, subtracted from the cosines of each candidate
Blocks = Iterable[tuple[Shaped[np.ndarray, "B E"], Float[np.ndarray, "B"]]]  # candidates and their penalties


def paired_ranks(
    query_NE: Shaped[np.ndarray, "N E"],
    candidates_NE: Shaped[np.ndarray, "N E"],
    *,
    csls: int | None = None,
    penalty_N: Penalty | None = None,
    tile: int = TILE,
) -> Int[np.ndarray, "N"]:
    """Rank [N], from 1, of candidate i for query i among all N candidates by cosine. Candidates that score as high as
    the query's own count as ranked before it; a query that is NaN gets rank N.

    csls: number of neighbours for cross-domain similarity local scaling, which ranks by 2 cos(q, c) − r(q) − r(c),
    where r is the mean cosine to the nearest vectors of the other side (Conneau et al. 2018, "Word translation without
    parallel data", eq. 2 and 3; they use 10); at most N are used. None: rank by the cosine alone.
    penalty_N: finite numbers, subtracted from the cosines of each candidate. tile: scores are computed in squares of
    this side.
    """
    N = len(query_NE)
    penalty_N = np.zeros(N, np.float32) if penalty_N is None else np.asarray(penalty_N, np.float32)
    if csls:  # r(q) is the same for all candidates of a query; r(c) is halved as the cosine is
        penalty_N = penalty_N + top_k(candidates_NE, query_NE, min(csls, N))[0].mean(axis=1) / 2
    tile = min(tile, -(-N // _device_count()))
    own_N = np.empty(N, np.float32)
    for rows in _slices(N):
        query_TBE, own_TBE = (_unit_tiles(x_NE[rows], tile, is_split=True) for x_NE in (query_NE, candidates_NE))
        own_TB = _own_scores(query_TBE, own_TBE, _tiles(penalty_N[rows], tile, is_split=True))
        own_N[rows] = _flat(own_TB, rows)
    state = own_N, np.arange(N, dtype=np.int32), np.zeros(N, np.int32)
    _scan(_count, state, query_NE, _blocks(candidates_NE, penalty_N), tile)
    return np.minimum(state[2], N)


def top_k(
    query_QE: Shaped[np.ndarray, "Q E"],
    candidates_NE: Shaped[np.ndarray, "N E"],
    k: int,
    penalty_N: Penalty | None = None,
) -> tuple[Float[np.ndarray, "Q k"], Int[np.ndarray, "Q k"]]:
    """Scores and indices [Q, k] of the k best candidates of each query, best first; the earlier of equal candidates
    comes first. k is at most N. A score is a cosine minus the candidate's penalty, a finite number."""
    return top_k_of_blocks(query_QE, _blocks(candidates_NE, penalty_N), k)


def top_k_of_blocks(
    query_QE: Shaped[np.ndarray, "Q E"], blocks: Blocks, k: int
) -> tuple[Float[np.ndarray, "Q k"], Int[np.ndarray, "Q k"]]:
    """`top_k` among candidates that come in blocks, each with its penalties; indices count through all blocks."""
    Q = len(query_QE)
    state = np.full((Q, k), -np.inf, np.float32), np.zeros((Q, k), np.int32)
    _scan(_keep_best, state, query_QE, blocks, TILE)
    return state


def label_ranks(
    query_QE: Shaped[np.ndarray, "Q E"],
    candidates_NE: Shaped[np.ndarray, "N E"],
    query_labels_Q: Int[np.ndarray, "Q"],
    candidate_labels_N: Int[np.ndarray, "N"],
    *,
    penalty_N: Penalty | None = None,
    without_itself: bool = False,
) -> tuple[Int[np.ndarray, "Q"], Float[np.ndarray, "Q"]]:
    """Retrieval of a class: for each query the best rank, from 1, of any candidate with its label (a positive), and the
    average precision: the mean, over the positives, of the fraction of positives among all candidates ranked up to each
    (Manning et al. 2008, "Introduction to information retrieval", section 8.4). Its mean over queries is mAP.

    Of equal candidates the positives come last. A query without positives has rank N + 1 and average precision NaN.
    penalty_N: subtracted from the cosines of each candidate. without_itself: candidate i is query i itself and is not
    ranked for it.
    """
    Q, N = len(query_QE), len(candidates_NE)
    rank_Q, precision_Q = np.full(Q, N + 1), np.full(Q, np.nan)
    at_once = max(SORTED // N, 1)
    for start in range(0, Q, at_once):
        rows_B = np.arange(start, min(start + at_once, Q))
        query_BE, blocks = _unit(query_QE[rows_B]), _blocks(candidates_NE, penalty_N)
        score_BN = np.concatenate([_scores(query_BE, _unit(x_CE), penalty_C) for x_CE, penalty_C in blocks], axis=1)
        score_BN[np.isnan(score_BN)] = -np.inf
        is_positive_BN = query_labels_Q[rows_B, None] == candidate_labels_N
        if without_itself:
            score_BN[rows_B - start, rows_B] = -np.inf
            is_positive_BN[rows_B - start, rows_B] = False
        # One integer to sort by: a float's bits are ordered as it is, those of negative ones the other way about.
        bits_BN = (score_BN + 0).view(np.int32)
        bits_BN ^= (bits_BN >> 31) & 0x7FFFFFFF
        key_BN = is_positive_BN - 2 * bits_BN.astype(np.int64)
        key_BN.sort(axis=1)
        row_P, place_P = np.nonzero(key_BN & 1)
        found, first, count = np.unique(row_P, return_index=True, return_counts=True)
        among_P = np.arange(len(row_P)) - np.repeat(first, count) + 1
        rank_Q[start + found] = place_P[first] + 1
        precision_Q[start + found] = np.bincount(row_P, among_P / (place_P + 1))[found] / count
    return rank_Q, precision_Q


@functools.cache
def _mesh() -> Mesh:
    return Mesh(np.asarray(jax.local_devices()), ("data",))


def _device_count() -> int:
    return len(_mesh().devices)


def _slices(count: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))


def _blocks(candidates_NE: Shaped[np.ndarray, "N E"], penalty_N: Penalty | None) -> Blocks:
    penalty_N = np.zeros(len(candidates_NE), np.float32) if penalty_N is None else np.asarray(penalty_N, np.float32)
    return ((candidates_NE[rows], penalty_N[rows]) for rows in _slices(len(candidates_NE)))


def _tiles(values_N: Shaped[np.ndarray, "N ..."], tile: int, *, is_split: bool, fill: int | float = 0) -> Array:
    """Rows in tiles [T, B, ...], padded with `fill`, split among the devices or copied to each."""
    multiple = tile * (_device_count() if is_split else 1)
    padding = [(0, -len(values_N) % multiple)] + [(0, 0)] * (values_N.ndim - 1)
    tiles_TB = np.pad(values_N, padding, constant_values=fill).reshape(-1, tile, *values_N.shape[1:])
    return jax.device_put(tiles_TB, NamedSharding(_mesh(), P("data") if is_split else P()))


def _unit_tiles(vectors_NE: Shaped[np.ndarray, "N E"], tile: int, *, is_split: bool) -> Float[Array, "T B E"]:
    return _unit(_tiles(vectors_NE, tile, is_split=is_split))


def _flat(values_TB: Shaped[Array, "T B ..."], rows: slice) -> Shaped[np.ndarray, "N ..."]:
    """The values of rows without the padding."""
    return np.asarray(values_TB).reshape(-1, *values_TB.shape[2:])[: rows.stop - rows.start]


def _over_devices(function: Callable[..., Any], *specs: P) -> Callable[..., Any]:
    """Runs a function on each device, on its part of the arguments with P("data") and on all of those with P()."""
    return jax.shard_map(function, mesh=_mesh(), in_specs=specs, out_specs=P("data"), check_vma=False)


@jax.jit
def _unit(vectors: Shaped[Array | np.ndarray, "*B E"]) -> Float[Array, "*B E"]:
    return unit(vectors.astype(jnp.float32))


@jax.jit
def _scores(
    query_BE: Float[Array, "B E"], candidates_CE: Float[Array, "C E"], penalty_C: Float[Array | np.ndarray, "C"]
) -> Float[Array, "B C"]:
    """Cosines of unit vectors less penalties, in float32."""
    with jax.default_matmul_precision("float32"):
        return query_BE @ candidates_CE.T - penalty_C[None]


@jax.jit
def _own_scores(
    query_TBE: Float[Array, "T B E"], own_TBE: Float[Array, "T B E"], penalty_TB: Float[Array, "T B"]
) -> Float[Array, "T B"]:
    """The score of each query's own candidate, from tiles of the shape that all other scores come from."""

    def of_device(*tiles: Array) -> Array:
        return jax.lax.map(lambda tile: jnp.diagonal(_scores(*tile)), tiles)

    return _over_devices(of_device, P("data"), P("data"), P("data"))(query_TBE, own_TBE, penalty_TB)


def _scan(
    step: Callable[..., Any],
    state: tuple[Shaped[np.ndarray, "Q ..."], ...],
    query_QE: Shaped[np.ndarray, "Q E"],
    blocks: Blocks,
    tile: int,
) -> None:
    """Updates the state of each query in place, tile by tile of scores: `step(state, score_BC, index_C)` returns the
    new state. Padded candidates score −∞ and have index −1."""
    lines, columns, first = min(tile, -(-len(query_QE) // _device_count())), 0, 0
    for block_NE, penalty_N in blocks:
        columns = columns or min(tile, len(block_NE))
        index_N = np.arange(first, first + len(block_NE), dtype=np.int32)
        candidates = (
            _unit_tiles(block_NE, columns, is_split=False),
            _tiles(penalty_N, columns, is_split=False, fill=np.inf),
            _tiles(index_N, columns, is_split=False, fill=-1),
        )
        for rows in _slices(len(query_QE)):
            query_TBE = _unit_tiles(query_QE[rows], lines, is_split=True)
            state_TB = tuple(_tiles(part[rows], lines, is_split=True) for part in state)
            for part, new_TB in zip(state, _scan_block(step, query_TBE, state_TB, candidates), strict=True):
                part[rows] = _flat(new_TB, rows)
        first += len(block_NE)


@functools.partial(jax.jit, static_argnums=0)
def _scan_block(
    step: Callable[..., Any],
    query_TBE: Float[Array, "T B E"],
    state_TB: tuple[Shaped[Array, "T B ..."], ...],
    candidates: tuple[Float[Array, "S C E"], Float[Array, "S C"], Int[Array, "S C"]],
) -> tuple[Shaped[Array, "T B ..."], ...]:
    def of_device(query_TBE: Array, state_TB: Any, candidates: Any) -> Any:
        def of_queries(queries: tuple[Array, Any]) -> Any:
            query_BE, state_B = queries

            def of_candidates(state_B: Any, tile: tuple[Array, ...]) -> tuple[Any, None]:
                candidates_CE, penalty_C, index_C = tile
                return step(state_B, _scores(query_BE, candidates_CE, penalty_C), index_C), None

            return jax.lax.scan(of_candidates, state_B, candidates)[0]

        return jax.lax.map(of_queries, (query_TBE, state_TB))

    return _over_devices(of_device, P("data"), P("data"), P())(query_TBE, state_TB, candidates)


def _count(state: tuple[Array, ...], score_BC: Float[Array, "B C"], index_C: Int[Array, "C"]) -> tuple[Array, ...]:
    """Counts the candidates that do not score below a query's own one, itself included. Scores that are NaN count."""
    own_B, own_index_B, count_B = state
    is_counted_BC = ~(score_BC < own_B[:, None]) | (index_C[None] == own_index_B[:, None])
    return own_B, own_index_B, count_B + jnp.sum(is_counted_BC, axis=1, dtype=jnp.int32)


def _keep_best(state: tuple[Array, ...], score_BC: Float[Array, "B C"], index_C: Int[Array, "C"]) -> tuple[Array, ...]:
    """Keeps the k best candidates; the earlier of equal ones comes first."""
    best_Bk, index_Bk = state
    new_Bk, place_Bk = jax.lax.top_k(score_BC, min(best_Bk.shape[1], len(index_C)))
    score_Bj = jnp.concatenate([best_Bk, new_Bk], axis=1)
    index_Bj = jnp.concatenate([index_Bk, index_C[place_Bk]], axis=1)
    best_Bk, place_Bk = jax.lax.top_k(score_Bj, best_Bk.shape[1])
    return best_Bk, jnp.take_along_axis(index_Bj, place_Bk, axis=1)

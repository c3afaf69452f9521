"""Retrieval by cosine, exact, in blocks: ranks of the own candidate, the best candidates, and classes.

Vectors need not be of unit length. They may be of any dtype and may lie in a memory map: on the devices at once are a
slab of queries, spread over all local devices, a slab of candidates, and a tile of cosines on each.
"""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from c2c_jax.retrieval.slabs import device_count, over_queries, put, slabs
from c2c_jax.spaces.models.layers import unit

RANK_TILE = 1024  # a side of the square of cosines in which ranks are counted
TILE = (128, 65_536)  # queries and candidates of the oblong in which the best are looked for
GROUP = 16  # neighbours in it, looked at one by one only where their best is among the best of the groups
SCREENED_FROM = 2**26  # cosines, of which the best are looked for in bfloat16 first
SCREENED_AT_ONCE = 32  # queries whose best are looked at again, which then lie in a cache
SLAB = 65_536  # vectors of a side that are on the devices at once
SORTED = 2**24  # cosines that are sorted at once
SUMMING = 2**-13  # bound on the error of a sum of 2,048 products of float32 over vectors of unit length
ROUNDING = 2**-22  # bound on the rounding of two float32 subtractions, relative to their largest operand


def paired_ranks(
    query_NE: Shaped[np.ndarray, "N E"],
    candidates_NE: Shaped[np.ndarray, "N E"],
    *,
    csls: int | None = None,
    penalty_N: Float[np.ndarray, "N"] | None = None,
    tile: int = RANK_TILE,
) -> Int[np.ndarray, "N"]:
    """Rank [N], from 1, of candidate i for query i among all N candidates by cosine. A candidate that scores as high as
    the own one counts as before it, and a query that is not a number ranks its own last.

    csls: neighbours of cross-domain similarity local scaling, which ranks by 2 cos(q, c) − r(q) − r(c), where r is the
    mean cosine to the nearest of the other side (Conneau et al. 2018, "Word translation without parallel data", eq. 2
    and 3; theirs are 10), to all of them where there are fewer; None: by the cosine alone.
    penalty_N: finite numbers that are subtracted from the cosine of each candidate; None: 0.
    """
    N = len(query_NE)
    penalty_N = _or_zeros(penalty_N, N)
    if csls:  # r(q) is one number for all candidates of a query: r(c) orders them, halved as the cosine is
        penalty_N = penalty_N + top_k(candidates_NE, query_NE, min(csls, N))[0].mean(axis=1) / 2
    rank_N = np.empty(N, np.int32)
    tile = min(tile, -(-N // device_count()))
    step = _whole_tiles(tile * device_count())
    for query in slabs(query_NE, tile, step, is_spread=True):
        (own,) = slabs(candidates_NE[query.rows], tile, step, is_spread=True)
        numbers_T = np.arange(len(query.tiles_TBE), dtype=np.int32)
        own_TB, count_TB = _own(query.tiles_TBE, own.tiles_TBE, own.tiled(penalty_N[query.rows]), own.sizes_T)
        for slab in slabs(candidates_NE, tile, step) if N > tile else ():
            has_own = slab.rows == query.rows
            of_slab = slab.tiles_TBE, slab.tiled(penalty_N[slab.rows]), slab.sizes_T
            count_TB += jax.block_until_ready(_others(has_own, query.tiles_TBE, own_TB, numbers_T, *of_slab))
        rank_N[query.rows] = query.flat(count_TB)
    return np.minimum(rank_N, N)


def top_k(
    query_QE: Shaped[np.ndarray, "Q E"],
    candidates_NE: Shaped[np.ndarray, "N E"],
    k: int,
    penalty_N: Float[np.ndarray, "N"] | None = None,
) -> tuple[Float[np.ndarray, "Q k"], Int[np.ndarray, "Q k"]]:
    """Scores and indices [Q, k] of the k best candidates for each query, best first; ties go to the earlier candidate.
    k is at most N. A score is a cosine minus the candidate's penalty, a finite number; None: 0.

    If bfloat16 products are faster, a few more than k are found in bfloat16, and scored again in float32. Queries for
    which the rounding might hide a better candidate are searched again in float32, so that all results are those of
    float32.
    """
    N = len(candidates_NE)
    penalty_N = _or_zeros(penalty_N, N)
    if len(query_QE) * N < SCREENED_FROM or not _has_bfloat16():
        return _nearest(query_QE, candidates_NE, k, jnp.float32, penalty_N)
    count = min(2 * k + 10, N)
    rough_Qj, index_Qj = _nearest(query_QE, candidates_NE, count, jnp.bfloat16, penalty_N)
    score_Qk, index_Qk = _again(query_QE, candidates_NE, penalty_N, np.sort(index_Qj, axis=1), k)
    # |q·c − q̃·c̃| ≤ |q − q̃| |c| + |q̃| |c − c̃|, where q̃ is 1 long, nearly; the penalty is the same in both
    bound_Q = _rounding(query_QE) + 1.01 * _rounding(candidates_NE).max() + SUMMING
    bound_Q += ROUNDING * np.abs(penalty_N).max()
    doubtful = np.flatnonzero(~(rough_Qj[:, -1] + bound_Q < score_Qk[:, -1]))
    if len(doubtful) and count < N:
        score_Qk[doubtful], index_Qk[doubtful] = _nearest(query_QE[doubtful], candidates_NE, k, jnp.float32, penalty_N)
    return score_Qk, index_Qk


def label_ranks(
    query_QE: Shaped[np.ndarray, "Q E"],
    candidates_NE: Shaped[np.ndarray, "N E"],
    query_labels_Q: Int[np.ndarray, "Q"],
    candidate_labels_N: Int[np.ndarray, "N"],
    *,
    penalty_N: Float[np.ndarray, "N"] | None = None,
    without_itself: bool = False,
) -> tuple[Int[np.ndarray, "Q"], Float[np.ndarray, "Q"]]:
    """Retrieval of a class: of each query the best rank, from 1, of any candidate with its label (a positive), and the
    average precision: the mean, over the positives, of the share of positives among all that are ranked up to each
    (Manning et al. 2008, "Introduction to information retrieval", section 8.4). Its mean over queries is mAP.

    Of equal candidates the positives come last. A query without positives has rank N + 1 and average precision NaN.
    penalty_N: subtracted from the cosine of each candidate; None: 0. without_itself: candidate i is query i itself and
    is not ranked for it.
    """
    Q, N = len(query_QE), len(candidates_NE)
    penalty_N = _or_zeros(penalty_N, N)
    rank_Q, precision_Q = np.full(Q, N + 1), np.full(Q, np.nan)
    at_once = max(SORTED // N, 1)
    for start in range(0, Q, at_once):
        rows_B = np.arange(start, min(start + at_once, Q))
        score_BN = _cosines(query_QE[rows_B], candidates_NE) - penalty_N[None]
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


def _or_zeros(penalty_N: Float[np.ndarray, "N"] | None, count: int) -> Float[np.ndarray, "N"]:
    return np.zeros(count, np.float32) if penalty_N is None else np.asarray(penalty_N, np.float32)


def _nearest(
    query_QE: Shaped[np.ndarray, "Q E"],
    candidates_NE: Shaped[np.ndarray, "N E"],
    k: int,
    dtype: Any,
    penalty_N: Float[np.ndarray, "N"],
) -> tuple[Float[np.ndarray, "Q k"], Int[np.ndarray, "Q k"]]:
    """`top_k` by cosines of unit vectors in a dtype."""
    Q, N = len(query_QE), len(candidates_NE)
    queries, candidates = min(TILE[0], -(-Q // device_count())), _even(N)
    score_Qk, index_Qk = np.empty((Q, k), np.float32), np.empty((Q, k), np.int32)
    for query in slabs(query_QE, queries, _whole_tiles(queries * device_count()), dtype, is_spread=True):
        shape = (*query.tiles_TBE.shape[:2], k)
        best = put((np.full(shape, -np.inf, np.float32), np.zeros(shape, np.int32)), is_spread=True)
        for slab in slabs(candidates_NE, candidates, _whole_tiles(candidates), dtype):
            first_S = slab.rows.start + candidates * np.arange(len(slab.tiles_TBE), dtype=np.int32)
            of_slab = slab.tiles_TBE, slab.tiled(penalty_N[slab.rows]), first_S, slab.sizes_T
            best = jax.block_until_ready(_best(query.tiles_TBE, *best, *of_slab))
        score_Qk[query.rows], index_Qk[query.rows] = (query.flat(part) for part in best)
    return score_Qk, index_Qk


def _again(
    query_QE: Shaped[np.ndarray, "Q E"],
    candidates_NE: Shaped[np.ndarray, "N E"],
    penalty_N: Float[np.ndarray, "N"],
    index_Qj: Int[np.ndarray, "Q j"],
    k: int,
) -> tuple[Float[np.ndarray, "Q k"], Int[np.ndarray, "Q k"]]:
    """The k nearest of some candidates of each query, whose indices rise."""
    parts = []
    for start in range(0, len(query_QE), SCREENED_AT_ONCE):
        query_BE, index_Bj = (part[start : start + SCREENED_AT_ONCE] for part in (query_QE, index_Qj))
        parts.append(_best_of_few(query_BE, candidates_NE[index_Bj], penalty_N[index_Bj], index_Bj, k))
    scores, indices = zip(*jax.device_get(parts), strict=True)
    return np.concatenate(scores), np.concatenate(indices)


def _rounding(vectors_NE: Shaped[np.ndarray, "N E"]) -> Float[np.ndarray, "N"]:
    """The length of what unit vectors lose in bfloat16."""
    return np.concatenate([slab.flat(_lost(slab.tiles_TBE)) for slab in slabs(vectors_NE, TILE[0], SLAB)])


@jax.jit
def _lost(unit_TBE: Float[Array, "T B E"]) -> Float[Array, "T B"]:
    return jnp.linalg.norm(unit_TBE - unit_TBE.astype(jnp.bfloat16).astype(jnp.float32), axis=-1)


@functools.cache
def _has_bfloat16() -> bool:
    """Whether products of bfloat16 are faster than those of float32: on accelerators, and on CPUs made for them."""
    if jax.default_backend() != "cpu":
        return True
    told = Path("/proc/cpuinfo")
    return told.is_file() and any(name in told.read_text() for name in ("avx512_bf16", "amx_bf16"))


def _cosines(query_BE: Shaped[np.ndarray, "B E"], candidates_NE: Shaped[np.ndarray, "N E"]) -> Float[np.ndarray, "B N"]:
    cosine_BN = np.empty((len(query_BE), len(candidates_NE)), np.float32)
    (query,) = slabs(query_BE, len(query_BE), len(query_BE))
    tile = _even(len(candidates_NE))
    for slab in slabs(candidates_NE, tile, tile):
        found_BC = np.asarray(_all_cosines(query.tiles_TBE[0], slab.tiles_TBE))
        cosine_BN[:, slab.rows] = found_BC[:, : slab.rows.stop - slab.rows.start]
    return cosine_BN


def _whole_tiles(multiple: int) -> int:
    """The rows of a slab, whole multiples."""
    return multiple * max(SLAB // multiple, 1)


def _even(count: int) -> int:
    """The size of tiles that share candidates evenly, in whole groups."""
    return -(-count // (-(-count // TILE[1]) * GROUP)) * GROUP


def _product(candidates_CE: Float[Array, "C E"], query_BE: Float[Array, "B E"]) -> Float[Array, "C B"]:
    """Cosines of unit vectors, in float32. Queries lie side by side, so that what is done along the candidates is done
    for many queries at once."""
    with jax.default_matmul_precision("float32"):
        return jnp.einsum("ce,be->cb", candidates_CE, query_BE, preferred_element_type=jnp.float32)


def _cosine(
    candidates_CE: Float[Array, "C E"], query_BE: Float[Array, "B E"], size: Int[Array, ""]
) -> Float[Array, "C B"]:
    """The same; −∞ for candidates beyond the first `size`."""
    return jnp.where(jnp.arange(len(candidates_CE))[:, None] < size, _product(candidates_CE, query_BE), -jnp.inf)


@jax.jit
def _all_cosines(query_BE: Float[Array, "B E"], candidates_SCE: Float[Array, "S C E"]) -> Float[Array, "B S*C"]:
    return _product(query_BE, candidates_SCE.reshape(-1, candidates_SCE.shape[-1]))


@functools.partial(jax.jit, static_argnums=4)
def _best_of_few(
    query_BE: Shaped[Array, "B E"],
    found_BjE: Shaped[Array, "B j E"],
    penalty_Bj: Float[Array, "B j"],
    index_Bj: Int[Array, "B j"],
    k: int,
) -> tuple[Float[Array, "B k"], Int[Array, "B k"]]:
    query_BE, found_BjE = unit(query_BE.astype(jnp.float32)), unit(found_BjE.astype(jnp.float32))
    with jax.default_matmul_precision("float32"):
        score_Bk, chosen_Bk = jax.lax.top_k(jnp.einsum("be,bje->bj", query_BE, found_BjE) - penalty_Bj, k)
    return score_Bk, jnp.take_along_axis(index_Bj, chosen_Bk, axis=1)


def _not_after(score_CB: Float[Array, "C B"], own_B: Float[Array, "B"]) -> Int[Array, "B"]:
    """Written so that a score that is not a number counts as before the own one."""
    return jnp.sum(~(score_CB < own_B[None]), axis=0, dtype=jnp.int32)


@jax.jit
def _own(
    query_TBE: Float[Array, "T B E"],
    own_TBE: Float[Array, "T B E"],
    penalty_TB: Float[Array, "T B"],
    sizes_T: Int[Array, "T"],
) -> tuple[Float[Array, "T B"], Int[Array, "T B"]]:
    """Each query's score of its own candidate, and how many candidates of the own one's tile come not after it."""

    def of_tile(tile: tuple[Array, ...]) -> tuple[Array, Array]:
        query_BE, own_BE, penalty_B, size = tile
        score_BB = _cosine(own_BE, query_BE, size) - penalty_B[:, None]
        own_B = jnp.diagonal(score_BB)
        return own_B, _not_after(score_BB, own_B)

    return over_queries(lambda *tiles: jax.lax.map(of_tile, tiles), "qqqq", query_TBE, own_TBE, penalty_TB, sizes_T)


@functools.partial(jax.jit, static_argnums=0)
def _others(
    has_own: bool,
    query_TBE: Float[Array, "T B E"],
    own_TB: Float[Array, "T B"],
    numbers_T: Int[Array, "T"],
    candidates_SBE: Float[Array, "S B E"],
    penalty_SB: Float[Array, "S B"],
    sizes_S: Int[Array, "S"],
) -> Int[Array, "T B"]:
    """How many candidates of a slab come not after each query's own one.

    has_own: the tile with the queries' own ones, which has their tile's number, is left out. Own scores come from tiles
    of the same shape as these: equal vectors have scores that are equal to the last bit.
    """
    S = len(candidates_SBE)

    def of_device(
        query_TBE: Array, own_TB: Array, numbers_T: Array, candidates_SBE: Array, penalty_SB: Array, sizes_S: Array
    ) -> Array:
        def of_tile(tile: tuple[Array, ...]) -> Array:
            query_BE, own_B, number = tile

            def add(step: Array, count_B: Array) -> Array:
                s = (number + step) % S
                score_BB = _cosine(candidates_SBE[s], query_BE, sizes_S[s]) - penalty_SB[s][:, None]
                return count_B + _not_after(score_BB, own_B)

            return jax.lax.fori_loop(int(has_own), S, add, jnp.zeros(own_B.shape, jnp.int32))

        return jax.lax.map(of_tile, (query_TBE, own_TB, numbers_T))

    return over_queries(of_device, "qqqccc", query_TBE, own_TB, numbers_T, candidates_SBE, penalty_SB, sizes_S)


@jax.jit
def _best(
    query_TBE: Float[Array, "T B E"],
    score_TBk: Float[Array, "T B k"],
    index_TBk: Int[Array, "T B k"],
    candidates_SCE: Float[Array, "S C E"],
    penalty_SC: Float[Array, "S C"],
    first_S: Int[Array, "S"],
    sizes_S: Int[Array, "S"],
) -> tuple[Float[Array, "T B k"], Int[Array, "T B k"]]:
    """The best of a slab and of those that were found before. first: index of each tile's first candidate."""
    k = score_TBk.shape[-1]

    def of_device(query_TBE: Array, score_TBk: Array, index_TBk: Array, *slab: Array) -> tuple[Array, Array]:
        def of_candidates(best: tuple[Array, Array], tile: tuple[Array, ...]) -> tuple[tuple[Array, Array], None]:
            candidates_CE, penalty_C, first, size = tile

            def of_queries(queries: tuple[Array, ...]) -> tuple[Array, Array]:
                query_BE, score_Bk, index_Bk = queries
                B = len(query_BE)
                score_GgB = (_product(candidates_CE, query_BE) - penalty_C[:, None]).reshape(-1, GROUP, B)
                begins_G = GROUP * jnp.arange(len(score_GgB))
                most_GB = jnp.where(begins_G[:, None] < size, score_GgB.max(axis=1), -jnp.inf)
                # One more, as the last group may owe its place to what fills it up.
                _, group_Bj = jax.lax.top_k(most_GB.T, min(k + 1, len(score_GgB)))
                group_Bj = jnp.sort(group_Bj, axis=1)  # so that of equal candidates the first one stays the first
                place_Bjg = group_Bj[:, :, None] * GROUP + jnp.arange(GROUP)[None, None]
                found_Bjg = jnp.where(place_Bjg < size, score_GgB[group_Bj, :, jnp.arange(B)[:, None]], -jnp.inf)
                scores = jnp.concatenate([score_Bk, found_Bjg.reshape(B, -1)], axis=1)
                places = jnp.concatenate([index_Bk, (first + place_Bjg).reshape(B, -1)], axis=1)
                score_Bk, chosen_Bk = jax.lax.top_k(scores, k)
                return score_Bk, jnp.take_along_axis(places, chosen_Bk, axis=1)

            return jax.lax.map(of_queries, (query_TBE, *best)), None

        return jax.lax.scan(of_candidates, (score_TBk, index_TBk), slab)[0]

    slab = candidates_SCE, penalty_SC, first_S, sizes_S
    return over_queries(of_device, "qqqcccc", query_TBE, score_TBk, index_TBk, *slab)

"""Cross-entropy of a batch against itself, along rows and along columns, in blocks of rows: no B×B matrix is kept."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

# (params, predicted [R, E], targets [B, E], the rows' own places [R]) → logits [R, B]; -inf where a pair is left out
Logits = Callable[[Any, Array, Array, Array], Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def cross_entropy(
    logits: Logits,
    blocks: int,
    shards: int,
    params: Any,
    predicted_BE: Float[Array, "B E"],
    target_BE: Float[Array, "B E"],
) -> Float[Array, ""]:
    """Mean of the cross-entropies along rows and along columns, in nats; target i is the one that prediction i is of.

    blocks: the rows are taken in so many parts, and the logits of each are computed again for its gradients; with one
    they are kept. shards: devices that the rows lie on; each block takes its rows from all. Targets get no gradient.
    """
    return _forward(logits, blocks, shards, params, predicted_BE, target_BE)[0]


def _parts(x: Shaped[Array, "B ..."], blocks: int, shards: int) -> Shaped[Array, "blocks R ..."]:
    """Rows as [blocks, R], every block with rows of every shard."""
    apart = x.reshape(shards, blocks, -1, *x.shape[1:])
    return jnp.swapaxes(apart, 0, 1).reshape(blocks, -1, *x.shape[1:])


def _together(x: Shaped[Array, "blocks R ..."], shards: int) -> Shaped[Array, "B ..."]:
    blocks = x.shape[0]
    apart = x.reshape(blocks, shards, -1, *x.shape[2:])
    return jnp.swapaxes(apart, 0, 1).reshape(-1, *x.shape[2:])


def _own(logits_RB: Float[Array, "R B"], places_R: Int[Array, "R"]) -> Float[Array, "R"]:
    return jnp.take_along_axis(logits_RB, places_R[:, None], axis=1)[:, 0]


def _forward(
    logits: Logits, blocks: int, shards: int, params: Any, predicted_BE: Array, target_BE: Array
) -> tuple[Array, Any]:
    B = len(predicted_BE)
    places_B = jnp.arange(B)

    def block(columns_B: Array, rows: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        predicted_RE, places_R = rows
        logits_RB = logits(params, predicted_RE, target_BE, places_R)
        columns_B = jnp.logaddexp(columns_B, jax.nn.logsumexp(logits_RB, axis=0))
        return columns_B, (jax.nn.logsumexp(logits_RB, axis=1), _own(logits_RB, places_R))

    if blocks == 1:
        logits_BB, pull = jax.vjp(lambda p, x: logits(p, x, target_BE, places_B), params, predicted_BE)
        rows_B, columns_B = jax.nn.logsumexp(logits_BB, axis=1), jax.nn.logsumexp(logits_BB, axis=0)
        own_B, kept = jnp.diagonal(logits_BB), (logits_BB, pull)
    else:
        parts = _parts(predicted_BE, blocks, shards), _parts(places_B, blocks, shards)
        columns_B, (rows_B, own_B) = jax.lax.scan(block, jnp.full(B, -jnp.inf), parts)
        rows_B, own_B, kept = _together(rows_B, shards), _together(own_B, shards), None
    loss = (rows_B.mean() + columns_B.mean()) / 2 - own_B.mean()
    return loss, (params, predicted_BE, target_BE, rows_B, columns_B, kept)


def _backward(logits: Logits, blocks: int, shards: int, residuals: Any, gradient: Array) -> tuple[Any, Array, Array]:
    params, predicted_BE, target_BE, rows_B, columns_B, kept = residuals
    B = len(predicted_BE)

    def of_logits(logits_RB: Array, rows_R: Array, places_R: Array) -> Array:
        softmaxes_RB = jnp.exp(logits_RB - rows_R[:, None]) + jnp.exp(logits_RB - columns_B[None])
        is_own_RB = jnp.arange(B)[None] == places_R[:, None]
        return gradient / B * jnp.where(is_own_RB, softmaxes_RB / 2 - 1, softmaxes_RB / 2)

    if blocks == 1:
        logits_BB, pull = kept
        of_params, of_predicted_BE = pull(of_logits(logits_BB, rows_B, jnp.arange(B)))
        return of_params, of_predicted_BE, jnp.zeros_like(target_BE)

    def block(of_params: Any, part: tuple[Array, Array, Array]) -> tuple[Any, Array]:
        predicted_RE, rows_R, places_R = part
        logits_RB, pull = jax.vjp(lambda p, x: logits(p, x, target_BE, places_R), params, predicted_RE)
        more, of_predicted_RE = pull(of_logits(logits_RB, rows_R, places_R))
        return jax.tree.map(jnp.add, of_params, more), of_predicted_RE

    parts = (
        _parts(predicted_BE, blocks, shards),
        _parts(rows_B, blocks, shards),
        _parts(jnp.arange(B), blocks, shards),
    )
    of_params, of_predicted = jax.lax.scan(block, jax.tree.map(jnp.zeros_like, params), parts)
    return of_params, _together(of_predicted, shards), jnp.zeros_like(target_BE)


cross_entropy.defvjp(_forward, _backward)


def summed(
    rows_loss: Callable[[Any, Array, Array], Array],
    blocks: int,
    shards: int,
    params: Any,
    predicted_BE: Float[Array, "B E"],
) -> Float[Array, ""]:
    """The sum of (params, predicted [R, E], places [R]) → [] over blocks of rows, as `cross_entropy` takes them."""
    parts = _parts(predicted_BE, blocks, shards), _parts(jnp.arange(len(predicted_BE)), blocks, shards)

    @jax.checkpoint
    def block(total: Array, part: tuple[Array, Array]) -> tuple[Array, None]:
        return total + rows_loss(params, *part), None

    return jax.lax.scan(block, jnp.zeros(()), parts)[0]

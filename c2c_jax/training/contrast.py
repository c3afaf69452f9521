"""Cross-entropy of a batch against itself, along rows and along columns, in blocks of rows: no B×B matrix is kept."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

# (inputs, products [R, B], targets [B, E], the rows' own places [R]) → logits [R, B]; -inf where a pair is left out
Finish = Callable[[Any, Array, Array, Array], Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def cross_entropy(
    finish: Finish,
    blocks: int,
    shards: int,
    inputs: Any,
    left_BF: Float[Array, "B F"],
    right_BF: Float[Array, "B F"],
    target_BE: Float[Array, "B E"],
) -> Float[Array, ""]:
    """Mean of the cross-entropies along rows and along columns, in nats; column i is the one that row i is of.

    Logits are finish(inputs, left @ right.T, ...). blocks: the rows are taken in so many parts, and the products of
    each are computed again for its gradients; with one they are kept. shards: devices that the rows lie on; each block
    takes its rows from all. Only `inputs` and `left` get a gradient.
    """
    return _forward(finish, blocks, shards, inputs, left_BF, right_BF, target_BE)[0]


def _products(left_RF: Float[Array, "R F"], right_BF: Float[Array, "B F"]) -> Float[Array, "R B"]:
    # Behind the barrier the compiler cannot multiply once more for each use of the products.
    return jax.lax.optimization_barrier(left_RF @ right_BF.T)


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
    finish: Finish, blocks: int, shards: int, inputs: Any, left_BF: Array, right_BF: Array, target_BE: Array
) -> tuple[Array, Any]:
    B = len(left_BF)
    places_B = jnp.arange(B)

    def block(columns_B: Array, rows: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        left_RF, places_R = rows
        logits_RB = finish(inputs, _products(left_RF, right_BF), target_BE, places_R)
        columns_B = jnp.logaddexp(columns_B, jax.nn.logsumexp(logits_RB, axis=0))
        return columns_B, (jax.nn.logsumexp(logits_RB, axis=1), _own(logits_RB, places_R))

    if blocks == 1:
        products_BB = _products(left_BF, right_BF)
        logits_BB = finish(inputs, products_BB, target_BE, places_B)
        rows_B, columns_B = jax.nn.logsumexp(logits_BB, axis=1), jax.nn.logsumexp(logits_BB, axis=0)
        own_B, kept = jnp.diagonal(logits_BB), products_BB
    else:
        parts = _parts(left_BF, blocks, shards), _parts(places_B, blocks, shards)
        columns_B, (rows_B, own_B) = jax.lax.scan(block, jnp.full(B, -jnp.inf), parts)
        rows_B, own_B, kept = _together(rows_B, shards), _together(own_B, shards), None
    loss = (rows_B.mean() + columns_B.mean()) / 2 - own_B.mean()
    return loss, (inputs, left_BF, right_BF, target_BE, rows_B, columns_B, kept)


def _backward(finish: Finish, blocks: int, shards: int, residuals: Any, gradient: Array) -> tuple[Any, ...]:
    inputs, left_BF, right_BF, target_BE, rows_B, columns_B, kept = residuals
    B = len(left_BF)

    def block(of_inputs: Any, part: tuple[Array, Array, Array]) -> tuple[Any, Array]:
        products_RB, rows_R, places_R = part
        logits_RB, pull = jax.vjp(lambda i, x: finish(i, x, target_BE, places_R), inputs, products_RB)
        softmaxes_RB = jnp.exp(logits_RB - rows_R[:, None]) + jnp.exp(logits_RB - columns_B[None])
        is_own_RB = jnp.arange(B)[None] == places_R[:, None]
        more, of_products_RB = pull(gradient / B * jnp.where(is_own_RB, softmaxes_RB / 2 - 1, softmaxes_RB / 2))
        return jax.tree.map(jnp.add, of_inputs, more), of_products_RB @ right_BF

    def again(of_inputs: Any, part: tuple[Array, Array, Array]) -> tuple[Any, Array]:
        left_RF, rows_R, places_R = part
        return block(of_inputs, (_products(left_RF, right_BF), rows_R, places_R))

    zero, places_B = jax.tree.map(jnp.zeros_like, inputs), jnp.arange(B)
    if blocks == 1:
        of_inputs, of_left_BF = block(zero, (kept, rows_B, places_B))
    else:
        parts = (_parts(left_BF, blocks, shards), _parts(rows_B, blocks, shards), _parts(places_B, blocks, shards))
        of_inputs, of_left = jax.lax.scan(again, zero, parts)
        of_left_BF = _together(of_left, shards)
    return of_inputs, of_left_BF, jnp.zeros_like(right_BF), jnp.zeros_like(target_BE)


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

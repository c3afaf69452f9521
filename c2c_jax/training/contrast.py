"""Cross-entropy of a batch against itself, along rows and along columns, in blocks of rows that fit into caches."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

# (inputs, products [R, B], targets [B, E], the rows' own places [R]) → logits [R, B]; -inf where a pair is left out
Finish = Callable[[Any, Array, Array, Array], Array]


@dataclasses.dataclass(frozen=True)
class Blocks:
    """How the rows of a batch are taken.

    count: parts, one after the other. shards: devices that the rows lie on; each part takes its rows from all. kept:
    whether the products of all pairs are kept for the gradients, or computed again: then no [B, B] array is ever there.
    """

    count: int = 1
    shards: int = 1
    kept: bool = True


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def cross_entropy(
    finish: Finish,
    blocks: Blocks,
    inputs: Any,
    left_BF: Float[Array, "B F"],
    right_BF: Float[Array, "B F"],
    target_BE: Float[Array, "B E"],
) -> Float[Array, ""]:
    """Mean of the cross-entropies along rows and along columns, in nats; column i is the one that row i is of.

    Logits are finish(inputs, left @ right.T, ...). Only `inputs` and `left` get a gradient.
    """
    return _forward(finish, blocks, inputs, left_BF, right_BF, target_BE)[0]


def _products(left_RF: Float[Array, "R F"], right_BF: Float[Array, "B F"]) -> Float[Array, "R B"]:
    # Behind the barrier the compiler cannot multiply once more for each use of the products.
    return jax.lax.optimization_barrier(left_RF @ right_BF.T)


def _parts(x: Shaped[Array, "B ..."], blocks: Blocks) -> Shaped[Array, "blocks R ..."]:
    """Rows as [blocks, R], every block with rows of every shard."""
    apart = x.reshape(blocks.shards, blocks.count, -1, *x.shape[1:])
    return jnp.swapaxes(apart, 0, 1).reshape(blocks.count, -1, *x.shape[1:])


def _together(x: Shaped[Array, "blocks R ..."], blocks: Blocks) -> Shaped[Array, "B ..."]:
    apart = x.reshape(blocks.count, blocks.shards, -1, *x.shape[2:])
    return jnp.swapaxes(apart, 0, 1).reshape(-1, *x.shape[2:])


def _forward(
    finish: Finish, blocks: Blocks, inputs: Any, left_BF: Array, right_BF: Array, target_BE: Array
) -> tuple[Array, Any]:
    B = len(left_BF)

    def block(columns_B: Array, rows: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array, Array | None]]:
        left_RF, places_R = rows
        products_RB = _products(left_RF, right_BF)
        logits_RB = finish(inputs, products_RB, target_BE, places_R)
        own_R = jnp.take_along_axis(logits_RB, places_R[:, None], axis=1)[:, 0]
        columns_B = jnp.logaddexp(columns_B, jax.nn.logsumexp(logits_RB, axis=0))
        return columns_B, (jax.nn.logsumexp(logits_RB, axis=1), own_R, products_RB if blocks.kept else None)

    parts = _parts(left_BF, blocks), _parts(jnp.arange(B), blocks)
    columns_B, (rows, own, products) = jax.lax.scan(block, jnp.full(B, -jnp.inf), parts)
    loss = (rows.mean() + columns_B.mean()) / 2 - own.mean()
    return loss, (inputs, *parts, right_BF, target_BE, rows, columns_B, products)


def _backward(finish: Finish, blocks: Blocks, residuals: Any, gradient: Array) -> tuple[Any, ...]:
    inputs, left, places, right_BF, target_BE, rows, columns_B, products = residuals
    B = len(right_BF)

    def block(of_inputs: Any, part: tuple[Array, Array, Array, Array | None]) -> tuple[Any, Array]:
        left_RF, places_R, rows_R, products_RB = part
        if products_RB is None:
            products_RB = _products(left_RF, right_BF)
        logits_RB, pull = jax.vjp(lambda i, x: finish(i, x, target_BE, places_R), inputs, products_RB)
        softmaxes_RB = jnp.exp(logits_RB - rows_R[:, None]) + jnp.exp(logits_RB - columns_B[None])
        is_own_RB = jnp.arange(B)[None] == places_R[:, None]
        more, of_products_RB = pull(gradient / B * jnp.where(is_own_RB, softmaxes_RB / 2 - 1, softmaxes_RB / 2))
        return jax.tree.map(jnp.add, of_inputs, more), of_products_RB @ right_BF

    of_inputs, of_left = jax.lax.scan(block, jax.tree.map(jnp.zeros_like, inputs), (left, places, rows, products))
    return of_inputs, _together(of_left, blocks), jnp.zeros_like(right_BF), jnp.zeros_like(target_BE)


cross_entropy.defvjp(_forward, _backward)


def summed(
    rows_loss: Callable[[Any, Array, Array], Array],
    blocks: Blocks,
    params: Any,
    predicted_BE: Float[Array, "B E"],
) -> Float[Array, ""]:
    """The sum of (params, predicted [R, E], places [R]) → [] over blocks of rows, as `cross_entropy` takes them."""
    parts = _parts(predicted_BE, blocks), _parts(jnp.arange(len(predicted_BE)), blocks)

    @jax.checkpoint
    def block(total: Array, part: tuple[Array, Array]) -> tuple[Array, None]:
        return total + rows_loss(params, *part), None

    return jax.lax.scan(block, jnp.zeros(()), parts)[0]

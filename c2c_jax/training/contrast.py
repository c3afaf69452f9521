"""Cross-entropy of a batch against itself, along rows and along columns, in blocks of rows that fit into caches."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

# (margin, products [...]) → logits [...].
Finish = Callable[[Array, Array], Array]
# (logits [R, B], targets [B, E], places of the rows [R]) → logits, −inf where a pair is no negative.
Mask = Callable[[Array, Array, Array], Array]


@dataclasses.dataclass(frozen=True)
class Blocks:
    """How the rows of a batch are taken.

    count: parts, one after the other. shards: devices that the rows lie on; each part takes its rows from all. kept:
    whether the products of all pairs are kept for the gradients, or computed again: then no [B, B] array is ever there.
    """

    count: int = 1
    shards: int = 1
    kept: bool = True


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def cross_entropy(
    finish: Finish,
    mask: Mask,
    blocks: Blocks,
    margin: Float[Array, ""],
    left_BF: Float[Array, "B F"],
    right_BF: Float[Array, "B F"],
    target_BE: Float[Array, "B E"],
) -> Float[Array, ""]:
    """Mean of the cross-entropies along rows and along columns, in nats; column i is the one that row i is of.

    Logits are mask(finish(margin, left @ right.T), target, places). Only `left` gets a gradient.
    """
    return _forward(finish, mask, blocks, margin, left_BF, right_BF, target_BE)[0]


def _products(left: Float[Array, "*parts R F"], right_BF: Float[Array, "B F"]) -> Float[Array, "*parts R B"]:
    # Exactly: of three large numbers a small distance remains, and accelerators round inputs unless told otherwise.
    exact = jnp.matmul(left, right_BF.T, precision=jax.lax.Precision.HIGHEST)
    # Behind the barrier the compiler cannot multiply once more for each use of the products.
    return jax.lax.optimization_barrier(exact)


def _parts(x: Shaped[Array, "B ..."], blocks: Blocks) -> Shaped[Array, "blocks R ..."]:
    """Rows as [blocks, R], every block with rows of every shard."""
    apart = x.reshape(blocks.shards, blocks.count, -1, *x.shape[1:])
    return jnp.swapaxes(apart, 0, 1).reshape(blocks.count, -1, *x.shape[1:])


def _together(x: Shaped[Array, "blocks R ..."], blocks: Blocks) -> Shaped[Array, "B ..."]:
    apart = x.reshape(blocks.count, blocks.shards, -1, *x.shape[2:])
    return jnp.swapaxes(apart, 0, 1).reshape(-1, *x.shape[2:])


def _log_sums(
    logits: Callable[[], Float[Array, "R B"]], near: Float[Array, ""]
) -> tuple[Float[Array, "R"], Float[Array, "B"]]:
    """The logsumexp along rows and along columns, by one exponential for both where none overflows or vanishes."""
    powers_RB = jnp.exp(logits() - near)
    rows_R, columns_B = powers_RB.sum(axis=1), powers_RB.sum(axis=0)
    least, most = jnp.minimum(rows_R.min(), columns_B.min()), jnp.maximum(rows_R.max(), columns_B.max())
    return jax.lax.cond(
        (least > 1e-28) & (most < jnp.inf),
        lambda: (near + jnp.log(rows_R), near + jnp.log(columns_B)),
        lambda: (jax.nn.logsumexp(logits(), axis=1), jax.nn.logsumexp(logits(), axis=0)),
    )


def _forward(
    finish: Finish, mask: Mask, blocks: Blocks, margin: Array, left_BF: Array, right_BF: Array, target_BE: Array
) -> tuple[Array, Any]:
    B = len(left_BF)
    left, places = _parts(left_BF, blocks), _parts(jnp.arange(B), blocks)
    products = _products(left, right_BF) if blocks.kept else None

    def block(columns_B: Array, part: tuple[Array, Array, Array | None]) -> tuple[Array, tuple[Array, Array]]:
        left_RF, places_R, products_RB = part
        if products_RB is None:
            products_RB = _products(left_RF, right_BF)
        own_R = jnp.take_along_axis(products_RB, places_R[:, None], axis=1)[:, 0]
        own_logits_R = finish(margin, own_R)
        rows_R, more_B = _log_sums(lambda: mask(finish(margin, products_RB), target_BE, places_R), own_logits_R.max())
        return jnp.logaddexp(columns_B, more_B), (rows_R, own_R)

    columns_B, (rows, own) = jax.lax.scan(block, jnp.full(B, -jnp.inf), (left, places, products))
    own_logits = finish(margin, own)
    # Differences first: their mean may be small where the logits themselves are large.
    loss = ((rows - own_logits).mean() + (columns_B - _together(own_logits, blocks)).mean()) / 2
    return loss, (margin, left, places, right_BF, target_BE, rows, columns_B, own, products)


def _backward(finish: Finish, mask: Mask, blocks: Blocks, residuals: Any, gradient: Array) -> tuple[Array, ...]:
    margin, left, places, right_BF, target_BE, rows, columns_B, own, products = residuals
    B = len(right_BF)

    def block(carry: None, part: tuple[Array, Array, Array, Array | None]) -> tuple[None, Array]:
        left_RF, places_R, rows_R, products_RB = part
        if products_RB is None:
            products_RB = _products(left_RF, right_BF)
        logits_RB, pull = jax.vjp(lambda x: mask(finish(margin, x), target_BE, places_R), products_RB)
        softmaxes_RB = jnp.exp(logits_RB - rows_R[:, None]) + jnp.exp(logits_RB - columns_B[None])
        return carry, pull(gradient / (2 * B) * softmaxes_RB)[0] @ right_BF

    _, of_left = jax.lax.scan(block, None, (left, places, rows, products))
    # The own logits' part: inside the blocks a test for the diagonal would cost as much as an exponential.
    of_own = jax.vjp(functools.partial(finish, margin), own)[1](jnp.full_like(own, gradient / B))[0]
    of_left_BF = _together(of_left - of_own[..., None] * _parts(right_BF, blocks), blocks)
    return jnp.zeros_like(margin), of_left_BF, jnp.zeros_like(right_BF), jnp.zeros_like(target_BE)


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

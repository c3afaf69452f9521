"""Cross-entropy of a batch against itself, along rows and along columns, in blocks of rows that fit into caches."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from c2c_jax.training.groups import gathered

# (margin, products [...]) → logits [...].
Finish = Callable[[Array, Array], Array]
# (logits [R, B], targets [B, E], places of the rows [R]) → logits, −inf where a pair is no negative.
Mask = Callable[[Array, Array, Array], Array]


@dataclasses.dataclass(frozen=True)
class Blocks:
    """How the rows of a batch are taken.

    groups: see `groups.by_groups`; of the rows at hand. count: parts of a group, one after the other. kept: whether the
    products of all pairs are kept for the gradients, or computed again: then no [B, B] array is ever there. axis: the
    mesh axis whose devices each have their share of the rows at hand, under `shard_map`; "": all rows are at hand.
    """

    groups: int = 1
    count: int = 1
    kept: bool = True
    axis: str = ""


def places(rows: int, axis: str) -> Int[Array, "R"]:
    """Where in its batch each of the rows at hand is; see `Blocks`."""
    return jnp.arange(rows) + (rows * jax.lax.axis_index(axis) if axis else 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def cross_entropy(
    finish: Finish,
    mask: Mask,
    blocks: Blocks,
    margin: Float[Array, ""],
    left_RF: Float[Array, "R F"],
    right_BF: Float[Array, "B F"],
    target_BE: Float[Array, "B E"],
) -> Float[Array, ""]:
    """Mean of the cross-entropies along rows and along columns, in nats; column i is the one that row i is of. Where
    the rows at hand are not all of the batch, what they have of it: the parts of all devices add up to the mean.

    Logits are mask(finish(margin, left @ right.T), target, places). Only `left` gets a gradient.
    """
    return _forward(finish, mask, blocks, margin, left_RF, right_BF, target_BE)[0]


def _products(left_RF: Float[Array, "R F"], right_BF: Float[Array, "B F"]) -> Float[Array, "R B"]:
    # Exactly: of three large numbers a small distance remains, and accelerators round inputs unless told otherwise.
    exact = jnp.matmul(left_RF, right_BF.T, precision=jax.lax.Precision.HIGHEST)
    # Behind the barrier the compiler cannot multiply once more for each use of the products.
    return jax.lax.optimization_barrier(exact)


def _parts(x: Shaped[Array, "R ..."], blocks: Blocks) -> Shaped[Array, "groups count r ..."]:
    return x.reshape(blocks.groups, blocks.count, -1, *x.shape[1:])


class Sums(NamedTuple):
    """Of the exponentials of logits along an axis: exp(shift) · sums. Not their logarithm: its rounding, which is the
    same for all rows where these have learned little yet, is many times the gradient of their mean."""

    shift: Array
    sums: Array

    def log(self) -> Array:
        return self.shift + jnp.log(self.sums)

    def total(self) -> "Sums":
        """The sum along the first axis."""
        shift = self.shift.max(axis=0)
        weights = jnp.exp(self.shift - jnp.where(jnp.isfinite(shift), shift, 0)[None])
        return Sums(shift, (self.sums * weights).sum(axis=0))


# What a block's sums lie between if one shift serves it. So wide that a fall back is rare, and so narrow that of two
# blocks whose shifts are more than exp can tell apart, 87, the lesser one cannot count.
_LEAST, _MOST = 1e-20, 1e9


def _sums(logits: Callable[[], Float[Array, "r B"]], near: Float[Array, ""]) -> tuple[Sums, Sums]:
    """Along rows [r] and along columns [B], by one exponential for both where, shifted by `near`, none becomes too
    large or too small."""
    powers_rB = jnp.exp(logits() - near)
    sums = powers_rB.sum(axis=1), powers_rB.sum(axis=0)
    least, most = (reduce(of(sums[0]), of(sums[1])) for reduce, of in ((jnp.minimum, jnp.min), (jnp.maximum, jnp.max)))

    def apart(axis: int) -> Sums:
        shift = logits().max(axis=axis, keepdims=True)  # −inf where a block has no negative for a column
        powers_rB = jnp.exp(logits() - jnp.where(jnp.isfinite(shift), shift, 0))
        return Sums(shift.squeeze(axis), powers_rB.sum(axis=axis))

    fits = (least > _LEAST) & (most < _MOST)
    together = lambda: tuple(Sums(jnp.full_like(x, near), x) for x in sums)  # noqa: E731
    return jax.lax.cond(fits, together, lambda: (apart(1), apart(0)))


def _forward(
    finish: Finish, mask: Mask, blocks: Blocks, margin: Array, left_RF: Array, right_BF: Array, target_BE: Array
) -> tuple[Array, Any]:
    R, B = len(left_RF), len(right_BF)
    left, at = _parts(left_RF, blocks), _parts(places(R, blocks.axis), blocks)

    def block(columns: Sums, part: tuple[Array, Array]) -> tuple[Sums, tuple[Any, ...]]:
        left_rF, at_r = part
        products_rB = _products(left_rF, right_BF)
        own_r = jnp.take_along_axis(products_rB, at_r[:, None], axis=1)[:, 0]
        near = finish(margin, own_r).max()
        rows, more = _sums(lambda: mask(finish(margin, products_rB), target_BE, at_r), near)
        columns = Sums(*(jnp.stack(both) for both in zip(columns, more, strict=True))).total()
        return columns, (rows, own_r, products_rB if blocks.kept else None)

    def group(carry: None, part: tuple[Array, Array]) -> tuple[None, tuple[Sums, tuple[Any, ...]]]:
        return carry, jax.lax.scan(block, Sums(jnp.full(B, -jnp.inf), jnp.zeros(B)), part)

    _, (of_columns, kept) = jax.lax.scan(group, None, (left, at))
    columns = Sums(*(gathered(x, blocks.axis) for x in of_columns)).total()
    rows, own, _ = kept
    own_logits = finish(margin, own)
    # Differences first: their mean may be small where the logits themselves are large.
    loss = ((rows.log() - own_logits).sum() + (columns.log()[at] - own_logits).sum()) / (2 * B)
    return loss, (margin, left, at, right_BF, target_BE, columns, kept)


def _backward(finish: Finish, mask: Mask, blocks: Blocks, residuals: Any, gradient: Array) -> tuple[Array, ...]:
    margin, left, at, right_BF, target_BE, columns, kept = residuals
    B, gradient = len(right_BF), jax.lax.optimization_barrier(gradient)  # as in by_groups

    def block(carry: None, part: tuple[Array, Array, tuple[Any, ...]]) -> tuple[None, Array]:
        left_rF, at_r, (rows, own_r, products_rB) = part
        if products_rB is None:
            products_rB = _products(left_rF, right_BF)
        logits_rB, pull = jax.vjp(lambda x: mask(finish(margin, x), target_BE, at_r), products_rB)
        of_rows_rB = jnp.exp(logits_rB - rows.shift[:, None]) * (1 / rows.sums[:, None])
        of_columns_rB = jnp.exp(logits_rB - columns.shift[None]) * (1 / columns.sums[None])
        of_left_rF = pull(gradient / (2 * B) * (of_rows_rB + of_columns_rB))[0] @ right_BF
        # The own logits by themselves: a test for the diagonal would cost as much as an exponential.
        of_own_r = jax.vjp(functools.partial(finish, margin), own_r)[1](jnp.full_like(own_r, gradient / B))[0]
        return carry, of_left_rF - of_own_r[:, None] * right_BF[at_r]

    parts = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (left, at, kept))
    _, of_left = jax.lax.scan(block, None, parts)
    of_left_RF = of_left.reshape(-1, of_left.shape[-1])
    return jnp.zeros_like(margin), of_left_RF, jnp.zeros_like(right_BF), jnp.zeros_like(target_BE)


cross_entropy.defvjp(_forward, _backward)


def row_by_row(
    losses: Callable[[Array, Array], Array],
    blocks: Blocks,
    predicted_RE: Float[Array, "R E"],
    places_R: Int[Array, "R"],
) -> Float[Array, "R"]:
    """losses(predicted [r, E], places [r]) → [r], one part of a group after the other, computed again for gradients."""
    apart = (x.reshape(blocks.count, -1, *x.shape[1:]) for x in (predicted_RE, places_R))
    return jax.lax.map(jax.checkpoint(lambda part: losses(*part)), tuple(apart)).reshape(-1)

"""Symmetric cross-entropy of all pairs of a batch, computed in chunks of rows that fit into caches and memory.

The gradient is written by hand: softmaxes along rows and columns share one pass, and products of large batches are
recomputed instead of kept.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

CPU_CHUNK_ROWS, DEVICE_CHUNK_ROWS = 1024, 8192  # rows per device whose logits are computed at once
MAX_SAVED_BYTES = 2**30  # maximum size of the products that a device keeps for the gradients

# (products [...], margin) → logits [...]
Logits = Callable[[Array, Array], Array]
# (logits [R, B], targets [B, E], own column of each row [R]) → logits, with −inf for false negatives
Mask = Callable[[Array, Array, Array], Array]


def _devices_sharing(rows: int) -> int:
    """Number of devices that a batch is split over: all, or 1 if they do not divide its rows evenly."""
    return jax.device_count() if rows % jax.device_count() == 0 else 1


def chunk_count(rows: int, requested: int = 0) -> int:
    """The number of chunks that divides the rows of each device evenly and is nearest to `requested`. requested: 0 =
    chunks of 1,024 rows per device on CPUs, of 8,192 elsewhere."""
    rows_per_device = rows // _devices_sharing(rows)
    aim = requested or rows_per_device / (CPU_CHUNK_ROWS if jax.default_backend() == "cpu" else DEVICE_CHUNK_ROWS)
    divisors = [count for count in range(1, rows_per_device + 1) if rows_per_device % count == 0]
    return min(divisors, key=lambda count: abs(math.log(count / aim)))


def _chunked(x_B: Shaped[Array, "B ..."], chunks: int) -> Shaped[Array, "C R ..."]:
    """Splits rows into chunks that each hold rows of every device, so that no rows move between devices."""
    devices = _devices_sharing(len(x_B))
    by_device = x_B.reshape(devices, chunks, -1, *x_B.shape[1:]).swapaxes(0, 1)
    return by_device.reshape(chunks, -1, *x_B.shape[1:])


def _unchunked(x_CR: Shaped[Array, "C R ..."]) -> Shaped[Array, "B ..."]:
    """The inverse of `_chunked`."""
    chunks, rows, *rest = x_CR.shape
    devices = _devices_sharing(chunks * rows)
    return x_CR.reshape(chunks, devices, -1, *rest).swapaxes(0, 1).reshape(-1, *rest)


def by_chunks(
    losses: Callable[[Array, Array], Array], loss_chunks: int, predicted_BE: Float[Array, "B E"], own_B: Int[Array, "B"]
) -> Float[Array, "B"]:
    """Applies losses(predicted [R, E], own column [R]) → [R] chunk by chunk; gradients recompute each chunk.

    loss_chunks: see `chunk_count`.
    """
    chunks = chunk_count(len(predicted_BE), loss_chunks)
    parts = _chunked(predicted_BE, chunks), _chunked(own_B, chunks)
    return _unchunked(jax.lax.map(jax.checkpoint(lambda part: losses(*part)), parts))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def cross_entropy(
    logits_of: Logits,
    mask: Mask,
    loss_chunks: int,
    remat: bool,
    margin: Float[Array, ""],
    left_BF: Float[Array, "B F"],
    right_BF: Float[Array, "B F"],
    target_BE: Float[Array, "B E"],
) -> Float[Array, ""]:
    """The mean of the cross-entropies along rows and along columns, in nats. Row i belongs to column i.

    The logits are mask(logits_of(left @ right.T, margin), target, own column of each row). Only `left` gets a gradient.
    loss_chunks: see `chunk_count`. remat: whether gradients recompute the products; then no [B, B] array is ever in
    memory.
    """
    return _forward(logits_of, mask, loss_chunks, remat, margin, left_BF, right_BF, target_BE)[0]


def _products(left_RF: Float[Array, "R F"], right_BF: Float[Array, "B F"]) -> Float[Array, "R B"]:
    # At full precision: accelerators round inputs by default, and a small squared distance is the sum of large
    # products.
    exact = jnp.matmul(left_RF, right_BF.T, precision=jax.lax.Precision.HIGHEST)
    # The barrier keeps the compiler from repeating the product for each of its uses.
    return jax.lax.optimization_barrier(exact)


class ExpSums(NamedTuple):
    """Sums of exponentials of logits along an axis, stored as exp(shift) · sums.

    They are two numbers because the rounding error of a float32 logarithm is the same for all rows early in training,
    and far larger than the gradient.
    """

    shift: Array
    sums: Array

    def log(self) -> Array:
        """The logarithm of the sums."""
        return self.shift + jnp.log(self.sums)

    def plus(self, other: "ExpSums") -> "ExpSums":
        """The sums over both sets of logits."""
        shift = jnp.maximum(self.shift, other.shift)
        finite = jnp.where(jnp.isfinite(shift), shift, 0)
        sums = self.sums * jnp.exp(self.shift - finite) + other.sums * jnp.exp(other.shift - finite)
        return ExpSums(shift, sums)


# Range of a chunk's sums in which rows and columns use the same shift. It is wide enough that the fallback is rare. It
# is narrow enough that a chunk whose shift is more than 87 lower (exp underflows in float32) is negligible.
_SUM_MIN, _SUM_MAX = 1e-20, 1e9


def _sums(compute_logits: Callable[[], Float[Array, "R B"]], shared_shift: Float[Array, ""]) -> tuple[ExpSums, ExpSums]:
    """Sums along rows [R] and along columns [B]. Both use the exponentials shifted by `shared_shift`, unless a sum
    becomes too large or too small; then each gets shifts of its own. compute_logits: called for each use, so that XLA
    fuses it."""
    powers_RB = jnp.exp(compute_logits() - shared_shift)
    rows_R, columns_B = powers_RB.sum(axis=1), powers_RB.sum(axis=0)

    def separate(axis: int) -> ExpSums:
        shift = compute_logits().max(axis=axis, keepdims=True)  # −inf where a chunk has no negative for a column
        powers_RB = jnp.exp(compute_logits() - jnp.where(jnp.isfinite(shift), shift, 0))
        return ExpSums(shift.squeeze(axis), powers_RB.sum(axis=axis))

    smallest = jnp.minimum(rows_R.min(), columns_B.min())
    largest = jnp.maximum(rows_R.max(), columns_B.max())
    return jax.lax.cond(
        (smallest > _SUM_MIN) & (largest < _SUM_MAX),
        lambda: tuple(ExpSums(jnp.full_like(sums, shared_shift), sums) for sums in (rows_R, columns_B)),
        lambda: (separate(1), separate(0)),
    )


def _forward(
    logits_of: Logits,
    mask: Mask,
    loss_chunks: int,
    remat: bool,
    margin: Array,
    left_BF: Array,
    right_BF: Array,
    target_BE: Array,
) -> tuple[Array, Any]:
    B = len(right_BF)
    chunks = chunk_count(B, loss_chunks)
    remat = remat or 4 * B * B // _devices_sharing(B) > MAX_SAVED_BYTES
    left_CRF, own_CR = _chunked(left_BF, chunks), _chunked(jnp.arange(B), chunks)

    def chunk(columns: ExpSums, part: tuple[Array, Array]) -> tuple[ExpSums, tuple[Any, ...]]:
        left_RF, own_R = part
        products_RB = _products(left_RF, right_BF)
        own_product_R = jnp.take_along_axis(products_RB, own_R[:, None], axis=1)[:, 0]
        shared_shift = logits_of(own_product_R, margin).max()
        rows, chunk_columns = _sums(lambda: mask(logits_of(products_RB, margin), target_BE, own_R), shared_shift)
        return columns.plus(chunk_columns), (rows, own_product_R, None if remat else products_RB)

    columns, saved = jax.lax.scan(chunk, ExpSums(jnp.full(B, -jnp.inf), jnp.zeros(B)), (left_CRF, own_CR))
    rows, own_product_CR, _ = saved
    own_logits_CR = logits_of(own_product_CR, margin)
    # Differences first: their mean may be small although the logits are large.
    loss = ((rows.log() - own_logits_CR).sum() + (columns.log()[own_CR] - own_logits_CR).sum()) / (2 * B)
    return loss, (margin, left_CRF, own_CR, right_BF, target_BE, columns, saved)


def _backward(
    logits_of: Logits, mask: Mask, loss_chunks: int, remat: bool, residuals: Any, gradient: Array
) -> tuple[Array, ...]:
    margin, left_CRF, own_CR, right_BF, target_BE, columns, saved = residuals
    B = len(right_BF)

    def chunk(carry: None, part: tuple[Array, Array, tuple[Any, ...]]) -> tuple[None, Array]:
        left_RF, own_R, (rows, own_product_R, products_RB) = part
        if products_RB is None:
            products_RB = _products(left_RF, right_BF)
        logits_RB, pull = jax.vjp(lambda x: mask(logits_of(x, margin), target_BE, own_R), products_RB)
        row_softmax_RB = jnp.exp(logits_RB - rows.shift[:, None]) * (1 / rows.sums[:, None])
        column_softmax_RB = jnp.exp(logits_RB - columns.shift[None]) * (1 / columns.sums[None])
        left_gradient_RF = pull(gradient / (2 * B) * (row_softmax_RB + column_softmax_RB))[0] @ right_BF
        # Own logits are handled separately: masking the diagonal would cost as much as an exponential.
        own_pull = jax.vjp(lambda x: logits_of(x, margin), own_product_R)[1]
        own_gradient_R = own_pull(jnp.full_like(own_product_R, gradient / B))[0]
        return carry, left_gradient_RF - own_gradient_R[:, None] * right_BF[own_R]

    _, left_gradient_CRF = jax.lax.scan(chunk, None, (left_CRF, own_CR, saved))
    zeros = (jnp.zeros_like(x) for x in (right_BF, target_BE))
    return jnp.zeros_like(margin), _unchunked(left_gradient_CRF), *zeros


cross_entropy.defvjp(_forward, _backward)

"""A batch in groups of rows, whose sums come out the same, bit for bit, on whatever number of devices holds them.

A sum of floating-point numbers depends on its order, and Adam makes full steps of gradients' last bits where gradients
are almost zero. So each group's gradient is taken by itself, by the same operations on the same shapes wherever the
group lies, and the groups' are added as one binary tree: by twos within a device, and on by twos over the devices.
"""

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Shaped


def by_groups(rows: Callable[[Any], Any], parts: Any, groups: int) -> Any:
    """rows(parts), a group after the other.

    parts: a pytree of arrays [R, ...]. rows: gives one of arrays [r, ...] of any r of them. groups: a power of two.

    The gradient of what `rows` closes over is the tree's sum of the groups': backwards, JAX adds what the turns of a
    scan give, here two.
    """
    if groups == 1:
        return rows(parts)

    def half(carry: None, part: Any) -> tuple[None, Any]:
        # Without the barriers the compiler simplifies a group by what it knows of constants around it.
        return carry, barrier(by_groups(rows, barrier(part), groups // 2))

    barrier = jax.lax.optimization_barrier
    halves = jax.tree.map(lambda x: x.reshape(2, len(x) // 2, *x.shape[1:]), parts)
    _, out = jax.lax.scan(half, None, halves)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), out)


def total(share: Any, axis: str) -> Any:
    """The sum of all devices' shares, pytrees of one shape, under `shard_map` over `axis`; each device sums a part.

    Added by twos as far as it goes, whatever is left one after the other. One device does as several do, since the
    compiler rounds what follows differently where it sees another operation before it.
    """
    if not axis:
        return share
    flat_P, back = ravel_pytree(share)
    devices = jax.lax.axis_size(axis)
    apart = jnp.pad(flat_P, (0, -len(flat_P) % devices)).reshape(devices, -1)
    of_all = list(jax.lax.all_to_all(apart, axis, split_axis=0, concat_axis=0))
    while len(of_all) % 2 == 0:
        of_all = [one + other for one, other in zip(of_all[::2], of_all[1::2], strict=True)]
    return back(gathered(reduce(operator.add, of_all), axis)[: len(flat_P)])


def gathered(x: Shaped[Array, "R ..."], axis: str) -> Shaped[Array, "rows ..."]:
    """The rows of all devices, under `shard_map` over `axis`."""
    return jax.lax.all_gather(x, axis, tiled=True) if axis else x


def same_order(groups: int, devices: int) -> bool:
    """Whether so many devices give the bits that any other such number of devices gives.

    Each needs 2, 4, 8, ... groups: of a single one the compiler makes no loop, and so rounds it differently.
    """
    share, beyond = divmod(groups, devices)
    return not beyond and share > 1 and share & (share - 1) == 0

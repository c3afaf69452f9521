"""Puts an array on the local devices slab by slab, as tiles of unit vectors, split among devices or copied to each."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, Shaped

from c2c_jax.spaces.models.layers import unit


@functools.cache
def _mesh() -> Mesh:
    return Mesh(np.asarray(jax.local_devices()), ("data",))


def device_count() -> int:
    return len(_mesh().devices)


class Slab(NamedTuple):
    """Some rows of an array as unit vectors in tiles, padded with zeros."""

    rows: slice
    tiles_TBE: Float[Array, "T B E"]

    @property
    def sizes_T(self) -> Int[np.ndarray, "T"]:
        """Number of vectors in each tile, without padding."""
        T, B, _ = self.tiles_TBE.shape
        return np.clip(self.rows.stop - self.rows.start - B * np.arange(T), 0, B).astype(np.int32)

    def tiled(self, values_N: Float[np.ndarray, "N"]) -> Float[np.ndarray, "T B"]:
        T, B, _ = self.tiles_TBE.shape
        return np.pad(values_N, (0, T * B - len(values_N))).reshape(T, B)

    def flat(self, values_TB: Shaped[Array, "T B ..."]) -> Shaped[np.ndarray, "N ..."]:
        T, B, *rest = values_TB.shape
        return np.asarray(values_TB).reshape(T * B, *rest)[: self.rows.stop - self.rows.start]


def slabs(
    vectors_NE: Shaped[np.ndarray, "N E"], tile: int, step: int, dtype: Any = jnp.float32, *, is_spread: bool = False
) -> Iterator[Slab]:
    """Yields an array, `step` rows at a time. is_spread: whether the tiles are split evenly among the devices;
    otherwise each device has all of them. Wait for the results of a slab before taking the next one: otherwise all
    slabs end up on the devices."""
    multiple = tile * (device_count() if is_spread else 1)
    for start in range(0, len(vectors_NE), step):
        part_NE = np.asarray(vectors_NE[start : start + step])
        padded_NE = np.zeros((-(-len(part_NE) // multiple) * multiple, part_NE.shape[1]), part_NE.dtype)
        padded_NE[: len(part_NE)] = part_NE
        tiles_TBE = put(padded_NE.reshape(-1, tile, part_NE.shape[1]), is_spread)
        yield Slab(slice(start, start + len(part_NE)), _unit(tiles_TBE, dtype))


def put(arrays: Any, is_spread: bool) -> Any:
    return jax.device_put(arrays, NamedSharding(_mesh(), P("data") if is_spread else P()))


@functools.partial(jax.jit, static_argnums=1)
def _unit(vectors_TBE: Shaped[Array, "T B E"], dtype: Any) -> Float[Array, "T B E"]:
    return unit(vectors_TBE.astype(jnp.float32)).astype(dtype)


def over_queries(function: Callable[..., Any], are_spread: str, *arguments: Any) -> Any:
    """Runs a function on each device, on its share of the arguments marked "q" in `are_spread` and on all of those
    marked "c". The devices do not exchange data."""
    specs = tuple(P("data") if mark == "q" else P() for mark in are_spread)
    return jax.shard_map(function, mesh=_mesh(), in_specs=specs, out_specs=P("data"), check_vma=False)(*arguments)

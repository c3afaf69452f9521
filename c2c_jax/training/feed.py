"""Where a step's rows come from: a store that lies on the devices, or one read from disk through grain.

Either way the training rows are one endless stream, shuffled anew for every epoch, of which step i takes rows i·B to
(i+1)·B: an epoch shows every row exactly once, and a step that does not come out even takes its last rows from the next
epoch. The stream is a function of seed and place alone, so that a run may be taken up at any step.
"""

import functools
import math
from collections.abc import Iterator
from typing import Any

import grain
import jax
import numpy as np
import psutil
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, Int

from c2c_jax.data.store import SIDES, Store
from c2c_jax.training.step import own_share, put_rows

FEEDS = ("auto", "resident", "streamed")
RESIDENT_SHARE = 0.5  # of the devices' free memory that a resident store may take
WINDOW_ROWS = 65_536  # rows shuffled together when a store is streamed
BLOCK_ROWS, BLOCK_BYTES = 2**20, 2**26  # most of one dispatch: rows of a resident store, bytes of a streamed one
MOST_STEPS = 1000  # of one dispatch

_ROWS, _CHUNKS, _WINDOW = 1, 2, 3  # apart from each other, and from the held-out rows' 0, in a seed


class Resident:
    """The store's vectors on every device; a dispatch is given the numbers of its rows."""

    def __init__(self, store: Store, training: Int[np.ndarray, "N"], batch_size: int, seed: int, mesh: Mesh):
        self.training, self.batch_size, self.seed, self.mesh = training, batch_size, seed, mesh
        self.most = max(min(BLOCK_ROWS // batch_size, MOST_STEPS), 1)
        self.table = tuple(_replicated(store.read(side), mesh) for side in SIDES)
        self.shuffled = functools.lru_cache(2)(self._shuffled)

    def __str__(self) -> str:
        return f"resident on the devices ({_size(sum(x.nbytes for x in self.table))})"

    @staticmethod
    def batch(table: Any, rows_B: Any) -> tuple[jax.Array, jax.Array]:
        """The source and target vectors of a step; see `step.jit_steps`."""
        source_NS, target_NE = table
        return source_NS[rows_B], target_NE[rows_B]

    def block(self, step: int, count: int) -> jax.Array:
        """The rows' numbers [most, B] of steps `step` to `step + count`; those of later steps are not filled in."""
        rows_MB = np.zeros((self.most, self.batch_size), np.int32)
        rows_MB[:count] = self.rows(step * self.batch_size, count * self.batch_size).reshape(count, -1)
        return put_rows(rows_MB[:, own_share(self.batch_size)], self.batch_size, self.mesh, axis=1)

    def rows(self, start: int, count: int) -> Int[np.ndarray, "count"]:
        """The numbers of the stream's rows `start` to `start + count`."""
        parts, N = [], len(self.training)
        while count:
            epoch, place = divmod(start, N)
            parts.append(self.shuffled(epoch)[place : place + count])
            start, count = start + len(parts[-1]), count - len(parts[-1])
        return np.concatenate(parts)

    def _shuffled(self, epoch: int) -> Int[np.ndarray, "N"]:
        return np.random.default_rng((self.seed, _ROWS, epoch)).permutation(self.training)


class Windows:
    """The stream of a store on disk, as a source for grain: every window holds the training rows of some chunks, drawn
    at random and shuffled together. A window's chunks are checked as they are read."""

    def __init__(self, store: Store, training: Int[np.ndarray, "N"], seed: int, epochs: int):
        self.store, self.seed, self.epochs = store, seed, epochs
        self.is_training = np.zeros(store.plan.rows, bool)
        self.is_training[training] = True
        self.rows_of_chunk = np.bincount(training // store.plan.chunk_rows, minlength=store.plan.chunks)
        self.chunks = max(WINDOW_ROWS // store.plan.chunk_rows, 1)
        self.per_epoch = -(-store.plan.chunks // self.chunks)

    def __len__(self) -> int:
        return self.epochs * self.per_epoch

    def drawn(self, epoch: int) -> Int[np.ndarray, "C"]:
        """The chunks in the order of an epoch."""
        return np.random.default_rng((self.seed, _CHUNKS, epoch)).permutation(self.store.plan.chunks)

    def __getitem__(self, number: int) -> tuple[np.ndarray, ...]:
        """The source and target vectors of a window."""
        epoch, window = divmod(number, self.per_epoch)
        chunks = self.drawn(epoch)[window * self.chunks : (window + 1) * self.chunks].tolist()
        kept = [self.is_training[self.store.plan.rows_of(chunk)] for chunk in chunks]
        order = np.random.default_rng((self.seed, _WINDOW, epoch, window)).permutation(sum(map(np.sum, kept)))
        return tuple(
            np.concatenate([self.store.read_chunk(side, c)[k] for c, k in zip(chunks, kept, strict=True)])[order]
            for side in SIDES
        )

    def place(self, start: int) -> tuple[int, int]:
        """(window, row of it) of the stream's row `start`."""
        epoch, row = divmod(start, int(self.rows_of_chunk.sum()))
        ends = np.add.accumulate(self.rows_of_chunk[self.drawn(epoch)])
        firsts = np.concatenate([[0], ends[self.chunks - 1 :: self.chunks]])
        window = int(np.searchsorted(firsts, row, side="right")) - 1
        return epoch * self.per_epoch + window, row - int(firsts[window])


class Streamed:
    """The store read window by window ahead of the devices; a dispatch is given its vectors.

    With several hosts each reads the whole store and keeps its own rows of every batch.
    """

    table = ()

    def __init__(
        self, store: Store, training: Int[np.ndarray, "N"], batch_size: int, seed: int, mesh: Mesh, epochs: int
    ):
        self.batch_size, self.mesh = batch_size, mesh
        dims, itemsize = store.plan.source.dim + store.plan.target.dim, np.dtype(store.plan.dtype).itemsize
        self.bytes = store.plan.rows * dims * itemsize
        self.most = max(min(BLOCK_BYTES // (batch_size * dims * itemsize), MOST_STEPS), 1)
        self.windows = Windows(store, training, seed, epochs)
        self.left: list[tuple[np.ndarray, ...]] = []  # what a step before has left of its window
        self.step: int | None = None

    def __str__(self) -> str:
        return f"streamed from disk ({_size(self.bytes)}), {WINDOW_ROWS:,} rows shuffled together"

    @staticmethod
    def batch(table: Any, vectors: Any) -> tuple[jax.Array, jax.Array]:
        """The source and target vectors of a step; see `step.jit_steps`."""
        return vectors

    def block(self, step: int, count: int) -> tuple[jax.Array, ...]:
        """The vectors [most, B, E] of steps `step` to `step + count`; those of later steps are not filled in.

        Raises StoreError for a chunk that is damaged.
        """
        if step != self.step:
            self._open(step * self.batch_size)
        self.step = step + count
        taken = self._take(count * self.batch_size)
        own = own_share(self.batch_size)
        sides = []
        for vectors in taken:
            block = np.zeros((self.most, own.stop - own.start, vectors.shape[1]), vectors.dtype)
            block[:count] = vectors.reshape(count, self.batch_size, -1)[:, own]
            sides.append(put_rows(block, self.batch_size, self.mesh, axis=1))
        return tuple(sides)

    def _open(self, start: int) -> None:
        window, row = self.windows.place(start)
        options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)
        self.reading: Iterator = iter(grain.MapDataset.source(self.windows)[window:].to_iter_dataset(options))
        self.left = [tuple(side[row:] for side in next(self.reading))]

    def _take(self, count: int) -> tuple[np.ndarray, ...]:
        while (have := sum(len(source) for source, _ in self.left)) < count:
            self.left.append(next(self.reading))
        source, target = (np.concatenate(parts) for parts in zip(*self.left, strict=True))
        self.left = [(source[count:], target[count:])] if have > count else []
        return source[:count], target[:count]


Feed = Resident | Streamed


def choose_feed(kind: str, store: Store) -> str:
    """ "resident" or "streamed", as a config asks for; for "auto" the first where the store takes no more than half of
    the memory that is free on each device."""
    if kind != "auto":
        return kind
    dims = store.plan.source.dim + store.plan.target.dim
    size = store.plan.rows * dims * np.dtype(store.plan.dtype).itemsize
    fits = size <= RESIDENT_SHARE * min(map(free_memory, jax.local_devices()))
    everywhere = np.all(multihost_utils.process_allgather(np.asarray(fits)))
    return "resident" if everywhere else "streamed"


def open_feed(
    kind: str, store: Store, training: Int[np.ndarray, "N"], batch_size: int, seed: int, mesh: Mesh, epochs: int
) -> Feed:
    """The feed of that kind, see `choose_feed`."""
    if kind == "resident":
        return Resident(store, training, batch_size, seed, mesh)
    return Streamed(store, training, batch_size, seed, mesh, epochs)


def free_memory(device: jax.Device) -> float:
    """Bytes free on a device; of a CPU, its share of the machine's."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return psutil.virtual_memory().available / jax.local_device_count()


def held_out_vectors(
    store: Store, rows: Int[np.ndarray, "N"]
) -> tuple[Float[np.ndarray, "N S"], Float[np.ndarray, "N E"]]:
    """The source and target vectors of some rows, in float32. Raises StoreError for a damaged chunk."""
    source, target = (store.read_rows(side, rows).astype(np.float32) for side in SIDES)
    return source, target


def split(rows: int, holdout: int, seed: int) -> tuple[Int[np.ndarray, "H"], Int[np.ndarray, "N"]]:
    """(held-out rows, training rows), each sorted; a function of its arguments alone."""
    order = np.random.default_rng((seed, 0)).permutation(rows)
    return np.sort(order[:holdout]), np.sort(order[holdout:])


def _replicated(x: np.ndarray, mesh: Mesh) -> jax.Array:
    return jax.make_array_from_callback(x.shape, NamedSharding(mesh, PartitionSpec()), lambda index: x[index])


def _size(count: int) -> str:
    power = min(int(math.log2(max(count, 1)) // 10), 4)
    return f"{count / 1024**power:,.1f} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"

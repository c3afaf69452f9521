"""Loads the batches of training steps: from a store kept on the devices, or streamed from disk through grain.

Both loaders treat the training rows as one endless stream that is shuffled anew every epoch. Step i takes the rows i·B
to (i+1)·B of it, so that a batch may span two epochs. The stream depends on the seed,
the kind of loader and the chunks of the store, but not on earlier steps, so that a run can resume at any step.

`loader.batches(step, count)` prepares the next `count` steps on the host; inside the compiled call,
`loader.gather(loader.table, batch)` gives each step its vectors.
"""

import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import psutil
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, Int

from c2c_jax.config import Config
from c2c_jax.data.store import SIDES, Store
from c2c_jax.io.console import unchanged_root_logger
from c2c_jax.training.step import process_rows, shard_rows

with unchanged_root_logger():
    import grain

RESIDENT_FRACTION = 0.5  # maximum fraction of the devices' free memory that a resident store takes
WINDOW_ROWS = 65_536  # rows that are shuffled together when a store is streamed
CALL_BYTES = 2**28  # maximum size of the vectors that one call gets from a streamed store

# Appended to a run's seed, so that different uses of it draw different random numbers.
SPLIT_SEED, ROWS_SEED, CHUNKS_SEED, WINDOW_SEED = 0, 1, 2, 3


class ResidentLoader:
    """Keeps the store's vectors on every device and gives each step the indices of its rows.

    max_steps: of a call.
    """

    def __init__(
        self, store: Store, training: Int[np.ndarray, "N"], batch_size: int, max_steps: int, seed: int, mesh: Mesh
    ):
        self.training, self.batch_size, self.max_steps = training, batch_size, max_steps
        self.seed, self.mesh = seed, mesh
        self.table = tuple(_replicated(store.read(side), mesh) for side in SIDES)
        self.shuffled = functools.lru_cache(2)(self._shuffled)  # a batch may span two epochs

    def __str__(self) -> str:
        return f"resident on the devices ({_size(sum(x.nbytes for x in self.table))})"

    @staticmethod
    def gather(table: Any, rows_B: Any) -> tuple[jax.Array, jax.Array]:
        """The source and target vectors of a step, looked up by row; see `step.jit_steps`."""
        source_NS, target_NE = table
        return source_NS[rows_B], target_NE[rows_B]

    def batches(self, step: int, count: int) -> jax.Array:
        """The row indices [K, B] of the `count` steps from `step` on; those of unused steps are 0."""
        rows_KB = np.zeros((self.max_steps, self.batch_size), np.int32)
        rows_KB[:count] = self.stream_rows(step * self.batch_size, count * self.batch_size).reshape(count, -1)
        return shard_rows(rows_KB[:, process_rows(self.batch_size)], self.batch_size, self.mesh, axis=1)

    def stream_rows(self, start: int, count: int) -> Int[np.ndarray, "count"]:
        """The store's indices of the stream's rows `start` to `start + count`."""
        parts, N = [], len(self.training)
        while count:
            epoch, first = divmod(start, N)
            parts.append(self.shuffled(epoch)[first : first + count])
            start, count = start + len(parts[-1]), count - len(parts[-1])
        return np.concatenate(parts)

    def _shuffled(self, epoch: int) -> Int[np.ndarray, "N"]:
        return np.random.default_rng((self.seed, ROWS_SEED, epoch)).permutation(self.training)


class WindowSource:
    """The training rows of a store on disk as a source for grain, window by window.

    A window holds the training rows of several chunks, which are drawn at random and shuffled together. Chunks are
    verified when they are read.
    """

    def __init__(self, store: Store, training: Int[np.ndarray, "N"], seed: int, epochs: int):
        self.store, self.seed, self.epochs = store, seed, epochs
        self.is_training = np.zeros(store.plan.rows, bool)
        self.is_training[training] = True
        self.rows_of_chunk = np.bincount(training // store.plan.chunk_rows, minlength=store.plan.chunks)
        self.chunks_per_window = max(WINDOW_ROWS // store.plan.chunk_rows, 1)
        self.windows_per_epoch = -(-store.plan.chunks // self.chunks_per_window)

    def __len__(self) -> int:
        return self.epochs * self.windows_per_epoch

    def chunk_order(self, epoch: int) -> Int[np.ndarray, "C"]:
        """All chunks in the random order of an epoch."""
        return np.random.default_rng((self.seed, CHUNKS_SEED, epoch)).permutation(self.store.plan.chunks)

    def __getitem__(self, number: int) -> tuple[np.ndarray, ...]:
        """The source and target vectors of a window."""
        epoch, window = divmod(number, self.windows_per_epoch)
        chunks = self.chunk_order(epoch)[window * self.chunks_per_window :][: self.chunks_per_window].tolist()
        kept = [self.is_training[self.store.plan.rows_of(chunk)] for chunk in chunks]
        order = np.random.default_rng((self.seed, WINDOW_SEED, epoch, window)).permutation(sum(map(np.sum, kept)))
        return tuple(
            np.concatenate([self.store.read_chunk(side, c)[k] for c, k in zip(chunks, kept, strict=True)])[order]
            for side in SIDES
        )

    def locate(self, start: int) -> tuple[int, int]:
        """(window, row within it) of the stream's row `start`."""
        epoch, row = divmod(start, int(self.rows_of_chunk.sum()))
        # Rows of the stream at which each chunk ends and each window begins.
        ends = np.add.accumulate(self.rows_of_chunk[self.chunk_order(epoch)])
        firsts = np.concatenate([[0], ends[self.chunks_per_window - 1 :: self.chunks_per_window]])
        window = int(np.searchsorted(firsts, row, side="right")) - 1
        return epoch * self.windows_per_epoch + window, row - int(firsts[window])


class StreamingLoader:
    """Reads the store window by window, ahead of the devices, and gives each step its vectors.

    Every host reads the whole store and keeps its own rows of each batch. max_steps: of a call; fewer
    if their vectors exceed CALL_BYTES. epochs: maximum length of the stream.
    """

    table = ()

    def __init__(
        self,
        store: Store,
        training: Int[np.ndarray, "N"],
        batch_size: int,
        max_steps: int,
        seed: int,
        mesh: Mesh,
        epochs: int,
    ):
        self.bytes = _bytes(store)
        fitting = CALL_BYTES * store.plan.rows // (self.bytes * batch_size)
        self.batch_size, self.max_steps, self.mesh = batch_size, max(min(max_steps, fitting), 1), mesh
        self.windows = WindowSource(store, training, seed, epochs)
        self.leftover: list[tuple[np.ndarray, ...]] = []  # rows that are read and not yet used
        self.next_step: int | None = None

    def __str__(self) -> str:
        return f"streamed from disk ({_size(self.bytes)}), shuffle window of {WINDOW_ROWS:,} rows"

    @staticmethod
    def gather(table: Any, vectors: Any) -> tuple[jax.Array, jax.Array]:
        """The source and target vectors of a step, as `batches` loaded them; see `step.jit_steps`."""
        return vectors

    def batches(self, step: int, count: int) -> tuple[jax.Array, ...]:
        """The vectors [K, B, ...] of the `count` steps from `step` on; those of unused steps are 0. Raises StoreError
        for a damaged chunk."""
        if step != self.next_step:
            self._open(step * self.batch_size)
        self.next_step = step + count
        local = process_rows(self.batch_size)
        sides = []
        for vectors in self._next_rows(count * self.batch_size):
            batches = np.zeros((self.max_steps, local.stop - local.start, vectors.shape[1]), vectors.dtype)
            batches[:count] = vectors.reshape(count, self.batch_size, -1)[:, local]
            sides.append(shard_rows(batches, self.batch_size, self.mesh, axis=1))
        return tuple(sides)

    def _open(self, start: int) -> None:
        window, row = self.windows.locate(start)
        options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)
        self.reading: Iterator = iter(grain.MapDataset.source(self.windows)[window:].to_iter_dataset(options))
        self.leftover = [tuple(side[row:] for side in next(self.reading))]

    def _next_rows(self, count: int) -> tuple[np.ndarray, ...]:
        while (available := sum(len(source) for source, _ in self.leftover)) < count:
            self.leftover.append(next(self.reading))
        source, target = (np.concatenate(parts) for parts in zip(*self.leftover, strict=True))
        self.leftover = [(source[count:], target[count:])] if available > count else []
        return source[:count], target[:count]


def choose_loader(kind: str, store: Store) -> str:
    """Resolves a config's loader to "resident" or "streamed". "auto" is resident if the store fits into half of the
    free memory of every device."""
    if kind != "auto":
        return kind
    fits = _bytes(store) <= RESIDENT_FRACTION * min(map(free_memory, jax.local_devices()))
    everywhere = np.all(multihost_utils.process_allgather(np.asarray(fits)))
    return "resident" if everywhere else "streamed"


def open_loader(
    kind: str, config: Config, store: Store, training: Int[np.ndarray, "N"], mesh: Mesh, epochs: int
) -> ResidentLoader | StreamingLoader:
    """Opens the loader of a kind from `choose_loader` for the training rows. epochs: maximum length of the stream."""
    arguments = (store, training, config.batch_size, config.steps_per_call, config.seed, mesh)
    return ResidentLoader(*arguments) if kind == "resident" else StreamingLoader(*arguments, epochs)


def free_memory(device: jax.Device) -> float:
    """Free bytes of a device. CPU devices divide the machine's free memory evenly."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return psutil.virtual_memory().available / jax.local_device_count()


def read_vectors(store: Store, rows: Int[np.ndarray, "N"]) -> tuple[Float[np.ndarray, "N S"], Float[np.ndarray, "N E"]]:
    """Reads the source and target vectors of some rows, float32. Raises StoreError for a damaged chunk."""
    source, target = (store.read_rows(side, rows).astype(np.float32) for side in SIDES)
    return source, target


def split_rows(rows: int, validation_size: int, seed: int) -> tuple[Int[np.ndarray, "V"], Int[np.ndarray, "N"]]:
    """Splits a store into (validation rows, training rows), both sorted. The split depends on the arguments alone."""
    order = np.random.default_rng((seed, SPLIT_SEED)).permutation(rows)
    return np.sort(order[:validation_size]), np.sort(order[validation_size:])


def _replicated(x: np.ndarray, mesh: Mesh) -> jax.Array:
    return jax.make_array_from_callback(x.shape, NamedSharding(mesh, PartitionSpec()), lambda index: x[index])


def _bytes(store: Store) -> int:
    dims = store.plan.source.dim + store.plan.target.dim
    return store.plan.rows * dims * np.dtype(store.plan.dtype).itemsize


def _size(count: int) -> str:
    power = min(int(math.log2(max(count, 1)) // 10), 4)
    return f"{count / 1024**power:,.1f} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"

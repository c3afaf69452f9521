"""Draws images and sounds of scenes in several processes. Imports little, because every process imports it."""

import functools
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from PIL import Image

from c2c_jax.miniworld.pairs import audio_at, image_at

AT_ONCE = 96  # scenes that a process draws in one task
AHEAD = 1440  # scenes in memory at a time: 0.25 GB

Part = tuple[list[Image.Image], list[np.ndarray]]


def drawn(split: str, count: int, seed: int, processes: int) -> Iterator[Part]:
    """Yields images and sounds of the first `count` scenes of a split, in parts and in order."""
    of_rows = functools.partial(_drawn, split, seed)
    if processes == 1:
        yield from map(of_rows, _parts(0, count))
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        for start in range(0, count, AHEAD):
            yield from pool.map(of_rows, _parts(start, min(start + AHEAD, count)))


def _parts(start: int, stop: int) -> list[range]:
    return [range(first, min(first + AT_ONCE, stop)) for first in range(start, stop, AT_ONCE)]


def _drawn(split: str, seed: int, rows: range) -> Part:
    return [image_at(split, row, seed) for row in rows], [audio_at(split, row, seed) for row in rows]

"""Generates the images or sounds of many scenes in parallel, and caches them in a file."""

import contextlib
import dataclasses
import functools
import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from rich.progress import track

from c2c_jax.io.atomic import atomic_write
from c2c_jax.miniworld.world import Scene, scene_at

BATCH = 256  # scenes per task of a process


@dataclasses.dataclass(frozen=True, kw_only=True)
class SceneViews:
    """Scenes with one view each, such as the pixels of an image or the mels of a sound."""

    scenes: Sequence[Scene]
    views: Shaped[np.ndarray, "N ..."]

    @functools.cached_property
    def cells(self) -> np.ndarray:
        return np.asarray([scene.cell for scene in self.scenes])


# (split, index, seed) → the view of that scene. Must be picklable.
View = Callable[[str, int, int], np.ndarray]


def scene_views(folder: Path, name: str, view: View, split: str, count: int, seed: int, processes: int) -> SceneViews:
    """Returns the first `count` scenes of a split with their views, which are generated once and cached in `folder`."""
    path = folder / f"{name}-{split}-{count}-{seed}.npy"
    if not path.is_file():
        parts = [(split, range(start, min(start + BATCH, count)), seed) for start in range(0, count, BATCH)]
        make = functools.partial(_views, view)
        with contextlib.ExitStack() as stack:
            view_parts: Iterable[np.ndarray] = map(make, parts)
            if processes > 1:
                pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"))
                view_parts = stack.enter_context(pool).map(make, parts)
            views = np.concatenate(list(track(view_parts, f"{name}, {split}", len(parts), transient=True)))
        with atomic_write(path) as temp, open(temp, "wb") as file:
            np.save(file, views)
    scenes = [scene_at(split, index, seed)[0] for index in range(count)]
    return SceneViews(scenes=scenes, views=np.load(path, mmap_mode="r"))


def _views(view: View, part: tuple[str, range, int]) -> np.ndarray:
    split, indices, seed = part
    return np.stack([view(split, index, seed) for index in indices])

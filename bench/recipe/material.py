"""Vectors of the mini world's scenes and captions in two spaces, computed once and cached."""

import dataclasses
import functools
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from rich.progress import Progress

from bench.recipe.drawing import drawn
from c2c_jax.errors import CheckpointError
from c2c_jax.io.atomic import atomic_write
from c2c_jax.miniworld.captions import captioned_scenes
from c2c_jax.miniworld.event import SAMPLE_RATE
from c2c_jax.miniworld.pairs import caption_at
from c2c_jax.miniworld.world import scene_at
from c2c_jax.spaces.space import Space, identify, load_space
from c2c_jax.spaces.space_id import SpaceId


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Scenes:
    """Raw vectors and cells of N scenes: in the source space the image and a caption in the style of images, in the
    target space the sound and a caption in the style of sounds."""

    image_NS: Float[np.ndarray, "N S"]
    image_caption_NS: Float[np.ndarray, "N S"]
    audio_NE: Float[np.ndarray, "N E"]
    sound_caption_NE: Float[np.ndarray, "N E"]
    cells_N: Int[np.ndarray, "N"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Captions:
    """Raw vectors of M captions in both spaces, in all styles, of other scenes, and their cells."""

    source_MS: Float[np.ndarray, "M S"]
    target_ME: Float[np.ndarray, "M E"]
    cells_M: Int[np.ndarray, "M"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Draw:
    """One drawing of a split: its scenes and its captions."""

    scenes: Scenes
    captions: Captions


class Material:
    """Vectors of the mini world in two spaces, cached in `folder` by the fingerprints of the spaces. The towers are
    loaded only if vectors are missing. processes: number that draw scenes. Raises CheckpointError."""

    def __init__(self, clip: str, clap: str, folder: Path, processes: int, bar: Progress):
        self.names = clip, clap
        self.ids: tuple[SpaceId, SpaceId] = identify(clip), identify(clap)
        self.stamp = "-".join(space.fingerprint[:12] for space in self.ids)
        self.folder, self.processes, self.bar = folder, processes, bar

    @functools.cached_property
    def clip(self) -> Space:
        return load_space(self.names[0])

    @functools.cached_property
    def clap(self) -> Space:
        space = load_space(self.names[1])
        if (rate := space.require_audio_preprocessor().sample_rate) != SAMPLE_RATE:
            raise CheckpointError(f"{space.name} needs sounds at {rate} Hz; the mini world has {SAMPLE_RATE} Hz")
        return space

    def scenes(self, split: str, seed: int, count: int) -> Scenes:
        """Drawing number `seed` of a split."""
        return Scenes(**self._cached(f"scene-vectors-{split}-{seed}-{count}", lambda: self._scenes(split, seed, count)))

    def captions(self, split: str, seed: int, count: int, known: Collection[str]) -> Captions:
        """Distinct captions of a split that are not in the training set. known: the training captions."""
        texts = [text for _, _, text in captioned_scenes(split, count, seed)]
        vectors = self._cached(f"captions-{split}-{seed}-{count}", lambda: self._captions(split, seed, count, texts))
        previous, rows = set(known), []
        for row, text in enumerate(texts):
            if text not in previous:
                rows.append(row)
            previous.add(text)
        return Captions(**{name: values[rows] for name, values in vectors.items()})

    def _cached(self, name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        path = self.folder / f"{name}-{self.stamp}.npz"
        if not path.is_file():
            vectors = make()
            with atomic_write(path) as temp:
                np.savez(temp, **vectors)  # type: ignore[arg-type]
        with np.load(path) as arrays:
            return dict(arrays)

    def _scenes(self, split: str, seed: int, count: int) -> dict[str, np.ndarray]:
        image_captions, sound_captions = (
            [caption_at(split, row, style, seed) for row in range(count)] for style in ("picture", "sound")
        )
        task = self.bar.add_task(f"scenes of {split}, drawing {seed}", total=count)
        images, audios = [], []
        for images_of_part, audio_of_part in drawn(split, count, seed, self.processes):
            images.append(self.clip.encode_images(images_of_part))
            audios.append(self.clap.encode_audio(audio_of_part))
            self.bar.advance(task, len(images_of_part))
        self.bar.remove_task(task)
        return {
            "image_NS": np.concatenate(images),
            "image_caption_NS": self.clip.encode_text(image_captions),
            "audio_NE": np.concatenate(audios),
            "sound_caption_NE": self.clap.encode_text(sound_captions),
            "cells_N": np.asarray([scene_at(split, row, seed)[0].cell for row in range(count)]),
        }

    def _captions(self, split: str, seed: int, count: int, texts: list[str]) -> dict[str, np.ndarray]:
        return {
            "source_MS": self.clip.encode_text(texts),
            "target_ME": self.clap.encode_text(texts),
            "cells_M": np.asarray([scene.cell for scene, _, _ in captioned_scenes(split, count, seed)]),
        }

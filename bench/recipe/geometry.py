"""Gives the mini world's vectors the geometry of real CLIP and CLAP: large modality means, images far from captions.

In a real space the mean of its modality makes up most of a unit vector, and once the means are subtracted an image has
little in common with its caption. The mini world's own vectors have small means and images near their captions.
"""

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from bench.recipe.material import Captions, Scenes
from c2c_jax.data.arrays import space_of_array, store_of_arrays
from c2c_jax.data.store import Store
from c2c_jax.errors import ConfigError
from c2c_jax.io.vectors import unit_rows
from c2c_jax.spaces.space_id import SpaceId

DIM = 512  # of CLIP ViT-B/32 and of LAION CLAP
SEED = 2028  # of the maps, the directions of the means, and the noise


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """Geometry of the unit vectors of one space.

    text_mean, media_mean: lengths of the means of texts, and of images or sounds. mean_cosine: between the two means.
    pair_cosine: mean cosine of an image or sound and its caption, both centred.
    """

    text_mean: float
    media_mean: float
    mean_cosine: float
    pair_cosine: float


CLIP = Shape(text_mean=0.71, media_mean=0.74, mean_cosine=0.3, pair_cosine=0.32)  # ViT-B/32 on Flickr8k
CLAP = Shape(text_mean=0.45, media_mean=0.38, mean_cosine=-0.25, pair_cosine=0.51)  # LAION CLAP on AudioCaps


class Reshaped:
    """Maps the vectors of one space to DIM dimensions and to a shape. "Media" are images or sounds.

    Vectors are centred by the mean of their modality and mapped to DIM dimensions by a random orthonormal matrix.
    Isotropic noise is added to media until their cosine to their captions is that of the shape. Then every vector gets
    the new mean of its modality: unit(m + √(1 − |m|²) û). text_NS: texts, whose mean centres all texts; media_PS,
    own_PS: media, whose mean centres all media, and a caption of each.

    Raises ConfigError if media are farther from their captions than the shape says, which noise cannot change.
    """

    def __init__(
        self,
        shape: Shape,
        text_NS: Float[np.ndarray, "N S"],
        media_PS: Float[np.ndarray, "P S"],
        own_PS: Float[np.ndarray, "P S"],
        seed: int,
    ):
        self.seed = seed
        self.text_S, self.media_S = unit_rows(text_NS).mean(axis=0), unit_rows(media_PS).mean(axis=0)
        rng = np.random.default_rng((SEED, seed))
        self.map_SD = np.linalg.qr(rng.normal(size=(DIM, text_NS.shape[1])))[0].T
        first_D, second_D = np.linalg.qr(rng.normal(size=(DIM, 2)))[0].T
        sine = math.sqrt(1 - shape.mean_cosine**2)
        self.new_text_D = shape.text_mean * first_D
        self.new_media_D = shape.media_mean * (shape.mean_cosine * first_D + sine * second_D)
        natural = np.sum(_centred(media_PS, self.media_S) * _centred(own_PS, self.text_S), axis=1).mean()
        if natural < shape.pair_cosine:
            raise ConfigError(
                f"--geometry clip adds noise until the centred cosine of a pair is {shape.pair_cosine}; here it is "
                f"{natural:.3f} without any"
            )
        self.noise_cosine = shape.pair_cosine / natural  # cosine of media to themselves without the noise

    def texts(self, x_NS: Float[np.ndarray, "N S"]) -> Float[np.ndarray, "N D"]:
        return _around(self.new_text_D, _centred(x_NS, self.text_S) @ self.map_SD)

    def media(self, x_NS: Float[np.ndarray, "N S"], *drawing: int) -> Float[np.ndarray, "N D"]:
        """Maps images or sounds. drawing: numbers that seed the noise."""
        u_ND = _centred(x_NS, self.media_S) @ self.map_SD
        rng = np.random.default_rng((SEED, self.seed, *drawing))
        noise_ND = unit_rows(rng.normal(size=u_ND.shape))
        return _around(self.new_media_D, self.noise_cosine * u_ND + math.sqrt(1 - self.noise_cosine**2) * noise_ND)


class RealGeometry:
    """CLIP's geometry for the source space and CLAP's for the target space.

    store, pairs: natural vectors of captions and of the training split's scenes, whose means are subtracted. Raises
    ConfigError for pairs that are too far from each other; see `Reshaped`.
    """

    def __init__(self, store: Store, pairs: Scenes):
        self.source = Reshaped(CLIP, store.read("source"), pairs.image_NS, pairs.image_caption_NS, 0)
        self.target = Reshaped(CLAP, store.read("target"), pairs.audio_NE, pairs.sound_caption_NE, 1)

    def store(self, store: Store, folder: Path) -> Store:
        """The captions of a store with new vectors, kept in a folder."""
        source_ND, target_ND = self.source.texts(store.read("source")), self.target.texts(store.read("target"))
        ids = space_of_array("source", source_ND), space_of_array("target", target_ND)
        path = folder / f"store-clip-{'-'.join(space.fingerprint[:12] for space in ids)}"
        return store_of_arrays(path, source_ND, target_ND, ids)

    def scenes(self, scenes: Scenes, *drawing: int) -> Scenes:
        return Scenes(
            image_NS=self.source.media(scenes.image_NS, *drawing),
            image_caption_NS=self.source.texts(scenes.image_caption_NS),
            audio_NE=self.target.media(scenes.audio_NE, *drawing),
            sound_caption_NE=self.target.texts(scenes.sound_caption_NE),
            cells_N=scenes.cells_N,
        )

    def captions(self, captions: Captions) -> Captions:
        return dataclasses.replace(
            captions,
            source_MS=self.source.texts(captions.source_MS),
            target_ME=self.target.texts(captions.target_ME),
        )


def check_spaces(kind: str, spaces: Iterable[SpaceId]) -> None:
    """Raises ConfigError for spaces with more than DIM dimensions, if they need the geometry."""
    for space in spaces:
        if kind == "clip" and space.dim > DIM:
            raise ConfigError(
                f"--geometry clip makes vectors of {DIM} dimensions; those of {space.name} have {space.dim}"
            )


def _centred(x_NS: Float[np.ndarray, "N S"], mean_S: Float[np.ndarray, "S"]) -> Float[np.ndarray, "N S"]:
    return unit_rows(unit_rows(x_NS) - mean_S)


def _around(mean_D: Float[np.ndarray, "D"], u_ND: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """unit(m + √(1 − |m|²) û), float32."""
    return unit_rows(mean_D + math.sqrt(1 - mean_D @ mean_D) * unit_rows(u_ND)).astype(np.float32)

"""Scores translators without image-caption pairs, by held-out captions that are perturbed to stand in for images.

Captions are perturbed until they are as far from other captions as images are.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from c2c_jax.config import PERTURBED_COSINE, PERTURBED_MRR
from c2c_jax.data.store import Store
from c2c_jax.spaces.models.layers import unit
from c2c_jax.training.step import perturb
from c2c_jax.translator.centring import ModalityMeans, centred, image_inputs, shift_to_audio, uncentred
from c2c_jax.translator.memory import Memory

PAIR_COSINE = 0.32  # of an image and its caption, both centred (CLIP ViT-B/32 on Flickr8k, ViT-B/16 on COCO)
GALLERY = 3000  # maximum number of training captions to retrieve from, besides the held-out ones
COMPARED = 8192  # maximum number of training captions that images and perturbed captions are compared with
PERTURBED = 1000  # target number of perturbed captions per kind of noise; few captions are perturbed several times each
HELD_OUT = 2000  # maximum number of captions that are perturbed
IMAGES = 2000  # maximum number of images that are used
SEED = 5  # appended to a run's seed; the loaders use 0 to 3 and the memory 4


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PerturbedCaptions:
    """Perturbed held-out captions that stand in for images.

    pair_cosine: estimated cosine of an image and its caption, both centred; `PAIR_COSINE` without images. inputs: the
    translator's inputs [Q, S], by whether the caption memory is used. gallery_GE: centred target vectors to retrieve
    from, those of the held-out captions first. own_Q: index in the gallery of each caption's own target. means: to
    centre the outputs by. is_centred: whether the translator's outputs are centred already.
    """

    pair_cosine: float
    inputs: Mapping[bool, Float[np.ndarray, "Q S"]]
    gallery_GE: Float[np.ndarray, "G E"]
    own_Q: Int[np.ndarray, "Q"]
    means: ModalityMeans
    is_centred: bool

    def scores(self, output_QE: Float[np.ndarray, "Q E"]) -> dict[str, float]:
        """Scores of a translator's outputs for the perturbed captions. noisy_mrr: the mean reciprocal rank of each
        caption's own target. noisy_cosine: the mean cosine of each output and its own target, both centred. NaN counts
        as −1."""
        if not self.is_centred:
            output_QE = np.asarray(
                centred(shift_to_audio(self.means, jnp.asarray(output_QE)), self.means.mean("target_text"))
            )
        rank_Q, cosine_Q = _ranks_and_cosines(np.asarray(output_QE, np.float32), self.gallery_GE, self.own_Q)
        return {PERTURBED_MRR: float(np.mean(1 / rank_Q)), PERTURBED_COSINE: float(np.mean(np.clip(cosine_Q, -1, 1)))}


def perturb_captions(
    store: Store,
    rows: tuple[Int[np.ndarray, "H"], Int[np.ndarray, "N"]],
    means: ModalityMeans,
    unit_means: ModalityMeans,
    input_norm: str,
    memory: Memory | None = None,
    image_PS: Float[np.ndarray, "P S"] | None = None,
    seed: int = 0,
) -> PerturbedCaptions:
    """Perturbs a store's held-out captions.

    rows: held-out rows and training rows. means: the bundle's means. unit_means: of unit vectors. image_PS: raw
    vectors of unlabelled images. If c is the cosine of an image and its caption, captions are perturbed by random noise
    to the cosines c and √c, and, given images, by centred vectors of images to √c. Why √c: if an image and its caption
    each have a cosine of √c to their common content, their cosine to each other is c. Raises StoreError for a damaged
    chunk.
    """
    rng = np.random.default_rng((seed, SEED))
    held_out, training = (
        np.sort(rng.permutation(part)[:count]) for part, count in zip(rows, (HELD_OUT, COMPARED), strict=True)
    )
    mean_S, mean_E = unit_means.mean("source_text"), unit_means.mean("target_text")
    both = np.concatenate([held_out, training])  # read together, so that chunks with rows of both are read once
    source_NS = _centred(store.read_rows("source", both), mean_S)
    target_NE = _centred(store.read_rows("target", both), mean_E)
    held_HS, caption_KS = np.split(source_NS, [len(held_out)])
    target_HE, target_KE = np.split(target_NE, [len(held_out)])
    own_Q = np.tile(np.arange(len(held_HS)), max(PERTURBED // len(held_HS), 1))
    random_QS, cosine = rng.normal(size=held_HS[own_Q].shape).astype(np.float32), PAIR_COSINE
    if image_PS is not None:
        image_PS = image_PS[rng.permutation(len(image_PS))[:IMAGES]]
        image_PS = _centred(image_PS, np.asarray(unit(jnp.asarray(image_PS))).mean(axis=0))
        cosine = pair_cosine(image_PS, held_HS[own_Q], caption_KS, random_QS)
    noise = [(random_QS, cosine), (random_QS, math.sqrt(cosine))]
    if image_PS is not None:
        noise.append((image_PS[rng.integers(len(image_PS), size=len(own_Q))], math.sqrt(cosine)))
    perturbed_QS = np.concatenate([_perturbed(held_HS[own_Q], *arguments) for arguments in noise])
    # Centred vectors are the inputs themselves.
    means_and_norm = (ModalityMeans(), "none") if input_norm == "centred" else (means, input_norm)
    if input_norm != "centred":  # make them raw: around the mean of images, if known, and as long as captions' vectors
        length = np.linalg.norm(store.read_rows("source", held_out).astype(np.float32), axis=1).mean()
        mean_S = unit_means.mean("source_image" if unit_means.source_image is not None else "source_text")
        perturbed_QS = length * np.asarray(uncentred(jnp.asarray(perturbed_QS), mean_S))
    to_inputs = functools.partial(image_inputs, *means_and_norm, jnp.asarray(perturbed_QS))
    inputs = {False: np.asarray(to_inputs())}
    if memory is not None and memory.weight:
        inputs[True] = np.asarray(to_inputs(memory))
    distractors = np.linspace(0, len(target_KE) - 1, min(len(target_KE), GALLERY)).round().astype(int)
    return PerturbedCaptions(
        pair_cosine=cosine,
        inputs=inputs,
        gallery_GE=np.concatenate([target_HE, target_KE[distractors]]),
        own_Q=np.tile(own_Q, len(noise)),
        means=dataclasses.replace(
            unit_means, **{name: getattr(means, name) for name in means.known if name.startswith("target")}
        ),
        is_centred=input_norm == "centred",
    )


def pair_cosine(
    image_PS: Float[np.ndarray, "P S"],
    held_HS: Float[np.ndarray, "H S"],
    caption_KS: Float[np.ndarray, "K S"],
    noise_HS: Float[np.ndarray, "H S"],
) -> float:
    """Estimates the mean cosine of images and their captions without any pairs.

    Bisects the cosine to which held-out captions must be perturbed until the cosine to their nearest training caption
    is on average that of the images. All vectors are centred.
    """
    target, low, high = _nearest(image_PS, caption_KS), 0.02, 0.98
    for _ in range(12):  # to 2⁻¹² of the range
        middle = (low + high) / 2
        is_nearer = _nearest(_perturbed(held_HS, noise_HS, middle), caption_KS) > target
        low, high = (low, middle) if is_nearer else (middle, high)
    return (low + high) / 2


def _centred(x_NE: np.ndarray, mean_E: np.ndarray) -> Float[np.ndarray, "N E"]:
    return np.asarray(centred(jnp.asarray(x_NE, jnp.float32), mean_E))


def _perturbed(x_NS: np.ndarray, noise_NS: np.ndarray, cosine: float) -> Float[np.ndarray, "N S"]:
    return np.asarray(perturb(jnp.asarray(x_NS), jnp.asarray(noise_NS), cosine))


@jax.jit
def _nearest_of(query_NS: Array, caption_KS: Array) -> Array:
    with jax.default_matmul_precision("float32"):
        return jnp.mean(jnp.max(query_NS @ caption_KS.T, axis=1))


def _nearest(query_NS: np.ndarray, caption_KS: np.ndarray) -> float:
    """The mean over queries of the cosine to the nearest caption."""
    return float(_nearest_of(query_NS[:IMAGES], caption_KS))


@jax.jit
def _ranks_and_cosines(query_QE: Array, gallery_GE: Array, own_Q: Array) -> tuple[Array, Array]:
    """Rank, from 1, and cosine of each query's own target. Ties count against it. NaN queries have the last rank and a
    cosine of −1."""
    with jax.default_matmul_precision("float32"):
        score_QG = unit(query_QE) @ gallery_GE.T
    own_Q1 = jnp.take_along_axis(score_QG, own_Q[:, None], axis=1)
    return jnp.sum(~(score_QG < own_Q1), axis=1), jnp.nan_to_num(own_Q1[:, 0], nan=-1.0)

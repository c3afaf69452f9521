"""Selection without pairs: captions, perturbed to be as far away as images are from their captions, replace images."""

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

PAIR_COSINE = 0.32  # of an image and its caption, both centred: CLIP ViT-B/32 on Flickr8k, ViT-B/16 on COCO
GALLERY = 3000  # training captions among which held-out ones are retrieved
COMPARED = 8192  # training captions that images and perturbed captions are compared with
PERTURBED = 1000  # minimum number of surrogates per kind of noise; few captions are perturbed several times each
HELD_OUT = 2000  # maximum number of captions that are perturbed
IMAGES = 2000  # maximum number of images that are used
SEED = 5  # joined to a run's seed; 0 to 4 are those of the held-out rows, the feeds and the memory


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Surrogates:
    """Perturbed held-out captions that stand in for images.

    pair_cosine: estimated cosine of an image and its caption, both centred; `PAIR_COSINE` without images. inputs: a
    translator's inputs [Q, S] for the surrogates, by whether the memory is used. gallery_GE: centred target vectors to
    retrieve from, those of the held-out captions first. own_Q: index in the gallery of each surrogate's own target.
    """

    pair_cosine: float
    inputs: Mapping[bool, Float[np.ndarray, "Q S"]]
    gallery_GE: Float[np.ndarray, "G E"]
    own_Q: Int[np.ndarray, "Q"]
    means: ModalityMeans
    is_centred: bool

    def scores(self, output_QE: Float[np.ndarray, "Q E"]) -> dict[str, float]:
        """Scores of the surrogates' translations. noisy_mrr: the mean reciprocal rank of each surrogate's own target.
        noisy_cosine: the mean cosine of each translation and its own target, both centred. NaN counts as −1."""
        if not self.is_centred:
            output_QE = np.asarray(
                centred(shift_to_audio(self.means, jnp.asarray(output_QE)), self.means.mean("target_text"))
            )
        rank_Q, cosine_Q = _ranks_and_cosines(np.asarray(output_QE, np.float32), self.gallery_GE, self.own_Q)
        return {PERTURBED_MRR: float(np.mean(1 / rank_Q)), PERTURBED_COSINE: float(np.mean(np.clip(cosine_Q, -1, 1)))}


def surrogates(
    store: Store,
    rows: tuple[Int[np.ndarray, "H"], Int[np.ndarray, "N"]],
    means: ModalityMeans,
    units: ModalityMeans,
    input_norm: str,
    memory: Memory | None = None,
    image_PS: Float[np.ndarray, "P S"] | None = None,
    seed: int = 0,
) -> Surrogates:
    """Makes surrogates from a store's held-out rows. rows: the held-out and the training ones. means: the bundle's.
    units: means of unit vectors. image_PS: raw vectors of unlabelled images.

    If c is the cosine of an image and its caption, captions are perturbed to c and to √c by random noise and, if there
    are images, to √c by centred vectors of images. The reason for √c: if an image and its caption each have a cosine of
    √c to what they share, they have a cosine of c to each other.
    Raises StoreError for a damaged chunk.
    """
    rng = np.random.default_rng((seed, SEED))
    held_out, training = (
        np.sort(rng.permutation(part)[:count]) for part, count in zip(rows, (HELD_OUT, COMPARED), strict=True)
    )
    mean_S, mean_E = units.mean("source_text"), units.mean("target_text")
    both = np.concatenate([held_out, training])  # read together: chunks with rows of both are read once
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
    surrogate_QS = np.concatenate([_perturbed(held_HS[own_Q], *one) for one in noise])
    if input_norm != "centred":  # like raw vectors of images: around their mean, if known, and as long as captions'
        length = np.linalg.norm(store.read_rows("source", held_out).astype(np.float32), axis=1).mean()
        mean_S = units.mean("source_image" if units.source_image is not None else "source_text")
        surrogate_QS = length * np.asarray(uncentred(jnp.asarray(surrogate_QS), mean_S))
    known = (
        (means, input_norm) if input_norm != "centred" else (ModalityMeans(), "none")
    )  # centred vectors stay as they are
    plain = functools.partial(image_inputs, *known)
    inputs = {False: np.asarray(plain(jnp.asarray(surrogate_QS)))}
    if memory is not None and memory.weight:
        inputs[True] = np.asarray(plain(jnp.asarray(surrogate_QS), memory))
    others = np.linspace(0, len(target_KE) - 1, min(len(target_KE), GALLERY)).round().astype(int)
    return Surrogates(
        pair_cosine=cosine,
        inputs=inputs,
        gallery_GE=np.concatenate([target_HE, target_KE[others]]),
        own_Q=np.tile(own_Q, len(noise)),
        means=dataclasses.replace(
            units, **{name: getattr(means, name) for name in means.known if name.startswith("target")}
        ),
        is_centred=input_norm == "centred",
    )


def pair_cosine(
    image_PS: Float[np.ndarray, "P S"],
    held_HS: Float[np.ndarray, "H S"],
    caption_KS: Float[np.ndarray, "K S"],
    noise_HS: Float[np.ndarray, "H S"],
) -> float:
    """Estimates the cosine of images and their captions without any pairs: held-out captions are perturbed to the
    cosine at which their nearest training captions are as far away, on average, as those of the images. All are
    centred."""
    wanted, low, high = _nearest(image_PS, caption_KS), 0.02, 0.98
    for _ in range(12):  # halvings: to 2⁻¹² of the range
        middle = (low + high) / 2
        is_nearer = _nearest(_perturbed(held_HS, noise_HS, middle), caption_KS) > wanted
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
    """The own target's rank, from 1, and its cosine. Ties count against the own target. A query of NaN has the last
    rank and a cosine of −1."""
    with jax.default_matmul_precision("float32"):
        score_QG = unit(query_QE) @ gallery_GE.T
    own_Q1 = jnp.take_along_axis(score_QG, own_Q[:, None], axis=1)
    return jnp.sum(~(score_QG < own_Q1), axis=1), jnp.nan_to_num(own_Q1[:, 0], nan=-1.0)

"""Methods to map source vectors into the target space: the translator, and its baselines from captions."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from c2c_jax.data.store import Store
from c2c_jax.errors import BundleError
from c2c_jax.evaluation.training_store import TrainingStore
from c2c_jax.io.scratch import empty_vectors
from c2c_jax.retrieval.nearest_captions import TrainingCaptions, nearest_caption
from c2c_jax.spaces.models.layers import unit
from c2c_jax.training.closed_form import caption_means, moments, procrustes, ridge, set_linear
from c2c_jax.translator.bundle import Bundle
from c2c_jax.translator.centring import (
    ModalityMeans,
    centred,
    centred_images,
    translate_image,
    translate_text,
    uncentred,
)
from c2c_jax.translator.kinds import Translator, TranslatorSpec, build_translator
from c2c_jax.translator.memory import Memory

ROWS_AT_ONCE = 4096
TRANSFORMER_ROWS_AT_ONCE = 64  # its attention takes 8 MiB of memory for each

Translate = Callable[[Float[np.ndarray, "B S"]], Float[np.ndarray, "B E"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """A map from source vectors to target vectors.

    of_texts, of_images: return the unit target vectors [B, E] of raw source vectors [B, S]. Images are centred with the
    means that the bundle stores, in the same way for every method; only the translator uses the bundle's caption
    memory. image_mean_E: mean of unit vectors around which translations of images lie; None: the mean of captions.
    """

    name: str
    of_texts: Translate
    of_images: Translate
    image_mean_E: Float[np.ndarray, "E"] | None = None


def method_of(name: str, translator: Translator, means: ModalityMeans, memory: Memory | None = None) -> Method:
    """A translator as a method. memory: for images. Its functions raise BundleError for vectors that are not finite."""
    at_once = TRANSFORMER_ROWS_AT_ONCE if translator.spec.kind == "transformer" else ROWS_AT_ONCE
    graphdef, state = nnx.split(translator)

    def in_blocks(translate: Callable[[Translator, Array, Memory | None], Array]) -> Translate:
        compiled = jax.jit(
            lambda state, source_BS, memory: unit(translate(nnx.merge(graphdef, state), source_BS, memory))
        )

        def translated(source_BS: np.ndarray) -> np.ndarray:
            vectors_BE = empty_vectors(len(source_BS), translator.spec.target_dim)
            for start in range(0, len(source_BS), at_once):
                block = slice(start, start + at_once)
                with jax.default_matmul_precision("float32"):
                    found_BE = np.asarray(compiled(state, np.asarray(source_BS[block], np.float32), memory))
                if not np.isfinite(found_BE).all():
                    raise BundleError(
                        f"{name} makes vectors that are not finite: train again, with a smaller learning rate"
                    )
                vectors_BE[block] = found_BE
            return vectors_BE

        return translated

    return Method(
        name=name,
        of_texts=in_blocks(lambda translator, source_BS, memory: translate_text(translator, means, source_BS)),
        of_images=in_blocks(
            lambda translator, source_BS, memory: translate_image(translator, means, source_BS, memory)
        ),
        # Without centring, translated images are moved among sounds if their mean is known: `centring.shift_to_audio`.
        image_mean_E=None if translator.spec.input_norm == "centred" else means.target_audio,
    )


def with_caption_means(means: ModalityMeans, training: TrainingStore, input_norm: str) -> ModalityMeans:
    """The means of a bundle; missing means of captions are computed from those that it was trained on. input_norm: of
    the vectors that the means are of."""
    if {"source_text", "target_text"} <= {*means.known}:
        return means
    found = caption_means(training.store, training.untrained, input_norm)
    return dataclasses.replace(found, **{name: getattr(means, name) for name in means.known})


def caption_methods(training: TrainingStore, bundle: Bundle) -> tuple[ModalityMeans, list[Method]]:
    """The baselines from the captions that a bundle was trained on, between centred vectors, and the means that centre
    them: "nearest_caption" averages the nearest captions, see `nearest_captions.nearest_caption`, "procrustes" and
    "ridge" are linear maps in closed form. Its functions raise StoreError for a damaged store."""
    means = with_caption_means(bundle.means if bundle.spec.input_norm != "none" else ModalityMeans(), training, "unit")
    shared = dataclasses.replace(bundle.spec, clamp=0.0, input_norm="centred").to_json()
    specs = {kind: TranslatorSpec.from_json({**shared, "kind": kind}) for kind in ("procrustes", "ridge")}
    found = moments(training.store, training.untrained, specs["ridge"], means)
    fits = {"procrustes": procrustes(found), "ridge": ridge(found, specs["ridge"].settings.penalty)}
    methods = [nearest_caption_method(training.store, training.untrained, means)]
    for kind, fit in fits.items():
        translator = build_translator(specs[kind], rngs=nnx.Rngs(0))
        set_linear(translator, *fit)
        methods.append(method_of(kind, translator, means))
    return means, methods


def nearest_caption_method(store: Store, untrained: Int[np.ndarray, "U"], means: ModalityMeans) -> Method:
    """The average of the nearest captions of a store, but for the rows `untrained`, between vectors centred by `means`.
    Its functions raise StoreError for a damaged store."""
    captions = TrainingCaptions(store, untrained, means)

    def translated(source_BS: Array) -> np.ndarray:
        with jax.default_matmul_precision("float32"):
            target_BE = jnp.asarray(nearest_caption(np.asarray(source_BS), captions))
            return np.asarray(uncentred(target_BE, means.mean("target_text")))

    def of_texts(source_BS: np.ndarray) -> np.ndarray:
        return translated(centred(jnp.asarray(source_BS, jnp.float32), means.mean("source_text")))

    def of_images(source_BS: np.ndarray) -> np.ndarray:
        return translated(centred_images(means, jnp.asarray(source_BS, jnp.float32)))

    return Method(name="nearest_caption", of_texts=of_texts, of_images=of_images)

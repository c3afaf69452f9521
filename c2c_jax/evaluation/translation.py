"""Everything that brings source vectors to the target space, under one roof: the translator and what it is held
against."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from c2c_jax.data.store import Store
from c2c_jax.errors import BundleError
from c2c_jax.retrieval.nearest_captions import TrainingCaptions, nearest_caption, room_for
from c2c_jax.spaces.models.layers import unit
from c2c_jax.training.closed_form import caption_means, moments, procrustes, ridge, set_linear
from c2c_jax.translator.bundle import Bundle
from c2c_jax.translator.centring import Gap, centred, centred_images, translate_image, translate_text, uncentred
from c2c_jax.translator.kinds import Translator, TranslatorSpec, build_translator
from c2c_jax.translator.memory import Memory

ROWS_AT_ONCE = 4096
TRANSFORMER_ROWS_AT_ONCE = 64  # its attention takes 8 MiB of memory for each

Translate = Callable[[Float[np.ndarray, "B S"]], Float[np.ndarray, "B E"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """A map from source vectors to target vectors. of_texts, of_images: unit target vectors [B, E] of raw source
    vectors [B, S]; pictures are corrected by the means that the bundle stores, in the same way for every method. Only
    the translator uses the bundle's caption memory. image_mean_E: mean of unit vectors around which translations of
    pictures lie; None: the mean of captions."""

    name: str
    of_texts: Translate
    of_images: Translate
    image_mean_E: Float[np.ndarray, "E"] | None = None


def method_of(name: str, translator: Translator, gap: Gap, memory: Memory | None = None) -> Method:
    """A translator as a method; a memory is for pictures. Raises BundleError, when it is used, for one whose vectors
    are not finite."""
    at_once = TRANSFORMER_ROWS_AT_ONCE if translator.spec.kind == "transformer" else ROWS_AT_ONCE
    graphdef, state = nnx.split(translator)

    def of_images(state: nnx.State, memory: Memory | None, source_BS: Array) -> Array:
        return translate_image(nnx.merge(graphdef, state), gap, source_BS, memory)

    def of_texts(state: nnx.State, memory: Memory | None, source_BS: Array) -> Array:
        return translate_text(nnx.merge(graphdef, state), gap, source_BS)

    def in_blocks(of_block: Callable[[nnx.State, Memory | None, Array], Array]) -> Translate:
        compiled = jax.jit(lambda state, memory, source_BS: unit(of_block(state, memory, source_BS)))

        def translated(source_BS: np.ndarray) -> np.ndarray:
            vectors_BE = room_for(len(source_BS), translator.spec.target_dim)
            for start in range(0, len(source_BS), at_once):
                block = slice(start, start + at_once)
                with jax.default_matmul_precision("float32"):
                    found_BE = np.asarray(compiled(state, memory, np.asarray(source_BS[block], np.float32)))
                if not np.isfinite(found_BE).all():
                    raise BundleError(
                        f"{name} makes vectors that are not finite: train again, with a smaller learning rate"
                    )
                vectors_BE[block] = found_BE
            return vectors_BE

        return translated

    # Without centring, translated pictures are moved among sounds if their mean is known: `gap.over_target_gap`.
    image_mean_E = None if translator.spec.input_norm == "centred" else gap.target_audio
    return Method(name=name, of_texts=in_blocks(of_texts), of_images=in_blocks(of_images), image_mean_E=image_mean_E)


def means_of_units(store: Store, held_out: Int[np.ndarray, "H"], bundle: Bundle) -> Gap:
    """The means of unit vectors that a bundle stores; missing means of captions are computed from its store."""
    gap = bundle.gap if bundle.spec.input_norm != "none" else Gap()
    if gap.source_text is not None and gap.target_text is not None:
        return gap
    found = caption_means(store, held_out, "unit")
    return dataclasses.replace(found, **{name: getattr(gap, name) for name in gap.known})


def nearest_caption_method(store: Store, held_out: Int[np.ndarray, "H"], gap: Gap) -> Method:
    """Looks up the nearest training captions, between centred vectors. Its functions raise StoreError for a damaged
    store."""
    captions = TrainingCaptions(store, held_out, gap)

    def of_centred(source_BS: Array) -> np.ndarray:
        with jax.default_matmul_precision("float32"):
            return np.asarray(
                uncentred(jnp.asarray(nearest_caption(np.asarray(source_BS), captions)), gap.mean("target_text"))
            )

    def of_texts(source_BS: np.ndarray) -> np.ndarray:
        return of_centred(centred(jnp.asarray(source_BS, jnp.float32), gap.mean("source_text")))

    def of_images(source_BS: np.ndarray) -> np.ndarray:
        return of_centred(centred_images(gap, jnp.asarray(source_BS, jnp.float32)))

    return Method(name="nearest_caption", of_texts=of_texts, of_images=of_images)


def closed_form_methods(store: Store, held_out: Int[np.ndarray, "H"], bundle: Bundle, gap: Gap) -> list[Method]:
    """Procrustes and ridge between the training captions' centred vectors; see `training/closed_form.py`."""
    shared = dataclasses.replace(bundle.spec, clamp=0.0, input_norm="centred").to_json()
    specs = {kind: TranslatorSpec.from_json({**shared, "kind": kind}) for kind in ("procrustes", "ridge")}
    found = moments(store, held_out, specs["ridge"], gap)
    fits = {"procrustes": procrustes(found), "ridge": ridge(found, specs["ridge"].settings.penalty)}
    return [method_of(kind, _linear(specs[kind], *fit), gap) for kind, fit in fits.items()]


def _linear(spec: TranslatorSpec, kernel_SE: np.ndarray, bias_E: np.ndarray) -> Translator:
    translator = build_translator(spec, rngs=nnx.Rngs(0))
    set_linear(translator, kernel_SE, bias_E)
    return translator

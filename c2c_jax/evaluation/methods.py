"""Methods that map source vectors to target vectors: the translator, baselines from captions, and the oracle."""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from c2c_jax.data.store import Store
from c2c_jax.errors import BundleError
from c2c_jax.evaluation.training_store import TrainingStore
from c2c_jax.io.scratch import empty_vectors
from c2c_jax.io.vectors import unit_rows
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
TRANSFORMER_ROWS_AT_ONCE = 64  # it takes 4 to 14 MiB of memory per row, by its width

FOLDS, MIN_PAIRS = 5, 8  # of the oracle's cross-validation
RIDGE_PENALTIES = tuple(10.0**power for power in range(-4, 3))  # on the squared coefficients
KERNEL_SCALES, KERNEL_PENALTIES = (1.0, 2.0, 4.0, 8.0), (0.01, 0.1, 1.0)
MAX_KERNEL_PAIRS = 2048  # to fit the kernel ridge to, whose cost is cubic

Translate = Callable[[Float[np.ndarray, "B S"]], Float[np.ndarray, "B E"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """A map from source vectors to target vectors.

    of_texts, of_images: map raw source vectors [B, S] to unit target vectors [B, E]. All methods centre images with the
    means that the bundle stores; only the translator uses the bundle's caption memory. image_mean_E: mean of the unit
    vectors of translated images; None: the mean of captions.
    """

    name: str
    of_texts: Translate
    of_images: Translate
    image_mean_E: Float[np.ndarray, "E"] | None = None


def as_method(name: str, translator: Translator, means: ModalityMeans, memory: Memory | None = None) -> Method:
    """Wraps a translator as a method. memory: caption memory, for images. The method's functions raise BundleError if
    the translator returns vectors that are not finite."""
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
                    block_BE = np.asarray(compiled(state, np.asarray(source_BS[block], np.float32), memory))
                if not np.isfinite(block_BE).all():
                    raise BundleError(
                        f"{name} returns vectors that are not finite: train again with a smaller learning rate"
                    )
                vectors_BE[block] = block_BE
            return vectors_BE

        return translated

    return Method(
        name=name,
        of_texts=in_blocks(lambda translator, source_BS, memory: translate_text(translator, means, source_BS)),
        of_images=in_blocks(
            lambda translator, source_BS, memory: translate_image(translator, means, source_BS, memory)
        ),
        # Without centring, translated images are shifted to the mean of sounds, if known: `centring.shift_to_audio`.
        image_mean_E=None if translator.spec.input_norm == "centred" else means.target_audio,
    )


def with_caption_means(means: ModalityMeans, training: TrainingStore, input_norm: str) -> ModalityMeans:
    """Adds missing means of captions to a bundle's means, computed from the captions that it was trained on.

    input_norm: normalisation of the source vectors that the means are of.
    """
    if {"source_text", "target_text"} <= {*means.known}:
        return means
    computed = caption_means(training.store, training.untrained, input_norm)
    return dataclasses.replace(computed, **{name: getattr(means, name) for name in means.known})


def caption_methods(training: TrainingStore, bundle: Bundle) -> tuple[ModalityMeans, list[Method]]:
    """Builds the baselines from the bundle's training captions; also returns the means that centre their vectors.

    "nearest_caption" averages the nearest captions, see `nearest_caption_method`. "procrustes" and "ridge" are linear
    maps in closed form. Raises StoreError for a damaged store.
    """
    means = with_caption_means(bundle.means if bundle.spec.input_norm != "none" else ModalityMeans(), training, "unit")
    shared = dataclasses.replace(bundle.spec, clamp=0.0, input_norm="centred").to_json()
    specs = {kind: TranslatorSpec.from_json({**shared, "kind": kind}) for kind in ("procrustes", "ridge")}
    sums = moments(training.store, training.untrained, specs["ridge"], means)
    fits = {"procrustes": procrustes(sums), "ridge": ridge(sums, specs["ridge"].settings.penalty)}
    methods = [nearest_caption_method(training.store, training.untrained, means)]
    for kind, fit in fits.items():
        translator = build_translator(specs[kind], rngs=nnx.Rngs(0))
        set_linear(translator, *fit)
        methods.append(as_method(kind, translator, means))
    return means, methods


def nearest_caption_method(store: Store, untrained: Int[np.ndarray, "U"], means: ModalityMeans) -> Method:
    """Builds the baseline that averages the target vectors of the nearest captions in a store.

    untrained: rows of the store to leave out. means: centre the vectors. The method's functions raise StoreError for a
    damaged store.
    """
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


class Fit(NamedTuple):
    """A map fitted to pairs. error: its mean squared leave-one-out error."""

    error: float
    apply: Callable[[np.ndarray], np.ndarray]


def oracle(
    image_NS: Float[np.ndarray, "N S"],
    audio_NE: Float[np.ndarray, "N E"],
    groups_N: Int[np.ndarray, "N"] | None = None,
    seed: int = 0,
) -> Float[np.ndarray, "N E"]:
    """Maps images to unit target vectors [N, E] by cross-validated regression on the pairs themselves.

    Translators never see such pairs, so this shows what the two spaces allow. The vectors of each fold are predicted
    by `fit_pairs` from the unit vectors of the other folds. groups_N: pairs with the same number share an image or a
    sound and stay in one fold; None: all pairs are separate. seed: draws the folds. Needs MIN_PAIRS groups.
    """
    x_NS, y_NE = unit_rows(image_NS), unit_rows(audio_NE)
    _, group_N = np.unique(np.arange(len(x_NS)) if groups_N is None else groups_N, return_inverse=True)
    count = int(group_N.max()) + 1
    fold_N = (np.random.default_rng((seed, count)).permutation(count) % FOLDS)[group_N]
    mapped_NE = np.empty_like(y_NE)
    for fold in range(FOLDS):
        in_fold_N = fold_N == fold
        mapped_NE[in_fold_N] = fit_pairs(x_NS[~in_fold_N], y_NE[~in_fold_N], seed).apply(x_NS[in_fold_N])
    return unit_rows(mapped_NE).astype(np.float32)


def fit_pairs(x_NS: Float[np.ndarray, "N S"], y_NE: Float[np.ndarray, "N E"], seed: int = 0) -> Fit:
    """Fits the linear and the kernel ridge regression x → y, and returns the one with the smaller leave-one-out
    error."""
    return min(fit_ridge(x_NS, y_NE), fit_kernel_ridge(x_NS, y_NE, seed), key=lambda fit: fit.error)


def fit_ridge(x_NS: Float[np.ndarray, "N S"], y_NE: Float[np.ndarray, "N E"]) -> Fit:
    """Fits a ridge regression with a free bias (Hoerl & Kennard 1970).

    The penalty is one of RIDGE_PENALTIES, times the inputs' mean square summed over rows. It is chosen by the exact
    leave-one-out error: residuals over 1 − hᵢᵢ (Allen's PRESS, in Golub, Heath & Wahba 1979).
    """
    x_S, y_E = x_NS.mean(0), y_NE.mean(0)
    left_NR, singular_R, right_RS = np.linalg.svd(x_NS - x_S, full_matrices=False)
    scores_RE = left_NR.T @ (y_NE - y_E)
    mean_square = np.sum(singular_R**2) / x_NS.shape[1]
    best = math.inf, singular_R
    for penalty in RIDGE_PENALTIES:
        kept_R = singular_R**2 / (singular_R**2 + penalty * mean_square)
        residual_NE = (y_NE - y_E) - (left_NR * kept_R) @ scores_RE
        free_N = 1 - 1 / len(x_NS) - (left_NR**2) @ kept_R
        error = float(np.mean((residual_NE / np.maximum(free_N, 1e-9)[:, None]) ** 2))
        best = min(best, (error, kept_R / np.maximum(singular_R, 1e-12)), key=lambda fit: fit[0])
    kernel_SE = right_RS.T @ (best[1][:, None] * scores_RE)
    return Fit(best[0], lambda x_BS: (x_BS - x_S) @ kernel_SE + y_E)


def fit_kernel_ridge(x_NS: Float[np.ndarray, "N S"], y_NE: Float[np.ndarray, "N E"], seed: int = 0) -> Fit:
    """Fits a ridge regression over Gaussian kernels (Saunders et al. 1998).

    The kernel's scale is one of KERNEL_SCALES over the median squared distance, the penalty λ one of KERNEL_PENALTIES.
    They are chosen by the leave-one-out error (G y)ᵢ / Gᵢᵢ, with G = (K + λ)⁻¹ and y minus its mean. If there are more
    than MAX_KERNEL_PAIRS pairs, that many are drawn at random.
    """
    if len(x_NS) > MAX_KERNEL_PAIRS:
        drawn = np.random.default_rng(seed).choice(len(x_NS), MAX_KERNEL_PAIRS, replace=False)
        x_NS, y_NE = x_NS[drawn], y_NE[drawn]
    x_NS, y_NE = x_NS.astype(np.float64), y_NE.astype(np.float64)
    y_E, distance_NN = y_NE.mean(0), _squared_distances(x_NS, x_NS)
    median = float(np.median(distance_NN[np.triu_indices(len(x_NS), 1)])) or 1.0
    best = math.inf, 0.0, y_NE
    for scale in KERNEL_SCALES:
        kernel_NN = np.exp(-scale / median * distance_NN)
        for penalty in KERNEL_PENALTIES:
            inverse_NN = np.linalg.inv(kernel_NN + penalty * np.eye(len(x_NS)))
            coefficient_NE = inverse_NN @ (y_NE - y_E)
            error = float(np.mean((coefficient_NE / np.diag(inverse_NN)[:, None]) ** 2))
            best = min(best, (error, scale / median, coefficient_NE), key=lambda fit: fit[0])
    error, scale, coefficient_NE = best
    return Fit(error, lambda x_BS: np.exp(-scale * _squared_distances(x_BS, x_NS)) @ coefficient_NE + y_E)


def _squared_distances(x_NS: np.ndarray, y_MS: np.ndarray) -> np.ndarray:
    return np.maximum(np.sum(x_NS**2, axis=1)[:, None] + np.sum(y_MS**2, axis=1)[None] - 2 * x_NS @ y_MS.T, 0)

"""Fits linear maps between two spaces in closed form, and computes the means of captions."""

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from c2c_jax.data.store import SIDES, Store
from c2c_jax.translator.centring import ModalityMeans
from c2c_jax.translator.kinds import Translator, TranslatorSpec

SINGULAR_MIN = 1e-9  # singular values below this fraction of the largest count as zero


class Moments(NamedTuple):
    """Means of inputs x and unit targets y, and sums of products of their deviations from the means; float64."""

    rows: int
    x_S: Float[np.ndarray, "S"]
    y_E: Float[np.ndarray, "E"]
    xx_SS: Float[np.ndarray, "S S"]
    xy_SE: Float[np.ndarray, "S E"]


def moments(
    store: Store,
    held_out: np.ndarray,
    spec: TranslatorSpec,
    means: ModalityMeans = ModalityMeans(),  # noqa: B008
) -> Moments:
    """Moments of all rows except the held-out ones, chunk by chunk; see `moments_of`."""
    chunks = (moments_of(*rows, spec, means) for rows in _training_rows(store, held_out) if len(rows[0]))
    return functools.reduce(combine, chunks)


def moments_of(
    x_NS: Float[np.ndarray, "N S"], y_NE: Float[np.ndarray, "N E"], spec: TranslatorSpec, means: ModalityMeans
) -> Moments:
    """Moments of one or more raw source and target vectors. Inputs are scaled as for the translator's linear layer.
    means: means of captions; both sides are centred by them if the translator's input_norm is "centred"."""
    x_NS, y_NE = x_NS.astype(np.float64), _unit(y_NE.astype(np.float64))
    if spec.input_norm == "centred":
        x_NS, y_NE = (
            _unit(_unit(x_NS) - means.mean("source_text")),
            _unit(y_NE - means.mean("target_text")),
        )
    if spec.input_norm != "none":
        x_NS = _unit(x_NS) * math.sqrt(spec.source_dim)
    x_S, y_E = x_NS.mean(0), y_NE.mean(0)
    x_NS = x_NS - x_S
    return Moments(len(x_NS), x_S, y_E, x_NS.T @ x_NS, x_NS.T @ (y_NE - y_E))


def combine(a: Moments, b: Moments) -> Moments:
    """Moments of the rows of both (Chan, Golub & LeVeque 1979)."""
    rows = a.rows + b.rows
    x_S, y_E = b.x_S - a.x_S, b.y_E - a.y_E
    weight = a.rows * b.rows / rows
    return Moments(
        rows,
        a.x_S + b.rows / rows * x_S,
        a.y_E + b.rows / rows * y_E,
        a.xx_SS + b.xx_SS + weight * np.outer(x_S, x_S),
        a.xy_SE + b.xy_SE + weight * np.outer(x_S, y_E),
    )


def caption_means(store: Store, held_out: np.ndarray, input_norm: str) -> ModalityMeans:
    """The mean source and target vectors of all captions except the held-out ones, float32.

    Reproducible bit by bit: float64 sums in the order of the rows, without BLAS.
    """
    x_S, y_E, rows = np.zeros(store.plan.source.dim), np.zeros(store.plan.target.dim), 0
    for x_NS, y_NE in _training_rows(store, held_out):
        x_S += _sum_of_units(x_NS) if input_norm != "none" else x_NS.sum(0)
        y_E += _sum_of_units(y_NE)
        rows += len(x_NS)
    return ModalityMeans(source_text=(x_S / rows).astype(np.float32), target_text=(y_E / rows).astype(np.float32))


def _training_rows(
    store: Store, held_out: np.ndarray
) -> Iterator[tuple[Float[np.ndarray, "N S"], Float[np.ndarray, "N E"]]]:
    """Yields the source and target vectors of each chunk without the held-out rows, float64."""
    is_training = np.ones(store.plan.rows, bool)
    is_training[held_out] = False
    for chunk in range(store.plan.chunks):
        fraction = is_training[store.plan.rows_of(chunk)]
        source_NS, target_NE = (store.read_chunk(side, chunk)[fraction].astype(np.float64) for side in SIDES)
        yield source_NS, target_NE


def _sum_of_units(x_NE: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "E"]:
    """The sum of the rows' unit vectors, with einsum, which does not use BLAS by default."""
    lengths_N = np.sqrt(np.einsum("ne,ne->n", x_NE, x_NE))
    return np.einsum("n,ne->e", 1 / np.maximum(lengths_N, 1e-12), x_NE)


def _unit(x_NE: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "N E"]:
    return x_NE / np.maximum(np.linalg.norm(x_NE, axis=1, keepdims=True), 1e-12)


def procrustes(moments: Moments, fraction: float = 1.0) -> tuple[Float[np.ndarray, "S E"], Float[np.ndarray, "E"]]:
    """Kernel and bias of the rotation, scale and shift that bring the inputs nearest to the targets (Schönemann 1966;
    with scale and shift, Gower 1975). If the widths differ, the narrower space is rotated into the wider one. fraction:
    of the directions, those in which the two sides covary most; the others are mapped to 0."""
    left, singular, right = np.linalg.svd(moments.xy_SE, full_matrices=False)
    rank = int(np.sum(singular > SINGULAR_MIN * singular[0]))  # directions that the data determine
    count = max(round(fraction * rank), 1)
    left, singular, right = left[:, :count], singular[:count], right[:count]
    rotation_SE = left @ right
    scale = singular.sum() / np.trace(rotation_SE.T @ moments.xx_SS @ rotation_SE)
    kernel_SE = scale * rotation_SE
    return kernel_SE, moments.y_E - moments.x_S @ kernel_SE


def ridge(moments: Moments, weight: float) -> tuple[Float[np.ndarray, "S E"], Float[np.ndarray, "E"]]:
    """Kernel and bias of ridge regression (Hoerl & Kennard 1970). weight: of the penalty on the squared kernel, in
    units of the inputs' mean square; the bias has no penalty."""
    S = len(moments.x_S)
    penalty = weight * np.trace(moments.xx_SS) / S
    kernel_SE = np.linalg.solve(moments.xx_SS + penalty * np.eye(S), moments.xy_SE)
    return kernel_SE, moments.y_E - moments.x_S @ kernel_SE


def set_closed_form(translator: Translator, fitted: Moments | None) -> None:
    """Sets a translator's linear layer to the closed-form fit: ridge regression for the kind `ridge`, else the
    Procrustes rotation."""
    if fitted is None:
        raise ValueError("a closed-form fit needs the moments of the training rows")
    settings = translator.spec.settings
    is_ridge = translator.spec.kind == "ridge"
    set_linear(translator, *(ridge(fitted, settings.penalty) if is_ridge else procrustes(fitted)))


def set_linear(translator: Translator, kernel_SE: np.ndarray, bias_E: np.ndarray) -> None:
    """Sets the linear layer of a translator of kind `procrustes`, `ridge` or `residual`."""
    linear: nnx.Linear = translator.linear  # type: ignore[attr-defined]
    linear.kernel = nnx.Param(jnp.asarray(kernel_SE, jnp.float32))
    linear.bias = nnx.Param(jnp.asarray(bias_E, jnp.float32))

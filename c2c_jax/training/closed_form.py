"""Linear maps between spaces in closed form, from one pass over a store: no training."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from c2c_jax.data.store import Store
from c2c_jax.models.translator import Translator, TranslatorSpec


class Moments(NamedTuple):
    """Means, and sums of products of what is left when they are taken off, of inputs x and unit targets y; float64."""

    rows: int
    x_S: Float[np.ndarray, "S"]
    y_E: Float[np.ndarray, "E"]
    xx_SS: Float[np.ndarray, "S S"]
    xy_SE: Float[np.ndarray, "S E"]


def moments(store: Store, held_out: np.ndarray, spec: TranslatorSpec) -> Moments:
    """Of all rows but the held-out ones, chunk by chunk. Inputs are as the translator's linear layer sees them."""
    S, E = spec.source_dim, spec.target_dim
    is_training = np.ones(store.plan.rows, bool)
    is_training[held_out] = False
    x_S, y_E, xx_SS, xy_SE = np.zeros(S), np.zeros(E), np.zeros((S, S)), np.zeros((S, E))
    for chunk in range(store.plan.chunks):
        kept = is_training[store.plan.rows_of(chunk)]
        x_NS = store.read_chunk("source", chunk)[kept].astype(np.float64)
        if spec.input_norm == "unit":
            x_NS = _unit(x_NS) * math.sqrt(S)
        y_NE = _unit(store.read_chunk("target", chunk)[kept].astype(np.float64))
        x_S += x_NS.sum(0)
        y_E += y_NE.sum(0)
        xx_SS += x_NS.T @ x_NS
        xy_SE += x_NS.T @ y_NE
    rows = int(is_training.sum())
    x_S, y_E = x_S / rows, y_E / rows
    return Moments(rows, x_S, y_E, xx_SS - rows * np.outer(x_S, x_S), xy_SE - rows * np.outer(x_S, y_E))


def _unit(x_NE: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "N E"]:
    return x_NE / np.maximum(np.linalg.norm(x_NE, axis=1, keepdims=True), 1e-12)


def procrustes(moments: Moments) -> tuple[Float[np.ndarray, "S E"], Float[np.ndarray, "E"]]:
    """Kernel and bias of the rotation and scale that bring the inputs nearest to the targets (Schönemann 1966; with
    scale and shift, Gower 1975). Where widths differ, a rotation of the narrower space into the wider one."""
    left, singular, right = np.linalg.svd(moments.xy_SE, full_matrices=False)
    rotation_SE = left @ right
    scale = singular.sum() / np.trace(rotation_SE.T @ moments.xx_SS @ rotation_SE)
    kernel_SE = scale * rotation_SE
    return kernel_SE, moments.y_E - moments.x_S @ kernel_SE


def ridge(moments: Moments, weight: float) -> tuple[Float[np.ndarray, "S E"], Float[np.ndarray, "E"]]:
    """Kernel and bias of least squares with the kernel's squares added, `weight` times the inputs' mean square a row
    (Hoerl & Kennard 1970); the bias is free."""
    S = len(moments.x_S)
    penalty = weight * np.trace(moments.xx_SS) / S
    kernel_SE = np.linalg.solve(moments.xx_SS + penalty * np.eye(S), moments.xy_SE)
    return kernel_SE, moments.y_E - moments.x_S @ kernel_SE


def set_linear(translator: Translator, kernel_SE: np.ndarray, bias_E: np.ndarray) -> None:
    """Puts a map in the place of a translator's own linear layer (kinds `procrustes`, `ridge`, `residual`)."""
    linear: nnx.Linear = translator.linear  # type: ignore[attr-defined]
    linear.kernel = nnx.Param(jnp.asarray(kernel_SE, jnp.float32))
    linear.bias = nnx.Param(jnp.asarray(bias_E, jnp.float32))

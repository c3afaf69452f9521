"""Contrastive objectives between predicted and true target vectors of one (global) batch.

Each is written as if for one device: under `jit` over a mesh the batch axis may be sharded, and negatives are then
those of all devices. Row i of the predictions belongs to row i of the targets; all other rows are its negatives.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from c2c_jax.models.layers import unit

# Squared distances are floored here before the inverse: two equal vectors get the logit 1000, with no inf or nan, and
# the float32 error of the expanded square, about 1e-7 for unit vectors, stays below the floor.
_SQUARED_FLOOR = 1e-6

Params = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Objective:
    """logits: (params, predicted [B, E], unit targets [B, E]) → [B, B]. init: the objective's own learned params."""

    init: Callable[[], Params]
    logits: Callable[[Params, Array, Array], Array]

    def loss(
        self, params: Params, predicted_BE: Float[Array, "B E"], target_BE: Float[Array, "B E"]
    ) -> Float[Array, ""]:
        """Mean of the cross-entropies along rows and along columns, in nats."""
        logits_BB = self.logits(params, predicted_BE, target_BE)
        own_B = jnp.diagonal(logits_BB)
        rows = jax.nn.logsumexp(logits_BB, axis=1) - own_B
        columns = jax.nn.logsumexp(logits_BB, axis=0) - own_B
        return (rows.mean() + columns.mean()) / 2


def _inverse_euclidean_logits(params: Params, predicted_BE: Array, target_BE: Array) -> Array:
    squares_B1 = jnp.sum(predicted_BE**2, axis=1)[:, None]
    squares_1B = jnp.sum(target_BE**2, axis=1)[None, :]
    squared_BB = squares_B1 + squares_1B - 2 * predicted_BE @ target_BE.T
    return jax.lax.rsqrt(jnp.maximum(squared_BB, _SQUARED_FLOOR))


def inverse_euclidean() -> Objective:
    """CLIP2CLAP's objective (Wong): 1/‖ẑᵢ − yⱼ‖ as logits, cross-entropy along rows and columns.

    The author's code throws the transposed logits away and so takes one direction twice; here are both, as its text
    says. Predictions enter as they are, not normalised.
    """
    return Objective(init=dict, logits=_inverse_euclidean_logits)


def _infonce_logits(params: Params, predicted_BE: Array, target_BE: Array) -> Array:
    # Logits are never scaled by more than 100, so that training stays stable (CLIP section 2.5).
    scale = jnp.exp(jnp.minimum(params["log_scale"], math.log(100)))
    return scale * unit(predicted_BE) @ target_BE.T


def infonce(temperature: float) -> Objective:
    """Symmetric InfoNCE on cosines over a learned temperature (CLIP: Radford et al. 2021, figure 3).

    temperature: its start; `log_scale` = −log temperature is learned.
    """
    return Objective(
        init=lambda: {"log_scale": jnp.asarray(-math.log(temperature), jnp.float32)}, logits=_infonce_logits
    )


KINDS = ("inverse_euclidean", "infonce")


def build_objective(kind: str, temperature: float) -> Objective:
    """The objective of that name (see KINDS)."""
    return {"inverse_euclidean": inverse_euclidean, "infonce": lambda: infonce(temperature)}[kind]()

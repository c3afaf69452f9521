"""Objectives between predicted and true target vectors of one (global) batch.

Each is written as if for one device: under `jit` over a mesh the batch axis may be sharded, and negatives are then
those of all devices. Row i of the predictions belongs to row i of the targets; to a contrastive objective all other
rows are its negatives. Targets are unit vectors and get no gradient.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from c2c_jax.errors import ConfigError
from c2c_jax.models.layers import unit
from c2c_jax.training.contrast import Blocks, cross_entropy, summed

# Squared distances are floored here before the inverse: two equal vectors get the logit 1000, with no inf or nan, and
# the float32 error of the expanded square, about 1e-7 for unit vectors, stays below the floor.
_SQUARED_FLOOR = 1e-6

Params = dict[str, Array]


class Settings(NamedTuple):
    """temperature: start of a learned one (infonce). twin_cosine: pairs whose targets' cosine is above it are no
    negatives of each other; 1: all are."""

    temperature: float = 0.07
    twin_cosine: float = 1.0
    blocks: Blocks = Blocks()


class Kind(NamedTuple):
    """init: settings → learned params. loss: (settings, params, margin, predicted [B, E], targets [B, E]) → []."""

    init: Callable[[Settings], Params]
    loss: Callable[[Settings, Params, Array, Array, Array], Array]


@dataclasses.dataclass(frozen=True)
class Objective:
    """A weighted sum of objectives, (kind, weight) each."""

    terms: tuple[tuple[str, float], ...]
    settings: Settings

    def init(self) -> dict[str, Params]:
        """The objectives' own learned params, by kind."""
        return {kind: KINDS[kind].init(self.settings) for kind, _ in self.terms}

    def loss(
        self,
        params: dict[str, Params],
        predicted_BE: Float[Array, "B E"],
        target_BE: Float[Array, "B E"],
        margin: Float[Array, ""] | float = 0.0,
    ) -> Float[Array, ""]:
        """margin: of `inverse_euclidean`, which grows in the course of training."""
        margin = jnp.asarray(margin, jnp.float32)
        return sum(
            (
                weight * KINDS[kind].loss(self.settings, params[kind], margin, predicted_BE, target_BE)
                for kind, weight in self.terms
            ),
            start=jnp.zeros(()),
        )


def parse_objective(text: str) -> tuple[tuple[str, float], ...]:
    """`infonce + 0.5*l2` as (("infonce", 1.0), ("l2", 0.5)). Raises ConfigError."""
    terms: list[tuple[str, float]] = []
    for term in text.split("+"):
        match = re.fullmatch(r"\s*(?:([0-9.eE-]+)\s*\*\s*)?(\w+)\s*", term)
        if match is None or match[2] not in KINDS:
            known = ", ".join(KINDS)
            raise ConfigError(
                f"config.objective.kind is {text!r}; known are {known}, and weighted sums such as 'infonce + 0.5*l2'"
            )
        try:
            weight = float(match[1] or 1)
        except ValueError:
            raise ConfigError(f"config.objective.kind is {text!r}: {match[1]!r} is no weight") from None
        if not 0 < weight < math.inf or match[2] in dict(terms):
            raise ConfigError(f"config.objective.kind is {text!r}: weights must be above 0, and each kind named once")
        terms.append((match[2], weight))
    return tuple(terms)


def build_objective(kind: str, settings: Settings) -> Objective:
    """The objective, or weighted sum of objectives, of that name. Raises ConfigError."""
    return Objective(parse_objective(kind), settings)


def _without_twins(
    settings: Settings, logits_RB: Array, target_BE: Array, places_R: Int[Array, "R"]
) -> Float[Array, "R B"]:
    if settings.twin_cosine >= 1:
        return logits_RB
    cosines_RB = target_BE[places_R] @ target_BE.T
    is_own_RB = jnp.arange(len(target_BE))[None] == places_R[:, None]
    return jnp.where((cosines_RB > settings.twin_cosine) & ~is_own_RB, -jnp.inf, logits_RB)


class Logits(NamedTuple):
    """What a contrastive objective takes the cross-entropy of, as products of two sides and what is done to them.

    sides: (params, predicted [R, E], targets [B, E]) → left [R, F], right [B, F]. finish: (margin, products) →
    logits, entry by entry.
    """

    sides: Callable[[Params, Array, Array], tuple[Array, Array]]
    finish: Callable[[Array, Array], Array]

    def __call__(self, params: Params, margin: Array, predicted_RE: Array, target_BE: Array) -> Array:
        left_RF, right_BF = self.sides(params, predicted_RE, target_BE)
        return self.finish(margin, left_RF @ right_BF.T)


def _contrastive(logits: Logits) -> Callable[..., Array]:
    """The symmetric cross-entropy over logits."""

    def loss(settings: Settings, params: Params, margin: Array, predicted_BE: Array, target_BE: Array) -> Array:
        left_BF, right_BF = logits.sides(params, predicted_BE, target_BE)
        mask = functools.partial(_without_twins, settings)
        return cross_entropy(logits.finish, mask, settings.blocks, margin, left_BF, right_BF, target_BE)

    return loss


def _inverse_euclidean_sides(params: Params, predicted_RE: Array, target_BE: Array) -> tuple[Array, Array]:
    """Of products that are squared distances: ‖ẑ‖² · 1 + 1 · ‖y‖² − 2 ẑ·y. Predictions enter as they are."""

    def beside(x_BE: Array, *columns: Array) -> Array:
        return jnp.concatenate([x_BE, *(column[:, None] for column in columns)], axis=1)

    left_RF = beside(-2 * predicted_RE, jnp.sum(predicted_RE**2, axis=1), jnp.ones(len(predicted_RE)))
    return left_RF, beside(target_BE, jnp.ones(len(target_BE)), jnp.sum(target_BE**2, axis=1))


def _inverse_euclidean_finish(margin: Array, squared_RB: Array) -> Array:
    """CLIP2CLAP's logits (Wong): 1/‖ẑᵢ − yⱼ‖ less the margin, not below 0.

    The author's code throws the transposed logits away and so takes one direction twice; here are both, as the paper's
    text says.
    """
    return jax.nn.relu(jax.lax.rsqrt(jnp.maximum(squared_RB, _SQUARED_FLOOR)) - margin)


def _infonce_sides(params: Params, predicted_RE: Array, target_BE: Array) -> tuple[Array, Array]:
    """Of cosines over a learned temperature (CLIP: Radford et al. 2021, figure 3)."""
    # Logits are never scaled by more than 100, so that training stays stable (CLIP section 2.5).
    scale = jnp.exp(jnp.minimum(params["log_scale"], math.log(100)))
    return scale * unit(predicted_RE), target_BE


def _sigmoid(settings: Settings, params: Params, margin: Array, predicted_BE: Array, target_BE: Array) -> Array:
    """Every pair by itself, own or not (SigLIP: Zhai et al. 2023, algorithm 1), summed over pairs, over B."""

    def rows(params: Params, predicted_RE: Array, places_R: Array) -> Array:
        logits_RB = jnp.exp(params["log_scale"]) * unit(predicted_RE) @ target_BE.T + params["bias"]
        is_own_RB = jnp.arange(len(target_BE))[None] == places_R[:, None]
        signed_RB = _without_twins(settings, jnp.where(is_own_RB, -logits_RB, logits_RB), target_BE, places_R)
        return jax.nn.softplus(signed_RB).sum()  # softplus(−inf) = 0

    target_BE = jax.lax.stop_gradient(target_BE)
    return summed(rows, settings.blocks, params, predicted_BE) / len(target_BE)


def _l1(settings: Settings, params: Params, margin: Array, predicted_BE: Array, target_BE: Array) -> Array:
    """The mean absolute difference of coordinates, as torch.nn.L1Loss."""
    return jnp.abs(predicted_BE - target_BE).mean()


def _l2(settings: Settings, params: Params, margin: Array, predicted_BE: Array, target_BE: Array) -> Array:
    """The mean Euclidean distance."""
    squared_B = jnp.sum((predicted_BE - target_BE) ** 2, axis=1)
    return jnp.sqrt(jnp.maximum(squared_B, _SQUARED_FLOOR)).mean()


def _cosine(settings: Settings, params: Params, margin: Array, predicted_BE: Array, target_BE: Array) -> Array:
    """The mean of 1 − cosine."""
    return 1 - jnp.sum(unit(predicted_BE) * target_BE, axis=1).mean()


def _none(settings: Settings) -> Params:
    return {}


LOGITS = {
    "inverse_euclidean": Logits(_inverse_euclidean_sides, _inverse_euclidean_finish),
    "infonce": Logits(_infonce_sides, lambda margin, products_RB: products_RB),
}
KINDS = {
    "inverse_euclidean": Kind(_none, _contrastive(LOGITS["inverse_euclidean"])),
    "infonce": Kind(
        lambda settings: {"log_scale": jnp.asarray(-math.log(settings.temperature), jnp.float32)},
        _contrastive(LOGITS["infonce"]),
    ),
    # SigLIP's own start: temperature 1/10, bias −10.
    "sigmoid": Kind(
        lambda settings: {"log_scale": jnp.asarray(math.log(10), jnp.float32), "bias": jnp.asarray(-10.0)}, _sigmoid
    ),
    "l1": Kind(_none, _l1),
    "l2": Kind(_none, _l2),
    "cosine": Kind(_none, _cosine),
}

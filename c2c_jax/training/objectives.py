"""Objectives between predicted and true target vectors of one (global) batch.

Row i of the predictions belongs to row i of the targets; to a contrastive objective all other rows are its negatives.
Targets are unit vectors and get no gradient. Each objective is in two parts: what a row has by itself (and with all
targets), which may be computed for any rows apart from the others, and what is then made of all rows. A device that
has only its share of the rows, and all targets, gets its share of the loss.
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
from c2c_jax.spaces.models.layers import unit
from c2c_jax.training.contrast import Blocks, cross_entropy, row_by_row

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
    """init: settings → learned params. rows: (settings, params, predicted [R, E], targets [B, E], places [R]) → what
    each has by itself [R, ...]. whole: (settings, margin, that, targets [B, E]) → [], the rows' share of the loss."""

    init: Callable[[Settings], Params]
    rows: Callable[[Settings, Params, Array, Array, Array], Array]
    whole: Callable[[Settings, Array, Array, Array], Array]


@dataclasses.dataclass(frozen=True)
class Objective:
    """A weighted sum of objectives, (kind, weight) each."""

    terms: tuple[tuple[str, float], ...]
    settings: Settings

    def init(self) -> dict[str, Params]:
        """The objectives' own learned params, by kind."""
        return {kind: KINDS[kind].init(self.settings) for kind, _ in self.terms}

    def rows(
        self,
        params: dict[str, Params],
        predicted_RE: Float[Array, "R E"],
        target_BE: Float[Array, "B E"],
        places_R: Int[Array, "R"],
    ) -> dict[str, Array]:
        """What each of some rows has by itself, [R, ...] by kind. places: where in the batch they are."""
        return {
            kind: KINDS[kind].rows(self.settings, params[kind], predicted_RE, target_BE, places_R)
            for kind, _ in self.terms
        }

    def whole(
        self, of_rows: dict[str, Array], target_BE: Float[Array, "B E"], margin: Float[Array, ""] | float = 0.0
    ) -> Float[Array, ""]:
        """The loss, or a device's share of it, of what `rows` gave for all rows at hand. margin: of
        `inverse_euclidean`, which grows in the course of training."""
        margin = jnp.asarray(margin, jnp.float32)
        return sum(
            (
                weight * KINDS[kind].whole(self.settings, margin, of_rows[kind], target_BE)
                for kind, weight in self.terms
            ),
            start=jnp.zeros(()),
        )

    def loss(
        self,
        params: dict[str, Params],
        predicted_BE: Float[Array, "B E"],
        target_BE: Float[Array, "B E"],
        margin: Float[Array, ""] | float = 0.0,
    ) -> Float[Array, ""]:
        """The loss of a batch that is all at hand."""
        places_B = jnp.arange(len(predicted_BE))
        return self.whole(self.rows(params, predicted_BE, target_BE, places_B), target_BE, margin)


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

    left: (params, predicted [R, E]) → [R, F]. right: targets [B, E] → [B, F]. finish: (margin, products) → logits,
    entry by entry.
    """

    left: Callable[[Params, Array], Array]
    right: Callable[[Array], Array]
    finish: Callable[[Array, Array], Array]

    def __call__(self, params: Params, margin: Array, predicted_RE: Array, target_BE: Array) -> Array:
        return self.finish(margin, self.left(params, predicted_RE) @ self.right(target_BE).T)


def _contrastive(init: Callable[[Settings], Params], logits: Logits) -> Kind:
    """The symmetric cross-entropy over logits."""

    def rows(settings: Settings, params: Params, predicted_RE: Array, target_BE: Array, places_R: Array) -> Array:
        return logits.left(params, predicted_RE)

    def whole(settings: Settings, margin: Array, left_RF: Array, target_BE: Array) -> Array:
        mask = functools.partial(_without_twins, settings)
        right_BF = logits.right(target_BE)
        return cross_entropy(logits.finish, mask, settings.blocks, margin, left_RF, right_BF, target_BE)

    return Kind(init, rows, whole)


def _beside(x_BE: Array, *columns: Array) -> Array:
    return jnp.concatenate([x_BE, *(column[:, None] for column in columns)], axis=1)


def _inverse_euclidean_left(params: Params, predicted_RE: Array) -> Array:
    """Of products that are squared distances: ‖ẑ‖² · 1 + 1 · ‖y‖² − 2 ẑ·y. Predictions enter as they are."""
    return _beside(-2 * predicted_RE, jnp.sum(predicted_RE**2, axis=1), jnp.ones(len(predicted_RE)))


def _inverse_euclidean_right(target_BE: Array) -> Array:
    return _beside(target_BE, jnp.ones(len(target_BE)), jnp.sum(target_BE**2, axis=1))


def _inverse_euclidean_finish(margin: Array, squared_RB: Array) -> Array:
    """CLIP2CLAP's logits (Wong): 1/‖ẑᵢ − yⱼ‖ less the margin, not below 0.

    The author's code throws the transposed logits away and so takes one direction twice; here are both, as the paper's
    text says.
    """
    return jax.nn.relu(jax.lax.rsqrt(jnp.maximum(squared_RB, _SQUARED_FLOOR)) - margin)


def _infonce_left(params: Params, predicted_RE: Array) -> Array:
    """Of cosines over a learned temperature (CLIP: Radford et al. 2021, figure 3)."""
    # Logits are never scaled by more than 100, so that training stays stable (CLIP section 2.5).
    scale = jnp.exp(jnp.minimum(params["log_scale"], math.log(100)))
    return scale * unit(predicted_RE)


def _apart(init: Callable[[Settings], Params], losses: Callable[..., Array]) -> Kind:
    """The mean of losses that rows have by themselves: `Kind.rows` is the losses [R]."""

    def whole(settings: Settings, margin: Array, losses_R: Array, target_BE: Array) -> Array:
        return losses_R.sum() / len(target_BE)

    return Kind(init, losses, whole)


def _sigmoid(settings: Settings, params: Params, predicted_RE: Array, target_BE: Array, places_R: Array) -> Array:
    """Every pair by itself, own or not (SigLIP: Zhai et al. 2023, algorithm 1), summed over a row's pairs."""
    target_BE = jax.lax.stop_gradient(target_BE)

    def losses(predicted_rE: Array, places_r: Array) -> Array:
        logits_rB = jnp.exp(params["log_scale"]) * unit(predicted_rE) @ target_BE.T + params["bias"]
        is_own_rB = jnp.arange(len(target_BE))[None] == places_r[:, None]
        signed_rB = _without_twins(settings, jnp.where(is_own_rB, -logits_rB, logits_rB), target_BE, places_r)
        return jax.nn.softplus(signed_rB).sum(axis=1)  # softplus(−inf) = 0

    return row_by_row(losses, settings.blocks, predicted_RE, places_R)


def _l1(settings: Settings, params: Params, predicted_RE: Array, target_BE: Array, places_R: Array) -> Array:
    """The mean absolute difference of coordinates, as torch.nn.L1Loss."""
    return jnp.abs(predicted_RE - target_BE[places_R]).mean(axis=1)


def _l2(settings: Settings, params: Params, predicted_RE: Array, target_BE: Array, places_R: Array) -> Array:
    """The Euclidean distance."""
    squared_R = jnp.sum((predicted_RE - target_BE[places_R]) ** 2, axis=1)
    return jnp.sqrt(jnp.maximum(squared_R, _SQUARED_FLOOR))


def _cosine(settings: Settings, params: Params, predicted_RE: Array, target_BE: Array, places_R: Array) -> Array:
    """1 − cosine."""
    return 1 - jnp.sum(unit(predicted_RE) * target_BE[places_R], axis=1)


def _none(settings: Settings) -> Params:
    return {}


def _temperature(settings: Settings) -> Params:
    return {"log_scale": jnp.asarray(-math.log(settings.temperature), jnp.float32)}


def _siglip(settings: Settings) -> Params:
    """SigLIP's own start: temperature 1/10, bias −10."""
    return {"log_scale": jnp.asarray(math.log(10), jnp.float32), "bias": jnp.asarray(-10.0)}


LOGITS = {
    "inverse_euclidean": Logits(_inverse_euclidean_left, _inverse_euclidean_right, _inverse_euclidean_finish),
    "infonce": Logits(_infonce_left, lambda target_BE: target_BE, lambda margin, products_RB: products_RB),
}
KINDS = {
    "inverse_euclidean": _contrastive(_none, LOGITS["inverse_euclidean"]),
    "infonce": _contrastive(_temperature, LOGITS["infonce"]),
    "sigmoid": _apart(_siglip, _sigmoid),
    "l1": _apart(_none, _l1),
    "l2": _apart(_none, _l2),
    "cosine": _apart(_none, _cosine),
}

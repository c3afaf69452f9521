"""Training objectives between predicted and true target vectors of one global batch.

Row i of the predictions belongs to row i of the targets; to a contrastive objective all other rows are its negatives.
Targets are unit vectors and get no gradient. An objective is written as for one device: under `jit` its arrays are
those of the whole batch, however many devices share it. docs/extending.md shows how to add one.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from c2c_jax.config import setting, settings_as
from c2c_jax.errors import ConfigError
from c2c_jax.spaces.models.layers import unit
from c2c_jax.training.contrast import by_chunks, chunk_count, cross_entropy

# Squared distances are floored here before the inverse: two equal vectors get the logit 1000, with no inf or nan, and
# the float32 error of the expanded square, about 1e-7 for unit vectors, stays below the floor.
_SQUARED_FLOOR = 1e-6

Params = dict[str, Array]


class Progress(NamedTuple):
    """How far training has come. step: steps done. epoch: passes over the training rows, as a fraction."""

    step: ArrayLike = 0
    epoch: ArrayLike = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """The base class: a frozen dataclass whose fields are the objective's settings, declared by `config.setting`."""

    def init(self) -> Params:
        """Initial values of the objective's own learned parameters."""
        return {}

    def loss(
        self, params: Params, predicted_BE: Float[Array, "B E"], target_BE: Float[Array, "B E"], progress: Progress
    ) -> Float[Array, ""]:
        """The loss of a batch. predicted_BE: outputs of the translator, of any length. target_BE: unit vectors."""
        raise NotImplementedError

    def metrics(self, params: Params, progress: Progress) -> Mapping[str, Array]:
        """Figures to log beside the loss."""
        return {}


OBJECTIVES: dict[str, type[Objective]] = {}
Class = TypeVar("Class", bound=type[Objective])


def register_objective(name: str) -> Callable[[Class], Class]:
    """Class decorator that makes an objective available as `config.objective.kind`."""

    def register(cls: Class) -> Class:
        OBJECTIVES[name] = cls
        return cls

    return register


@dataclasses.dataclass(frozen=True)
class WeightedSum:
    """A weighted sum of objectives; what training minimises. terms: name → (weight, objective)."""

    terms: Mapping[str, tuple[float, Objective]]

    def init(self) -> dict[str, Params]:
        """Initial values of all learned parameters, by the name of their objective."""
        return {name: objective.init() for name, (_, objective) in self.terms.items()}

    def loss(
        self,
        params: dict[str, Params],
        predicted_BE: Float[Array, "B E"],
        target_BE: Float[Array, "B E"],
        progress: Progress = Progress(),  # noqa: B008
    ) -> Float[Array, ""]:
        """The weighted sum of the losses of a batch; see `Objective.loss`."""
        losses = [
            w * one.loss(params[name], predicted_BE, target_BE, progress) for name, (w, one) in self.terms.items()
        ]
        return sum(losses, start=jnp.zeros(()))

    def metrics(self, params: dict[str, Params], progress: Progress) -> dict[str, Array]:
        """The figures that all objectives log."""
        found = (one.metrics(params[name], progress).items() for name, (_, one) in self.terms.items())
        return {name: jnp.asarray(value, jnp.float32) for pairs in found for name, value in pairs}


def parse_objective(text: str) -> dict[str, float]:
    """`infonce + 0.5*l2` as {"infonce": 1.0, "l2": 0.5}. Raises ConfigError."""
    weights: dict[str, float] = {}
    for term in text.split("+"):
        match = re.fullmatch(r"\s*(?:([0-9.eE-]+)\s*\*\s*)?(\w+)\s*", term)
        if match is None or match[2] not in OBJECTIVES:
            raise ConfigError(
                f"config.objective.kind is {text!r}; known are {', '.join(OBJECTIVES)}, and weighted sums such as "
                "'infonce + 0.5*l2'"
            )
        try:
            weight = float(match[1] or 1)
        except ValueError:
            raise ConfigError(f"config.objective.kind is {text!r}: {match[1]!r} is not a number") from None
        if not 0 < weight < math.inf or match[2] in weights:
            raise ConfigError(f"config.objective.kind is {text!r}: weights must be above 0, and each kind named once")
        weights[match[2]] = weight
    return weights


def build_objective(kind: str, settings: Mapping[str, Any] | None = None) -> WeightedSum:
    """The objective of that name, or a weighted sum of several, each of which takes those settings that it has. Raises
    ConfigError for an unknown objective or setting, and for a value of another type or out of bounds."""
    settings, path = settings or {}, "config.objective.settings."
    weights = parse_objective(kind)
    fields = {name: {field.name for field in dataclasses.fields(OBJECTIVES[name])} for name in weights}
    known = set().union(*fields.values())
    if unknown := next((name for name in settings if name not in known), None):
        raise ConfigError(f"{path}{unknown} is unknown; {kind} knows {', '.join(sorted(known)) or 'no settings'}")
    terms = {}
    for name, weight in weights.items():
        own = {field: value for field, value in settings.items() if field in fields[name]}
        terms[name] = weight, settings_as(OBJECTIVES[name], own, path)
    return WeightedSum(terms)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairwiseObjective(Objective):
    """The base class of objectives over all pairs of a batch."""

    false_negative_threshold: float = setting(
        1.0, "Pairs of captions whose targets' cosine is above it are not used as negatives; 1 = all are.", ge=-1, le=1
    )
    loss_chunks: int = setting(
        0, "Chunks of rows whose logits are computed one after the other; 0 = by the batch size.", ge=0, le=2**20
    )
    remat: bool = setting(False, "Whether logits are recomputed for gradients; above 1 GiB they always are.")

    def mask(
        self, logits_RB: Float[Array, "R B"], target_BE: Float[Array, "B E"], own_R: Int[Array, "R"]
    ) -> Float[Array, "R B"]:
        """Logits with −inf for false negatives. own_R: the column that each row belongs to."""
        if self.false_negative_threshold >= 1:
            return logits_RB
        cosines_RB = target_BE[own_R] @ target_BE.T
        is_own_RB = jnp.arange(len(target_BE))[None] == own_R[:, None]
        return jnp.where((cosines_RB > self.false_negative_threshold) & ~is_own_RB, -jnp.inf, logits_RB)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContrastiveObjective(PairwiseObjective):
    """The mean of the cross-entropies along rows and along columns of logits that are a function of products."""

    def left(self, params: Params, predicted_BE: Float[Array, "B E"]) -> Float[Array, "B F"]:
        """What rows contribute to the products."""
        raise NotImplementedError

    def right(self, target_BE: Float[Array, "B E"]) -> Float[Array, "B F"]:
        """What columns contribute to the products."""
        return target_BE

    def logits(self, products: Float[Array, "..."], margin: Float[Array, ""]) -> Float[Array, "..."]:
        """Logits of products, entry by entry."""
        return products

    def margin(self, progress: Progress) -> Float[Array, ""]:
        """The second argument of `logits`."""
        return jnp.zeros(())

    def loss(
        self, params: Params, predicted_BE: Float[Array, "B E"], target_BE: Float[Array, "B E"], progress: Progress
    ) -> Float[Array, ""]:
        """The mean cross-entropy of a batch, in nats, along rows and columns, exact over all pairs."""
        chunks = chunk_count(len(predicted_BE), self.loss_chunks)
        left_BF, right_BF = self.left(params, predicted_BE), self.right(target_BE)
        margin = self.margin(progress)
        return cross_entropy(self.logits, self.mask, chunks, self.remat, margin, left_BF, right_BF, target_BE)


@register_objective("infonce")
@dataclasses.dataclass(frozen=True, kw_only=True)
class InfoNCE(ContrastiveObjective):
    """Cosines over a learned temperature (CLIP: Radford et al. 2021, figure 3)."""

    temperature: float = setting(0.07, "Initial value of the learned temperature.", gt=0, le=1000)

    def init(self) -> Params:
        """The logarithm of the inverse temperature."""
        return {"log_scale": jnp.asarray(-math.log(self.temperature), jnp.float32)}

    def left(self, params: Params, predicted_BE: Float[Array, "B E"]) -> Float[Array, "B E"]:
        """Unit predictions over the temperature."""
        # Logits are never scaled by more than 100, so that training stays stable (CLIP section 2.5).
        scale = jnp.exp(jnp.minimum(params["log_scale"], math.log(100)))
        return scale * unit(predicted_BE)

    def metrics(self, params: Params, progress: Progress) -> Mapping[str, Array]:
        """The learned temperature."""
        return {"temperature": jnp.exp(-params["log_scale"])}


@register_objective("inverse_euclidean")
@dataclasses.dataclass(frozen=True, kw_only=True)
class InverseEuclidean(ContrastiveObjective):
    """CLIP2CLAP's logits (Wong): 1/‖ẑᵢ − yⱼ‖ less a growing margin, not below 0.

    The author's code discards the transposed logits and so takes one direction twice; here are both, as the paper's
    text says.
    """

    margin_growth: float = setting(0.0, "What each epoch adds to the margin, from 0; the paper: 0.03.", ge=0, le=1e6)
    margin_max: float = setting(1.0, "Where the margin stops growing.", ge=0, le=1e6)

    # Products are squared distances: ‖ẑ‖² · 1 + 1 · ‖y‖² − 2 ẑ·y.
    def left(self, params: Params, predicted_BE: Float[Array, "B E"]) -> Float[Array, "B F"]:
        """‖ẑ‖² and −2 ẑ, so that products with `right` are squared distances."""
        squares_B1 = jnp.sum(predicted_BE**2, axis=1, keepdims=True)
        return jnp.concatenate([-2 * predicted_BE, squares_B1, jnp.ones_like(squares_B1)], axis=1)

    def right(self, target_BE: Float[Array, "B E"]) -> Float[Array, "B F"]:
        """y and ‖y‖², so that products with `left` are squared distances."""
        squares_B1 = jnp.sum(target_BE**2, axis=1, keepdims=True)
        return jnp.concatenate([target_BE, jnp.ones_like(squares_B1), squares_B1], axis=1)

    def logits(self, products: Float[Array, "..."], margin: Float[Array, ""]) -> Float[Array, "..."]:
        """Inverse distances less the margin, not below 0, of squared distances."""
        return jax.nn.relu(jax.lax.rsqrt(jnp.maximum(products, _SQUARED_FLOOR)) - margin)

    def margin(self, progress: Progress) -> Float[Array, ""]:
        """The margin, which grows with each epoch."""
        return jnp.minimum(self.margin_growth * jnp.floor(progress.epoch), self.margin_max).astype(jnp.float32)

    def metrics(self, params: Params, progress: Progress) -> Mapping[str, Array]:
        """The margin, if it grows."""
        return {"margin": self.margin(progress)} if self.margin_growth else {}


@register_objective("sigmoid")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Sigmoid(PairwiseObjective):
    """Every pair on its own, matching or not (SigLIP: Zhai et al. 2023, algorithm 1), summed over a row's pairs."""

    def init(self) -> Params:
        """SigLIP's own start: temperature 1/10, bias −10."""
        return {"log_scale": jnp.asarray(math.log(10), jnp.float32), "bias": jnp.asarray(-10.0)}

    def loss(
        self, params: Params, predicted_BE: Float[Array, "B E"], target_BE: Float[Array, "B E"], progress: Progress
    ) -> Float[Array, ""]:
        """The binary cross-entropy of all pairs, summed over a row and averaged over rows."""

        def losses(predicted_RE: Array, own_R: Array) -> Array:
            logits_RB = jnp.exp(params["log_scale"]) * unit(predicted_RE) @ target_BE.T + params["bias"]
            is_own_RB = jnp.arange(len(target_BE))[None] == own_R[:, None]
            signed_RB = self.mask(jnp.where(is_own_RB, -logits_RB, logits_RB), target_BE, own_R)
            return jax.nn.softplus(signed_RB).sum(axis=1)  # softplus(−inf) = 0

        chunks = chunk_count(len(predicted_BE), self.loss_chunks)
        return by_chunks(losses, chunks, predicted_BE, jnp.arange(len(predicted_BE))).sum() / len(predicted_BE)

    def metrics(self, params: Params, progress: Progress) -> Mapping[str, Array]:
        """The learned temperature."""
        return {"temperature": jnp.exp(-params["log_scale"])}


@register_objective("l1")
@dataclasses.dataclass(frozen=True, kw_only=True)
class L1(Objective):
    """The mean absolute difference of coordinates, as torch.nn.L1Loss."""

    def loss(
        self, params: Params, predicted_BE: Float[Array, "B E"], target_BE: Float[Array, "B E"], progress: Progress
    ) -> Float[Array, ""]:
        """The mean over rows and coordinates."""
        return jnp.abs(predicted_BE - target_BE).mean()


@register_objective("l2")
@dataclasses.dataclass(frozen=True, kw_only=True)
class L2(Objective):
    """The mean Euclidean distance."""

    def loss(
        self, params: Params, predicted_BE: Float[Array, "B E"], target_BE: Float[Array, "B E"], progress: Progress
    ) -> Float[Array, ""]:
        """The mean over rows."""
        squared_B = jnp.sum((predicted_BE - target_BE) ** 2, axis=1)
        return jnp.sqrt(jnp.maximum(squared_B, _SQUARED_FLOOR)).mean()


@register_objective("cosine")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine(Objective):
    """The mean of 1 − cosine."""

    def loss(
        self, params: Params, predicted_BE: Float[Array, "B E"], target_BE: Float[Array, "B E"], progress: Progress
    ) -> Float[Array, ""]:
        """The mean over rows."""
        return (1 - jnp.sum(unit(predicted_BE) * target_BE, axis=1)).mean()

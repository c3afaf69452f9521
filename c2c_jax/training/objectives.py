"""Training objectives, which compare predicted with true target vectors of one global batch.

Row i of the predictions belongs to row i of the targets. Contrastive objectives use all other rows as its negatives.
Targets are unit vectors and get no gradient. Objectives are written for a single device: under `jit` they see the
arrays of the whole batch, however many devices it is spread over. docs/extending.md shows how to add one.
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

from c2c_jax.config import register_class, setting, settings_as
from c2c_jax.errors import ConfigError
from c2c_jax.spaces.models.layers import unit
from c2c_jax.training.contrast import by_chunks, cross_entropy

# Minimum of squared distances. It keeps their inverse roots and gradients finite: two equal vectors get the logit 1000.
# It is above the float32 error of a squared distance computed from products, about 1e-7 for unit vectors.
_SQUARED_FLOOR = 1e-6

Params = dict[str, Array]


class TrainingProgress(NamedTuple):
    """How far training has come. step: steps done. epoch: passes over the training rows, as a fraction."""

    step: ArrayLike = 0
    epoch: ArrayLike = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """Base class of objectives: a frozen dataclass whose fields are its settings, declared with `config.setting`."""

    def init(self) -> Params:
        """Initial values of the objective's learned parameters, such as the temperature."""
        return {}

    def loss(
        self,
        params: Params,
        predicted_BE: Float[Array, "B E"],
        target_BE: Float[Array, "B E"],
        progress: TrainingProgress,
    ) -> Float[Array, ""]:
        """The loss of a batch. predicted_BE: the translator's outputs, not normalised. target_BE: unit vectors."""
        raise NotImplementedError

    def metrics(self, params: Params, progress: TrainingProgress) -> Mapping[str, Array]:
        """Metrics to log in addition to the loss."""
        return {}


OBJECTIVES: dict[str, type[Objective]] = {}
Class = TypeVar("Class", bound=type[Objective])


def register_objective(name: str) -> Callable[[Class], Class]:
    """Class decorator that makes an objective available as `config.objective.kind`. Raises ConfigError, see
    `register_class`, and for a class whose settings no `@dataclass` declares."""

    def register(cls: Class) -> Class:
        if "__dataclass_fields__" not in vars(cls):
            raise ConfigError(
                f"objective {name!r}: put @dataclasses.dataclass(frozen=True, kw_only=True) on {cls.__name__}"
            )
        register_class(OBJECTIVES, "objective", name, cls)
        return cls

    return register


@dataclasses.dataclass(frozen=True)
class WeightedSum:
    """The loss that training minimises: a weighted sum of objectives. terms: name → (weight, objective)."""

    terms: Mapping[str, tuple[float, Objective]]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of all terms by name, without those in which terms differ, since each has its own default."""
        terms = [dataclasses.asdict(objective) for _, objective in self.terms.values()]
        names = {name for term in terms for name in term}
        values = {name: [term[name] for term in terms if name in term] for name in names}
        return {name: first for name, (first, *rest) in sorted(values.items()) if all(value == first for value in rest)}

    def init(self) -> dict[str, Params]:
        """Initial values of all objectives' learned parameters, by objective name."""
        return {name: objective.init() for name, (_, objective) in self.terms.items()}

    def loss(
        self,
        params: dict[str, Params],
        predicted_BE: Float[Array, "B E"],
        target_BE: Float[Array, "B E"],
        progress: TrainingProgress = TrainingProgress(),  # noqa: B008
    ) -> Float[Array, ""]:
        """The weighted sum of the losses of a batch; see `Objective.loss`."""
        losses = [
            weight * objective.loss(params[name], predicted_BE, target_BE, progress)
            for name, (weight, objective) in self.terms.items()
        ]
        return sum(losses, start=jnp.zeros(()))

    def metrics(self, params: dict[str, Params], progress: TrainingProgress) -> dict[str, Array]:
        """The metrics of all objectives, by name."""
        metrics: dict[str, Array] = {}
        for name, (_, objective) in self.terms.items():
            metrics |= objective.metrics(params[name], progress)
        return {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()}


def parse_objective(text: str) -> dict[str, float]:
    """Parses an objective's name: `infonce + 0.5*l2` → {"infonce": 1.0, "l2": 0.5}. Raises ConfigError."""
    weights: dict[str, float] = {}
    for term in text.split("+"):
        match = re.fullmatch(r"\s*(?:([0-9.eE-]+)\s*\*\s*)?(\w+)\s*", term)
        if match is None or match[2] not in OBJECTIVES:
            raise ConfigError(
                f"config.objective.kind is {text!r}; known are {', '.join(OBJECTIVES)}, weighted sums such as "
                "'infonce + 0.5*l2', and those that the recipe's imports register"
            )
        try:
            weight = float(match[1] or 1)
        except ValueError:
            raise ConfigError(f"config.objective.kind is {text!r}: {match[1]!r} is not a number") from None
        if not 0 < weight < math.inf or match[2] in weights:
            raise ConfigError(
                f"config.objective.kind is {text!r}: weights must be above 0, and each objective named once"
            )
        weights[match[2]] = weight
    return weights


def build_objective(kind: str, settings: Mapping[str, Any] | None = None) -> WeightedSum:
    """Builds an objective, or a weighted sum of several, from its name and settings. In a sum, each setting that is
    given goes to every objective that has it. Raises ConfigError for an unknown objective or setting, and for a value
    of the wrong type or out of bounds."""
    settings, path = settings or {}, "config.objective.settings."
    weights = parse_objective(kind)
    fields = {name: {field.name for field in dataclasses.fields(OBJECTIVES[name])} for name in weights}
    known = set().union(*fields.values())
    if unknown := next((name for name in settings if name not in known), None):
        raise ConfigError(f"{path}{unknown} is unknown; {kind} has {', '.join(sorted(known)) or 'no settings'}")
    terms = {}
    for name, weight in weights.items():
        own = {field: value for field, value in settings.items() if field in fields[name]}
        terms[name] = weight, settings_as(OBJECTIVES[name], own, path)
    return WeightedSum(terms)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairwiseObjective(Objective):
    """Base class of objectives that compare every prediction with every target of a batch."""

    false_negative_threshold: float = setting(
        1.0,
        "Pairs of captions whose target cosine exceeds this are excluded as negatives; 1 = exclude none.",
        ge=-1,
        le=1,
    )
    loss_chunks: int = setting(
        0,
        "Approximate number of chunks in which the logits are computed; the nearest number that divides the rows of a "
        "device is used. 0 = by batch size and device.",
        ge=0,
        le=2**20,
    )
    remat: bool = setting(
        False,
        "Whether gradients recompute the logits, which saves memory. Above 1 GiB per device, and for sigmoid, they "
        "always do.",
    )

    def mask(
        self, logits_RB: Float[Array, "R B"], target_BE: Float[Array, "B E"], own_R: Int[Array, "R"]
    ) -> Float[Array, "R B"]:
        """Replaces the logits of false negatives by −inf. own_R: column of each row's own target."""
        if self.false_negative_threshold >= 1:
            return logits_RB
        cosines_RB = target_BE[own_R] @ target_BE.T
        is_own_RB = jnp.arange(len(target_BE))[None] == own_R[:, None]
        return jnp.where((cosines_RB > self.false_negative_threshold) & ~is_own_RB, -jnp.inf, logits_RB)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContrastiveObjective(PairwiseObjective):
    """Symmetric cross-entropy of logits that are a function of scalar products.

    The logits are `logits(left(predicted) @ right(target).T, margin)`. The loss is the mean of the cross-entropies
    along rows and along columns. Subclasses define `left`, `right`, `logits` and `margin`.
    """

    def left(self, params: Params, predicted_BE: Float[Array, "B E"]) -> Float[Array, "B F"]:
        """The left factor of the products, one row per prediction."""
        raise NotImplementedError

    def right(self, target_BE: Float[Array, "B E"]) -> Float[Array, "B F"]:
        """The right factor of the products, one row per target."""
        return target_BE

    def logits(self, products: Float[Array, "..."], margin: Float[Array, ""]) -> Float[Array, "..."]:
        """Maps products to logits, elementwise."""
        return products

    def margin(self, progress: TrainingProgress) -> Float[Array, ""]:
        """The margin that `logits` subtracts."""
        return jnp.zeros(())

    def loss(
        self,
        params: Params,
        predicted_BE: Float[Array, "B E"],
        target_BE: Float[Array, "B E"],
        progress: TrainingProgress,
    ) -> Float[Array, ""]:
        """The symmetric cross-entropy of a batch in nats, exact over all pairs."""
        left_BF, right_BF = self.left(params, predicted_BE), self.right(target_BE)
        margin = self.margin(progress)
        return cross_entropy(self.logits, self.mask, self.loss_chunks, self.remat, margin, left_BF, right_BF, target_BE)


@register_objective("infonce")
@dataclasses.dataclass(frozen=True, kw_only=True)
class InfoNCE(ContrastiveObjective):
    """Symmetric InfoNCE: cosines divided by a learned temperature (CLIP: Radford et al. 2021, figure 3)."""

    temperature: float = setting(0.07, "Initial value of the learned temperature.", gt=0, le=1000)

    def init(self) -> Params:
        """The logarithm of the inverse temperature."""
        return {"log_scale": jnp.asarray(-math.log(self.temperature), jnp.float32)}

    def left(self, params: Params, predicted_BE: Float[Array, "B E"]) -> Float[Array, "B E"]:
        """Unit predictions divided by the temperature."""
        # Logits are never scaled by more than 100, so that training stays stable (CLIP section 2.5).
        scale = jnp.exp(jnp.minimum(params["log_scale"], math.log(100)))
        return scale * unit(predicted_BE)

    def metrics(self, params: Params, progress: TrainingProgress) -> Mapping[str, Array]:
        """The learned temperature."""
        return {"temperature": jnp.exp(-params["log_scale"])}


@register_objective("inverse_euclidean")
@dataclasses.dataclass(frozen=True, kw_only=True)
class InverseEuclidean(ContrastiveObjective):
    """CLIP2CLAP's objective (Wong): logits are max(1/‖ẑᵢ − yⱼ‖ − margin, 0), with a margin that grows by epoch.

    Both directions are averaged, as the paper says; the author's code discards the transposed logits and counts one
    direction twice.
    """

    margin_growth: float = setting(0.0, "Growth of the margin per epoch, from 0; the paper uses 0.03.", ge=0, le=1e6)
    margin_max: float = setting(1.0, "Maximum of the margin.", ge=0, le=1e6)

    # Products are squared distances: ‖ẑ‖² · 1 + 1 · ‖y‖² − 2 ẑ·y.
    def left(self, params: Params, predicted_BE: Float[Array, "B E"]) -> Float[Array, "B F"]:
        """−2 ẑ, ‖ẑ‖² and 1, so that products with `right` are squared distances."""
        squares_B1 = jnp.sum(predicted_BE**2, axis=1, keepdims=True)
        return jnp.concatenate([-2 * predicted_BE, squares_B1, jnp.ones_like(squares_B1)], axis=1)

    def right(self, target_BE: Float[Array, "B E"]) -> Float[Array, "B F"]:
        """y, 1 and ‖y‖², so that products with `left` are squared distances."""
        squares_B1 = jnp.sum(target_BE**2, axis=1, keepdims=True)
        return jnp.concatenate([target_BE, jnp.ones_like(squares_B1), squares_B1], axis=1)

    def logits(self, products: Float[Array, "..."], margin: Float[Array, ""]) -> Float[Array, "..."]:
        """Inverse distances minus the margin, at least 0. products: squared distances."""
        return jax.nn.relu(jax.lax.rsqrt(jnp.maximum(products, _SQUARED_FLOOR)) - margin)

    def margin(self, progress: TrainingProgress) -> Float[Array, ""]:
        """The margin of the current epoch."""
        return jnp.minimum(self.margin_growth * jnp.floor(progress.epoch), self.margin_max).astype(jnp.float32)

    def metrics(self, params: Params, progress: TrainingProgress) -> Mapping[str, Array]:
        """The margin, if it grows."""
        return {"margin": self.margin(progress)} if self.margin_growth else {}


@register_objective("sigmoid")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Sigmoid(PairwiseObjective):
    """Binary cross-entropy of every pair, matching or not (SigLIP: Zhai et al. 2023, algorithm 1)."""

    def init(self) -> Params:
        """SigLIP's initial values: temperature 1/10, bias −10."""
        return {"log_scale": jnp.asarray(math.log(10), jnp.float32), "bias": jnp.asarray(-10.0)}

    def loss(
        self,
        params: Params,
        predicted_BE: Float[Array, "B E"],
        target_BE: Float[Array, "B E"],
        progress: TrainingProgress,
    ) -> Float[Array, ""]:
        """The binary cross-entropy of all pairs, summed over a row and averaged over rows."""

        def losses(predicted_RE: Array, own_R: Array) -> Array:
            logits_RB = jnp.exp(params["log_scale"]) * unit(predicted_RE) @ target_BE.T + params["bias"]
            is_own_RB = jnp.arange(len(target_BE))[None] == own_R[:, None]
            signed_RB = self.mask(jnp.where(is_own_RB, -logits_RB, logits_RB), target_BE, own_R)
            return jax.nn.softplus(signed_RB).sum(axis=1)  # softplus(−inf) = 0

        own_B = jnp.arange(len(predicted_BE))
        return by_chunks(losses, self.loss_chunks, predicted_BE, own_B).sum() / len(predicted_BE)

    def metrics(self, params: Params, progress: TrainingProgress) -> Mapping[str, Array]:
        """The learned temperature."""
        return {"temperature": jnp.exp(-params["log_scale"])}


@register_objective("l1")
@dataclasses.dataclass(frozen=True, kw_only=True)
class L1(Objective):
    """The mean absolute difference of coordinates, like torch.nn.L1Loss."""

    def loss(
        self,
        params: Params,
        predicted_BE: Float[Array, "B E"],
        target_BE: Float[Array, "B E"],
        progress: TrainingProgress,
    ) -> Float[Array, ""]:
        """The mean over rows and coordinates."""
        return jnp.abs(predicted_BE - target_BE).mean()


@register_objective("l2")
@dataclasses.dataclass(frozen=True, kw_only=True)
class L2(Objective):
    """The mean Euclidean distance."""

    def loss(
        self,
        params: Params,
        predicted_BE: Float[Array, "B E"],
        target_BE: Float[Array, "B E"],
        progress: TrainingProgress,
    ) -> Float[Array, ""]:
        """The mean over rows."""
        squared_B = jnp.sum((predicted_BE - target_BE) ** 2, axis=1)
        return jnp.sqrt(jnp.maximum(squared_B, _SQUARED_FLOOR)).mean()


@register_objective("cosine")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine(Objective):
    """The mean of 1 − cosine."""

    def loss(
        self,
        params: Params,
        predicted_BE: Float[Array, "B E"],
        target_BE: Float[Array, "B E"],
        progress: TrainingProgress,
    ) -> Float[Array, ""]:
        """The mean over rows."""
        return (1 - jnp.sum(unit(predicted_BE) * target_BE, axis=1)).mean()

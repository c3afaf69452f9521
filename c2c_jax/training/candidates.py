"""Selects what a run publishes: the trained translator, a closed-form linear map, or a blend of the two.

Each of these candidates is scored with and without the caption memory at every validation.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Float

from c2c_jax.config import PERTURBED_MRR, PERTURBED_SCORES
from c2c_jax.training.closed_form import Moments, procrustes, ridge, set_linear
from c2c_jax.training.selection import PerturbedCaptions
from c2c_jax.translator.bundle import Choice
from c2c_jax.translator.kinds import Residual, Translator, TranslatorSpec, build_translator

ROTATED_FRACTION = 0.75  # of the directions, by how much the two spaces covary in them
RIDGE = 1.0  # ridge penalty, in units of the inputs' mean square
BLENDS = (0.25, 0.5, 1.0)  # weights of the trained translator; 1 = unblended

Outputs = dict[bool, Float[np.ndarray, "Q E"]]  # by whether the memory is used


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LinearMap:
    """A linear map from unit vectors x to (√S x @ kernel + bias) / length.

    length: the mean length of the outputs before the division.
    """

    name: str
    kernel_SE: Float[np.ndarray, "S E"]
    bias_E: Float[np.ndarray, "E"]
    length: float = 1.0

    def __call__(self, input_QS: Float[np.ndarray, "Q S"]) -> Float[np.ndarray, "Q E"]:
        """Maps unit inputs."""
        scaled_QS = input_QS * math.sqrt(input_QS.shape[1])
        return (scaled_QS @ self.kernel_SE + self.bias_E).astype(np.float32) / self.length


def closed_form_maps(moments: Moments, input_QS: Float[np.ndarray, "Q S"]) -> list[LinearMap]:
    """Fits three linear maps in closed form: a partial rotation, a ridge regression, and the mean of the two.

    The partial rotation keeps only the directions in which the two spaces covary most. The others are mostly noise:
    real images are translated better without them (docs/recipe.md). The outputs for `input_QS` have a mean length of 1.
    """
    fits = {"partial rotation": procrustes(moments, ROTATED_FRACTION), "ridge": ridge(moments, RIDGE)}
    maps = [_with_unit_length(name, *fit, input_QS) for name, fit in fits.items()]
    partial, other = maps
    kernel_SE = partial.kernel_SE / partial.length + other.kernel_SE / other.length
    bias_E = partial.bias_E / partial.length + other.bias_E / other.length
    return [*maps, _with_unit_length("partial rotation and ridge", kernel_SE, bias_E, input_QS)]


def _with_unit_length(name: str, kernel_SE: np.ndarray, bias_E: np.ndarray, input_QS: np.ndarray) -> LinearMap:
    linear = LinearMap(name=name, kernel_SE=kernel_SE, bias_E=bias_E)
    return dataclasses.replace(linear, length=_mean_length(linear(input_QS)))


def _mean_length(output_QE: np.ndarray) -> float:
    return max(float(np.mean(np.linalg.norm(output_QE, axis=1))), 1e-12)


class CandidateSelector:
    """Selects the best candidate at every validation.

    select_by: `noisy_mrr` or `noisy_cosine`; see `PerturbedCaptions.scores`. maps: closed-form maps to compare with;
    empty if the trained translator is the only candidate. final: the same maps refitted to all captions, held-out ones
    included, for the bundle. memory_is_optional: whether every candidate is also scored without the memory.
    """

    def __init__(
        self,
        perturbed: PerturbedCaptions,
        maps: list[LinearMap],
        final: list[LinearMap],
        *,
        memory_is_optional: bool,
        select_by: str = PERTURBED_MRR,
    ):
        self.perturbed, self.select_by = perturbed, select_by
        self.memory_uses = list(perturbed.inputs) if memory_is_optional else [max(perturbed.inputs)]
        self.final = {linear.name: linear for linear in final}
        self.scores: dict[str, dict[str, float]] = {}  # of the closed-form maps, by candidate
        self.linear: tuple[LinearMap, Outputs] | None = None  # the best closed-form map
        best = -math.inf
        for linear in maps:
            outputs = {use: linear(perturbed.inputs[use]) for use in self.memory_uses}
            for use in self.memory_uses:
                scores = self.scores[_name(0.0, linear.name, use)] = perturbed.scores(outputs[use])
                if scores[select_by] > best:
                    best, self.linear = scores[select_by], (linear, outputs)

    def select(self, translate: Callable[[np.ndarray], np.ndarray]) -> tuple[Choice, dict[str, float], float]:
        """Scores the translator, the best closed-form map, and their blends. Returns the best candidate, its scores,
        and the mean length of the translator's outputs. translate: maps inputs [Q, S] to outputs [Q, E]."""
        outputs = {use: translate(self.perturbed.inputs[use]) for use in self.memory_uses}
        length, scores = _mean_length(outputs[self.memory_uses[0]]), dict(self.scores)
        candidates: list[tuple[float, float, str, bool]] = []  # the simplest first: it wins ties
        if self.linear:
            name = self.linear[0].name
            candidates += [(scores[_name(0.0, name, use)][self.select_by], 0.0, name, use) for use in self.memory_uses]
        weights = BLENDS if self.linear else (1.0,)
        for weight, use in itertools.product(weights, self.memory_uses):
            name = self.linear[0].name if self.linear and weight < 1 else ""
            mixed_QE = outputs[use] / length * weight if self.linear else outputs[use]
            if self.linear and weight < 1:
                mixed_QE = mixed_QE + (1 - weight) * self.linear[1][use]
            mixed_scores = scores[_name(weight, name, use)] = self.perturbed.scores(mixed_QE)
            candidates.append((mixed_scores[self.select_by], weight, name, use))
        _, weight, name, use = max(candidates, key=lambda candidate: candidate[0])
        choice = Choice(
            trained=weight,
            linear=name,
            memory=use,
            pair_cosine=self.perturbed.pair_cosine,
            selected_by=self.select_by,  # type: ignore[arg-type]
            **{score: {name: candidate[score] for name, candidate in scores.items()} for score in PERTURBED_SCORES},
        )
        return choice, scores[_name(weight, name, use)], length

    def build(self, choice: Choice, translator: Translator, length: float, *, final: bool = False) -> Translator:
        """Builds the selected candidate as a single translator. length: as returned by `select`. final: whether to use
        the closed-form map that is fitted to all captions, instead of the one that was scored."""
        if choice.trained == 1 or self.linear is None:
            return translator
        linear = self.final[choice.linear] if final else self.linear[0]
        scale, rest = choice.trained / length, (1 - choice.trained) / linear.length
        if not choice.trained:
            single = build_translator(_linear_spec(translator.spec, linear.name), rngs=nnx.Rngs(0))
            set_linear(single, rest * linear.kernel_SE, rest * linear.bias_E)
            return single
        return blend(translator, scale, rest * linear.kernel_SE, rest * linear.bias_E)


def blend(
    translator: Translator, scale: float, kernel_SE: Float[np.ndarray, "S E"], bias_E: Float[np.ndarray, "E"]
) -> Translator:
    """A residual translator that outputs `scale` times what `translator` does, plus the output of a linear map."""
    if not isinstance(translator, Residual):
        raise ValueError(f"a translator of kind {translator.spec.kind} has no linear layer to blend a map into")
    mixed = nnx.clone(translator)
    kernel, bias = map(np.asarray, _weights(translator.linear))
    set_linear(mixed, scale * kernel + kernel_SE, scale * bias + bias_E)
    last = mixed.layers[-1]
    last.kernel, last.bias = (nnx.Param(scale * weights) for weights in _weights(last))
    return mixed


def _weights(linear: nnx.Linear) -> tuple[Any, Any]:
    assert linear.bias is not None
    return linear.kernel[...], linear.bias[...]


def _linear_spec(spec: TranslatorSpec, linear: str) -> TranslatorSpec:
    kind = "ridge" if "ridge" in linear else "procrustes"
    return TranslatorSpec.from_json({**spec.to_json(), "kind": kind})


def _name(trained: float, linear: str, memory: bool) -> str:
    parts = [f"{trained:g} trained" if 0 < trained < 1 else "trained" if trained else "", linear]
    return " + ".join(filter(None, parts)) + (", memory" if memory else "")

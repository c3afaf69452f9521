"""Candidates that compete with the trained translator: closed-form maps, blends, and each without the memory."""

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
from c2c_jax.training.selection import Surrogates
from c2c_jax.translator.bundle import Choice
from c2c_jax.translator.kinds import Residual, Translator, TranslatorSpec, build_translator

KEPT_DIRECTIONS = 0.75  # fraction of the directions that are rotated, those in which the spaces agree most
RIDGE = 1.0  # ridge penalty, relative to the inputs' mean square
BLENDS = (0.25, 0.5, 1.0)  # weights of the trained translator

Outputs = dict[bool, Float[np.ndarray, "Q E"]]  # by whether the memory is used


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Linear:
    """A linear map of a translator's scaled inputs. length: average length of its outputs, to divide them by."""

    name: str
    kernel_SE: Float[np.ndarray, "S E"]
    bias_E: Float[np.ndarray, "E"]
    length: float = 1.0

    def __call__(self, input_QS: Float[np.ndarray, "Q S"]) -> Float[np.ndarray, "Q E"]:
        """Outputs for unit inputs, divided by their average length."""
        scaled_QS = input_QS * math.sqrt(input_QS.shape[1])
        return (scaled_QS @ self.kernel_SE + self.bias_E).astype(np.float32) / self.length


def linear_maps(moments: Moments, input_QS: Float[np.ndarray, "Q S"]) -> list[Linear]:
    """Three closed-form maps: the partial rotation, which rotates only the directions in which the spaces agree most,
    the ridge, and the mean of the two. Their outputs for `input_QS` have an average length of 1. The directions that
    are left out are mostly noise: on real vectors, pictures are translated better without them (docs/recipe.md)."""
    fits = {"partial rotation": procrustes(moments, KEPT_DIRECTIONS), "ridge": ridge(moments, RIDGE)}
    maps = [_of_unit_length(name, *fit, input_QS) for name, fit in fits.items()]
    partial, other = maps
    kernel_SE = partial.kernel_SE / partial.length + other.kernel_SE / other.length
    bias_E = partial.bias_E / partial.length + other.bias_E / other.length
    return [*maps, _of_unit_length("partial rotation and ridge", kernel_SE, bias_E, input_QS)]


def _of_unit_length(name: str, kernel_SE: np.ndarray, bias_E: np.ndarray, input_QS: np.ndarray) -> Linear:
    found = Linear(name=name, kernel_SE=kernel_SE, bias_E=bias_E)
    return dataclasses.replace(found, length=_length(found(input_QS)))


def _length(output_QE: np.ndarray) -> float:
    return max(float(np.mean(np.linalg.norm(output_QE, axis=1))), 1e-12)


class CandidateSelector:
    """Selects the best candidate at every validation.

    select_by: `noisy_mrr` or `noisy_cosine`; see `Surrogates.scores`. maps: closed-form maps that compete; empty if the
    translator is the only candidate. final: the same maps, fitted to the held-out captions as well: what the bundle
    gets. memory_is_optional: whether candidates without the memory compete as well.
    """

    def __init__(
        self,
        surrogates: Surrogates,
        maps: list[Linear],
        final: list[Linear],
        *,
        memory_is_optional: bool,
        select_by: str = PERTURBED_MRR,
    ):
        self.surrogates, self.select_by = surrogates, select_by
        self.memory_uses = list(surrogates.inputs) if memory_is_optional else [max(surrogates.inputs)]
        self.final = {one.name: one for one in final}
        self.scores: dict[str, dict[str, float]] = {}  # by candidate
        self.linear: tuple[Linear, Outputs] | None = None
        best = -math.inf
        for one in maps:
            outputs = {use: one(surrogates.inputs[use]) for use in self.memory_uses}
            for use in self.memory_uses:
                scores = self.scores[_name(0.0, one.name, use)] = surrogates.scores(outputs[use])
                if scores[select_by] > best:
                    best, self.linear = scores[select_by], (one, outputs)

    def select(self, translate: Callable[[np.ndarray], np.ndarray]) -> tuple[Choice, dict[str, float], float]:
        """Scores the translator, the best closed-form map, and their blends. Returns the best of them, its scores, and
        the average length of the translator's outputs. translate: the translator as a function of its inputs [Q, S]."""
        outputs = {use: translate(self.surrogates.inputs[use]) for use in self.memory_uses}
        length, scores = _length(outputs[self.memory_uses[0]]), dict(self.scores)
        found: list[tuple[float, float, str, bool]] = []  # ties go to the first, which is the simplest
        if self.linear:
            name = self.linear[0].name
            found += [(scores[_name(0.0, name, use)][self.select_by], 0.0, name, use) for use in self.memory_uses]
        weights = BLENDS if self.linear else (1.0,)
        for weight, use in itertools.product(weights, self.memory_uses):
            name = self.linear[0].name if self.linear and weight < 1 else ""
            mixed_QE = outputs[use] / length * weight if self.linear else outputs[use]
            if self.linear and weight < 1:
                mixed_QE = mixed_QE + (1 - weight) * self.linear[1][use]
            mixed_scores = scores[_name(weight, name, use)] = self.surrogates.scores(mixed_QE)
            found.append((mixed_scores[self.select_by], weight, name, use))
        _, weight, name, use = max(found, key=lambda one: one[0])
        choice = Choice(
            trained=weight,
            linear=name,
            memory=use,
            pair_cosine=self.surrogates.pair_cosine,
            selected_by=self.select_by,  # type: ignore[arg-type]
            **{score: {name: of_one[score] for name, of_one in scores.items()} for score in PERTURBED_SCORES},
        )
        return choice, scores[_name(weight, name, use)], length

    def built(self, choice: Choice, translator: Translator, length: float, *, final: bool = False) -> Translator:
        """Builds the selected candidate as one translator. length: as returned by `select`. final: with the map that is
        fitted to all captions, instead of the one that was scored."""
        if choice.trained == 1 or self.linear is None:
            return translator
        linear = self.final[choice.linear] if final else self.linear[0]
        share, rest = choice.trained / length, (1 - choice.trained) / linear.length
        if not choice.trained:
            single = build_translator(_linear_spec(translator.spec, linear.name), rngs=nnx.Rngs(0))
            set_linear(single, rest * linear.kernel_SE, rest * linear.bias_E)
            return single
        return blended(translator, share, rest * linear.kernel_SE, rest * linear.bias_E)


def blended(
    translator: Translator, share: float, kernel_SE: Float[np.ndarray, "S E"], bias_E: Float[np.ndarray, "E"]
) -> Translator:
    """A residual translator that outputs `share` times what `translator` does, plus the outputs of a linear map."""
    if not isinstance(translator, Residual):
        raise ValueError(f"a translator of kind {translator.spec.kind} has no linear layer to blend a map into")
    mixed = nnx.clone(translator)
    kernel, bias = (np.asarray(one) for one in _weights(translator.linear))
    set_linear(mixed, share * kernel + kernel_SE, share * bias + bias_E)
    last = mixed.layers[-1]
    last.kernel, last.bias = (nnx.Param(share * one) for one in _weights(last))
    return mixed


def _weights(linear: nnx.Linear) -> tuple[Any, Any]:
    """Kernel and bias, on the device or on the host."""
    assert linear.bias is not None
    return linear.kernel[...], linear.bias[...]


def _linear_spec(spec: TranslatorSpec, linear: str) -> TranslatorSpec:
    kind = "ridge" if "ridge" in linear else "procrustes"
    return TranslatorSpec.from_json({**spec.to_json(), "kind": kind})


def _name(trained: float, linear: str, memory: bool) -> str:
    parts = [f"{trained:g} trained" if 0 < trained < 1 else "trained" if trained else "", linear]
    return " + ".join(filter(None, parts)) + (", memory" if memory else "")

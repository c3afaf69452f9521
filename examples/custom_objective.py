"""Trains with a custom objective: a margin to the hardest negative, as in VSE++ (Faghri et al. 2018).

    python examples/custom_objective.py

An objective is a dataclass; its fields are its settings. `loss` receives the whole batch, however many devices share
it: the translator's outputs, not normalised, and the targets, unit vectors. docs/extending.md has more, such as
parameters that are learned with the translator.
"""

import dataclasses

import jax
import jax.numpy as jnp

import c2c_jax
from c2c_jax.config import setting
from c2c_jax.miniworld.captions import captions
from c2c_jax.training.objectives import Objective, register_objective


@register_objective("hardest_negative")
@dataclasses.dataclass(frozen=True, kw_only=True)
class HardestNegative(Objective):
    margin: float = setting(0.2, "Margin by which a pair must exceed the largest other cosine.", gt=0, le=2)

    def loss(self, params, predicted_BE, target_BE, progress):
        predicted_BE = predicted_BE / jnp.linalg.norm(predicted_BE, axis=1, keepdims=True)
        cosines_BB = predicted_BE @ target_BE.T
        pairs_B = jnp.diag(cosines_BB)
        hardest_B = jnp.where(jnp.eye(len(pairs_B), dtype=bool), -1.0, cosines_BB).max(axis=1)
        return jax.nn.relu(self.margin + hardest_B - pairs_B).mean()


def main() -> None:
    texts = list(captions("train", 2000))
    clip, clap = c2c_jax.load_space("miniworld/clip"), c2c_jax.load_space("miniworld/clap")
    vectors = clip.encode_text(texts), clap.encode_text(texts)
    for objective in ("infonce", "hardest_negative"):
        # With adapt=False, the trained translator itself is returned, even if a closed-form map scores better.
        translator = c2c_jax.fit(*vectors, objective={"kind": objective}, adapt=False, steps=200, progress=False)
        print(f"{objective:17} recall@1 {translator.metrics['recall@1']:.3f}")


if __name__ == "__main__":
    main()

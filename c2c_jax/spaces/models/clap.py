"""CLAP whole (Wu et al. 2023), attribute by attribute as in Hugging Face's ClapModel."""

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from c2c_jax.spaces.models.clap_audio import ClapAudioConfig, ClapAudioModelWithProjection
from c2c_jax.spaces.models.clap_text import ClapTextConfig, ClapTextModel, text_projection
from c2c_jax.spaces.packing import TokenRows


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClapConfig:
    text: ClapTextConfig
    audio: ClapAudioConfig
    logit_scale_init_value: float  # of nothing that is read


class ClapModel(ClapAudioModelWithProjection):
    """Both towers and their projections into the joint space of width E."""

    def __init__(self, config: ClapConfig, *, rngs: nnx.Rngs):
        super().__init__(config.audio, rngs=rngs)
        self.text_model = ClapTextModel(config.text, rngs=rngs)
        self.text_projection = text_projection(config.text, rngs)
        # Of sounds against texts, and of texts against sounds: the logarithms of inverse temperatures.
        self.logit_scale_a = nnx.Param(jnp.log(jnp.asarray(config.logit_scale_init_value)))
        self.logit_scale_t = nnx.Param(jnp.log(jnp.asarray(config.logit_scale_init_value)))

    def encode_text(self, tokens: TokenRows) -> Float[Array, "R Q E"]:
        """Text projections before L2 normalisation."""
        return self.text_projection(self.text_model(tokens))

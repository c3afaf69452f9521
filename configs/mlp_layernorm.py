"""Four layers of linear, tanh and LayerNorm with cosines over a learned temperature, as in CLIP2CLAP's code.

The settings are in c2c_jax/recipes/mlp_layernorm.py.
"""

from c2c_jax.recipes.mlp_layernorm import get_config

__all__ = ["get_config"]

"""CLIP2CLAP's four-layer MLP with tanh and LayerNorm: cosines over a learned temperature.

The settings are in c2c_jax/recipes/mlp_layernorm.py.
"""

from c2c_jax.recipes.mlp_layernorm import get_config

__all__ = ["get_config"]

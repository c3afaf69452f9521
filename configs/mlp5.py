"""Five layers of linear and tanh with cosines over a learned temperature, as in CLIP2CLAP's code.

The settings are in c2c_jax/recipes/mlp5.py.
"""

from c2c_jax.recipes.mlp5 import get_config

__all__ = ["get_config"]

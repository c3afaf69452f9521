"""CLIP2CLAP's five-layer tanh MLP on Google Conceptual Captions: cosines over a learned temperature.

The settings are in c2c_jax/recipes/mlp5.py.
"""

from c2c_jax.recipes.mlp5 import get_config

__all__ = ["get_config"]

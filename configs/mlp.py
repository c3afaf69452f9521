"""The CLIP2CLAP paper's model on Google Conceptual Captions: a 4-layer tanh MLP, inverse Euclidean objective.

The settings are in c2c_jax/recipes/mlp.py.
"""

from c2c_jax.recipes.mlp import get_config

__all__ = ["get_config"]

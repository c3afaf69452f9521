"""CLIP2CLAP's first model on Google Conceptual Captions: one linear layer with the inverse Euclidean objective.

The settings are in c2c_jax/recipes/linear.py.
"""

from c2c_jax.recipes.linear import get_config

__all__ = ["get_config"]

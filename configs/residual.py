"""A Procrustes rotation plus a GELU MLP, trained with InfoNCE: the best recipe for retrieving captions.

The settings are in c2c_jax/recipes/residual.py.
"""

from c2c_jax.recipes.residual import get_config

__all__ = ["get_config"]

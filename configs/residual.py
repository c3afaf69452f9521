"""A linear layer that starts as the Procrustes rotation, a GELU MLP beside it, and InfoNCE: the best at captions.

The settings are in c2c_jax/recipes/residual.py.
"""

from c2c_jax.recipes.residual import get_config

__all__ = ["get_config"]

"""The recommended recipe: trains on captions, with the help of unlabelled images.

The settings are in c2c_jax/recipes/recommended.py.
"""

from c2c_jax.recipes.recommended import get_config

__all__ = ["get_config"]

"""The recommended recipe on the mini world, with 1,000 unlabelled images and a memory of 8,000 captions.

The settings are in c2c_jax/recipes/miniworld.py.
"""

from c2c_jax.recipes.miniworld import get_config

__all__ = ["get_config"]

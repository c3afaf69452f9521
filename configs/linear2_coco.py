"""CLIP2CLAP's two-layer model on COCO captions: linear, tanh, linear.

The settings are in c2c_jax/recipes/linear2_coco.py.
"""

from c2c_jax.recipes.linear2_coco import get_config

__all__ = ["get_config"]

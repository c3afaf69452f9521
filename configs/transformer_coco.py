"""CLIP2CLAP's transformer on COCO captions: every coordinate of the CLIP vector is a token.

The settings are in c2c_jax/recipes/transformer_coco.py.
"""

from c2c_jax.recipes.transformer_coco import get_config

__all__ = ["get_config"]

"""Recipes: the settings of a training run, one file each."""

import importlib

from c2c_jax.config import Config


def get(name: str) -> Config:
    """The config of a recipe."""
    recipe, _, preset = name.partition(":")
    module = importlib.import_module(f"c2c_jax.recipes.{recipe}")
    return module.get_config(preset) if preset else module.get_config()

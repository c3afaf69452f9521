"""Recipes: the settings of a training run, one file each."""

"""Recipes on real CLIP and CLAP vectors, which others have published."""

"""Generates sounds from CLAP vectors with AudioLDM."""

"""Benchmark of recipes on published CLIP and CLAP vectors."""

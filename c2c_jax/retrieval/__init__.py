"""Exact nearest-neighbour search, and search of sound libraries."""

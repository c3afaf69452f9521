"""Loads and saves checkpoints: one strict engine (`rules`) and one table per format."""

"""Checkpoints in and out: one strict engine (`rules`) and one table per format."""

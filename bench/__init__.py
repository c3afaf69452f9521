"""Benchmarks against reference implementations, and the random checkpoints that benchmarks and tests use."""

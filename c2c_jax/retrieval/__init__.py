"""Exact nearest vectors, and searches of sound libraries."""

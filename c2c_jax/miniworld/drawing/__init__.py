"""Drawings of the sources and backgrounds of the mini world."""

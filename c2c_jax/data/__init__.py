"""Captions, the embedding pass over them and the store it fills."""

"""Reads the structure of audio files to find damage that decoders ignore."""

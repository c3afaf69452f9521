"""Layouts of audio files, read to find damage that decoders pass over."""

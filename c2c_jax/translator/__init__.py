"""Translators, from CLIP vectors to CLAP vectors: kinds, centring, and the bundles they are published in."""

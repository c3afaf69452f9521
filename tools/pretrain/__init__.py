"""Trains the mini world's checkpoints: `python -m tools.pretrain {clip,clap,audioldm}`."""

"""How the mini world's checkpoints were trained: `python -m tools.pretrain {clip,clap,audioldm}`."""

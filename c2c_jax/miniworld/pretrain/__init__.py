"""How the mini world's checkpoints were trained: `python -m c2c_jax.miniworld.pretrain {clip,clap,audioldm}`."""

"""Joint embedding spaces: pretrained CLIP and CLAP checkpoints, their models, weights and preprocessing."""

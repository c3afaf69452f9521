"""The mini world: procedural images, sounds and captions, and the tiny CLIP, CLAP and AudioLDM trained on them."""

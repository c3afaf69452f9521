"""A small procedural world of pictures, sounds and captions, and the tiny CLIP, CLAP and AudioLDM trained on it."""

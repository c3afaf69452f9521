"""Side-by-side measurements, and the random checkpoints and captions they and the tests run on."""

"""Pure architecture in flax.nnx: no files, no tokenizers, nothing else of this package."""

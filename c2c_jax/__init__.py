"""c2c_jax translates CLIP vectors to CLAP vectors, so that an image becomes a sound.

Importing this package imports neither JAX nor torch: `c2c_jax.torch` works on a machine with no JAX.
"""

__version__ = "0.1.0"

"""The Python interface: translators, generation, search and training as functions and a few classes.

`import c2c_jax` exports all of it; see `c2c_jax/__init__.py`.
"""

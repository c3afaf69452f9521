"""The names of `c2c_jax.io.resolve` in the place from which published model cards import them."""

from c2c_jax.io.resolve import BUNDLE_FILES, bundle_folder, is_local, run_name

__all__ = ["BUNDLE_FILES", "bundle_folder", "is_local", "run_name"]

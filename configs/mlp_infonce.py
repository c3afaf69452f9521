"""The paper's 4-layer tanh MLP with symmetric InfoNCE, a learned temperature, unit inputs and large batches.

The settings are in c2c_jax/recipes/mlp_infonce.py.
"""

from c2c_jax.recipes.mlp_infonce import get_config

__all__ = ["get_config"]

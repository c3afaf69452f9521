"""The translator in PyTorch. Importing it imports torch, never JAX."""

from c2c_jax.torch.translator import Translator

__all__ = ["Translator"]

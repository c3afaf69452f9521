"""The translator in PyTorch. Imports torch and safetensors, never JAX."""

from c2c_jax.torch.translator import Translator

__all__ = ["Translator"]

"""The translator in PyTorch. Imports torch and safetensors, never JAX."""

from c2c_jax.io.extras import require_extra

require_extra("torch", "c2c_jax.torch", "torch")
from c2c_jax.torch.translator import Translator  # noqa: E402  # imports torch

__all__ = ["Translator"]

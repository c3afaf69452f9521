"""The translator in PyTorch. Importing it imports torch, never JAX."""

try:
    from c2c_jax.torch.translator import Translator
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    message = "c2c_jax.torch needs torch, which is not installed: pip install 'c2c_jax[torch]'"
    raise ModuleNotFoundError(message, name="torch") from None

__all__ = ["Translator"]

"""Attention by heads against torch's, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import torch

from c2c_jax.spaces.models.layers import attention_by_heads


def test_attention_by_heads_is_torchs():
    rng = np.random.default_rng(0)
    q, k, v, out = (rng.normal(size=(2, length, 3, 5)).astype(np.float32) for length in (4, 7, 7, 4))
    ours, pull = jax.vjp(attention_by_heads, *map(jnp.asarray, (q, k, v)))
    theirs = [torch.from_numpy(x).transpose(1, 2).requires_grad_() for x in (q, k, v)]
    expected = torch.nn.functional.scaled_dot_product_attention(*theirs).transpose(1, 2)
    np.testing.assert_allclose(ours, expected.detach(), atol=1e-6, rtol=0)
    expected.backward(torch.from_numpy(out))
    for found, tensor in zip(pull(jnp.asarray(out)), theirs, strict=True):
        np.testing.assert_allclose(found, tensor.grad.transpose(1, 2), atol=1e-6, rtol=0)

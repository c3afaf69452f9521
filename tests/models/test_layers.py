"""Attention by heads against torch's, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import NamedSharding, PartitionSpec

from c2c_jax.models.layers import attention_by_heads
from c2c_jax.training.step import data_mesh

OVER_DEVICES = "all-gather", "all-reduce", "all-to-all", "collective-permute"


@pytest.mark.parametrize("rows", [2, 3, 8])  # of which the 4 devices take 2 heads at a time, 1 and 4
def test_attention_by_heads_is_torchs(rows):
    rng = np.random.default_rng(0)
    q, k, v, out = (rng.normal(size=(rows, length, 3, 5)).astype(np.float32) for length in (4, 7, 7, 4))
    ours, pull = jax.vjp(attention_by_heads, *map(jnp.asarray, (q, k, v)))
    theirs = [torch.from_numpy(x).transpose(1, 2).requires_grad_() for x in (q, k, v)]
    expected = torch.nn.functional.scaled_dot_product_attention(*theirs).transpose(1, 2)
    np.testing.assert_allclose(ours, expected.detach(), atol=1e-6, rtol=0)
    expected.backward(torch.from_numpy(out))
    for found, tensor in zip(pull(jnp.asarray(out)), theirs, strict=True):
        np.testing.assert_allclose(found, tensor.grad.transpose(1, 2), atol=1e-6, rtol=0)


def test_devices_attend_over_their_own_rows():
    over_data = NamedSharding(data_mesh(), PartitionSpec("data"))
    q, k, v = (jax.device_put(x, over_data) for x in jax.random.normal(jax.random.key(0), (3, 8, 6, 2, 5)))

    def loss(*heads):
        return (attention_by_heads(*heads) ** 2).sum(axis=(1, 2, 3))

    gradient = jax.jit(lambda *heads: jax.vjp(loss, *heads)[1](jnp.ones(8)), out_shardings=over_data)
    compiled = gradient.lower(q, k, v).compile().as_text()
    assert "while" in compiled and not [name for name in OVER_DEVICES if name in compiled]

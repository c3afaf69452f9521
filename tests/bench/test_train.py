"""The benchmarks of the trainer: equal work, and correct counts."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from bench.gcc_epoch import BASE, RotatedVectors
from bench.scaling import analyse, collective_bytes
from bench.train import CONTESTANTS, step_flops
from c2c_jax.training.step import data_mesh


def test_implementations_do_the_same_work():
    """From the same weights they reach the same loss when the first batch recurs after 32 steps."""
    ours, eager = (CONTESTANTS[who](64)(33) for who in ("ours", "torch_eager"))
    assert ours < math.log(64) - 0.03
    assert ours == pytest.approx(eager, abs=1e-4)


@pytest.mark.parametrize("devices", [1, 4])
def test_flops_equal_xlas_count(devices):
    figures = analyse(devices, 512, {"loss_chunks": 1}, "infonce")
    assert figures["flops"] * devices == pytest.approx(step_flops(512), rel=0.05)
    # In float32: sums of the gradients of 4 × (512² + 512) numbers, and 512 predictions and 512 targets 512 wide.
    minimum = 4 * 4 * (512**2 + 512) + 4 * 2 * 512 * 512
    assert (
        (figures["collective_bytes"] == 0) if devices == 1 else (minimum <= figures["collective_bytes"] < 1.1 * minimum)
    )


def test_collective_bytes_by_hand():
    over_data = NamedSharding(data_mesh(), PartitionSpec("data"))
    x = jax.device_put(jnp.ones((32, 8)), over_data)

    def bytes_of(f) -> int:
        return collective_bytes(
            jax.jit(f, in_shardings=over_data, out_shardings=over_data).lower(x).compile().as_text()
        )

    assert bytes_of(lambda x: 2 * x) == 0
    assert bytes_of(lambda x: x - x.sum(0)[None]) == 8 * 4
    assert bytes_of(lambda x: x @ x.T) == 32 * 8 * 4


def test_rotated_vectors_do_not_depend_on_slices():
    rows = RotatedVectors(3 * BASE, seed=0)
    whole = rows[BASE - 5 : BASE + 7]
    np.testing.assert_array_equal(np.concatenate([rows[BASE - 5 : BASE], rows[BASE : BASE + 7]]), whole)
    np.testing.assert_array_equal(np.roll(rows[0:3], 1, axis=1), rows[BASE : BASE + 3])

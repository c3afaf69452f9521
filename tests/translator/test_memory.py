"""The caption memory against a plain softmax in numpy, and its working memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c2c_jax.translator.memory import CAPTIONS_AT_ONCE, Memory, apply_memory

S = 8


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def captions(count: int, dim: int = S) -> np.ndarray:
    return unit(np.random.default_rng(count).normal(size=(count, dim))).astype(np.float16)


def by_hand(source_MS: np.ndarray, weight: float, temperature: float, source_BS: np.ndarray) -> np.ndarray:
    """All captions at once, in float64."""
    captions_MS, source_BS = source_MS.astype(np.float64), source_BS.astype(np.float64)
    logits_BM = unit(source_BS) @ captions_MS.T / temperature
    weights_BM = np.exp(logits_BM - logits_BM.max(axis=1, keepdims=True))
    nearest_BS = unit(weights_BM @ captions_MS)
    lengths_B1 = np.linalg.norm(source_BS, axis=1, keepdims=True)
    return lengths_B1 * unit(weight * nearest_BS + (1 - weight) * unit(source_BS))


@pytest.mark.parametrize(
    ("count", "weight", "temperature"),
    [
        (1, 0.5, 0.01),
        (37, 0.3, 0.5),
        (CAPTIONS_AT_ONCE, 1.0, 0.02),
        (CAPTIONS_AT_ONCE + 1, 0.5, 0.01),
        (2 * CAPTIONS_AT_ONCE + 17, 0.3, 0.5),
    ],
)
def test_blocks_equal_plain_softmax(count, weight, temperature):
    """For any size of the last block. Images' vectors keep their lengths."""
    source_BS = 3 * np.random.default_rng(0).normal(size=(9, S)).astype(np.float32)
    memory = Memory(source=captions(count), weight=weight, temperature=temperature)
    found = np.asarray(apply_memory(memory, jnp.asarray(source_BS)))
    np.testing.assert_allclose(found, by_hand(memory.source, weight, temperature, source_BS), atol=2e-5, rtol=0)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), np.linalg.norm(source_BS, axis=1), rtol=1e-5)


def test_sharp_softmax_gives_the_nearest_caption():
    memory = Memory(source=captions(50), weight=1.0, temperature=1e-4)
    found = apply_memory(memory, jnp.asarray(memory.source[7:9], jnp.float32))
    np.testing.assert_allclose(found, memory.source[7:9], atol=1e-3)


def test_working_memory_is_one_block():
    """By XLA's memory analysis, for 64 images of width 512 and 3 GB of captions."""

    @jax.jit
    def moved(source_MS, source_BS):
        return apply_memory(Memory(source=source_MS, weight=0.5, temperature=0.01), source_BS)

    shapes = jax.ShapeDtypeStruct((3_000_000, 512), jnp.float16), jax.ShapeDtypeStruct((64, 512), jnp.float32)
    compiled = moved.lower(*shapes).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * CAPTIONS_AT_ONCE * 512 * 4

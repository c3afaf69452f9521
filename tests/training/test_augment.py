"""Noise on source vectors against its definition."""

import jax
import jax.numpy as jnp
import numpy as np

from c2c_jax.training.step import add_noise


def turned(cosine, dim=64, rows=400):
    clean = np.asarray(jax.random.normal(jax.random.key(0), (rows, dim))) * np.linspace(0.1, 9, rows)[:, None]
    noise = np.asarray(add_noise(jax.random.key(1), jnp.asarray(clean, jnp.float32), cosine))
    lengths = [np.linalg.norm(x, axis=1) for x in (clean, noise)]
    return clean, noise, np.sum(clean * noise, axis=1) / (lengths[0] * lengths[1]), lengths


def test_noise_sets_the_cosine_and_preserves_lengths():
    _, _, cosines, (before, after) = turned(0.7)
    np.testing.assert_allclose(cosines, 0.7, atol=1e-5)
    np.testing.assert_allclose(after, before, rtol=1e-5)


def test_noise_directions_are_isotropic():
    """The added noise has zero mean and the same variance in every coordinate."""
    clean, noise, _, (length, _) = turned(0.6, dim=8, rows=20_000)
    rest = noise / length[:, None] - 0.6 * clean / length[:, None]
    np.testing.assert_allclose(rest.mean(0), 0, atol=0.01)
    np.testing.assert_allclose((rest**2).mean(0), 0.64 / 8, atol=0.005)

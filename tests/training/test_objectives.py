"""Each objective against plain loops in numpy, and its behaviour where numbers could break."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c2c_jax.training.objectives import build_objective


def vectors(B: int, E: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(B, E))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def cross_entropies(logits: np.ndarray) -> float:
    """Mean over rows and over columns of −log softmax at the diagonal, by loops."""
    B = len(logits)
    total = 0.0
    for i in range(B):
        total -= logits[i, i] - math.log(sum(math.exp(logits[i, j]) for j in range(B)))
        total -= logits[i, i] - math.log(sum(math.exp(logits[j, i]) for j in range(B)))
    return total / (2 * B)


def test_inverse_euclidean_is_the_papers_formula():
    predicted, target = vectors(7, 5, 0) * 0.2, unit(vectors(7, 5, 1))
    logits = np.array([[1 / math.dist(predicted[i], target[j]) for j in range(7)] for i in range(7)])
    objective = build_objective("inverse_euclidean", 0.07)
    loss = objective.loss({}, jnp.asarray(predicted, jnp.float32), jnp.asarray(target, jnp.float32))
    assert objective.init() == {}
    np.testing.assert_allclose(loss, cross_entropies(logits), rtol=1e-5)


def test_infonce_is_clips_formula():
    predicted, target = vectors(7, 5, 0), unit(vectors(7, 5, 1))
    cosine = np.array([[unit(predicted)[i] @ target[j] for j in range(7)] for i in range(7)])
    objective = build_objective("infonce", 0.07)
    loss = objective.loss(objective.init(), jnp.asarray(predicted, jnp.float32), jnp.asarray(target, jnp.float32))
    np.testing.assert_allclose(loss, cross_entropies(cosine / 0.07), rtol=1e-5)


def test_infonce_scale_stops_at_100():
    objective = build_objective("infonce", 0.07)
    predicted, target = (jnp.asarray(unit(vectors(4, 3, seed)), jnp.float32) for seed in (0, 1))
    at_100, beyond = ({"log_scale": jnp.asarray(math.log(scale), jnp.float32)} for scale in (100, 5000))
    assert objective.loss(at_100, predicted, target) == objective.loss(beyond, predicted, target)


@pytest.mark.parametrize("kind", ["inverse_euclidean", "infonce"])
def test_both_directions_count(kind):
    """Swapping predictions and targets transposes the logits; a loss of one direction would change."""
    objective = build_objective(kind, 0.07)
    a, b = (jnp.asarray(unit(vectors(6, 4, seed)), jnp.float32) for seed in (0, 1))
    np.testing.assert_allclose(
        objective.loss(objective.init(), a, b), objective.loss(objective.init(), b, a), rtol=1e-5
    )


@pytest.mark.parametrize("kind", ["inverse_euclidean", "infonce"])
@pytest.mark.parametrize("predicted", ["equal", "zero", "all the same"])
def test_finite_where_vectors_coincide(kind, predicted):
    target = jnp.asarray(unit(vectors(6, 4, 1)), jnp.float32)
    prediction = {"equal": target, "zero": jnp.zeros_like(target), "all the same": jnp.tile(target[:1], (6, 1))}[
        predicted
    ]
    objective = build_objective(kind, 0.07)
    loss, gradient = jax.value_and_grad(lambda x: objective.loss(objective.init(), x, target))(prediction)
    assert np.isfinite(loss) and np.isfinite(gradient).all()
    if predicted == "equal" and kind == "inverse_euclidean":
        assert loss < 1e-3

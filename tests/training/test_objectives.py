"""Each objective against plain loops in numpy, its gradients, and its numerical edge cases."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from c2c_jax.errors import ConfigError
from c2c_jax.training.contrast import cross_entropy
from c2c_jax.training.objectives import OBJECTIVES, TrainingProgress, build_objective, parse_objective

B, E = 24, 5  # 6 rows of each of 4 devices


def vectors(B: int, E: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(B, E))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


PREDICTED, TARGET = vectors(B, E, 0) * 0.4, unit(vectors(B, E, 1))


CONTRASTIVE = "infonce", "inverse_euclidean"
CHUNKS = {"loss_chunks": 1}, {"loss_chunks": 3}, {"loss_chunks": 3, "remat": True}


def loss_of(kind: str, predicted: np.ndarray = PREDICTED, margin: float = 0.0, **settings) -> jax.Array:
    """The loss after one epoch, in which the margin has grown."""
    settings |= {"margin_growth": margin} if margin else {}
    objective = build_objective(kind, settings)
    arrays = jnp.asarray(predicted, jnp.float32), jnp.asarray(TARGET, jnp.float32)
    return objective.loss(objective.init(), *arrays, TrainingProgress(jnp.int32(5), jnp.float32(1.0)))


def inverse_distances(margin: float = 0.0, predicted: np.ndarray = PREDICTED) -> np.ndarray:
    return np.array([[max(1 / math.dist(p, t) - margin, 0) for t in TARGET] for p in predicted])


def cosines() -> np.ndarray:
    return np.array([[p @ t / np.linalg.norm(p) for t in TARGET] for p in PREDICTED])


def is_near(threshold: float) -> np.ndarray:
    return np.array([[i != j and TARGET[i] @ TARGET[j] > threshold for j in range(B)] for i in range(B)])


def cross_entropies(logits: np.ndarray, left_out: np.ndarray | None = None) -> float:
    """Mean over rows and over columns of −log softmax at the diagonal, by loops."""
    kept = np.ones_like(logits, bool) if left_out is None else ~left_out
    total = 0.0
    for i in range(len(logits)):
        total -= logits[i, i] - math.log(sum(math.exp(logits[i, j]) for j in range(B) if kept[i, j]))
        total -= logits[i, i] - math.log(sum(math.exp(logits[j, i]) for j in range(B) if kept[j, i]))
    return total / (2 * B)


def sigmoid_loss(left_out: np.ndarray | None = None) -> float:
    """SigLIP's algorithm 1, by loops, with its initial values: temperature 1/10, bias −10."""
    total = 0.0
    for i in range(B):
        for j in range(B):
            sign = 1 if i == j else -1
            if left_out is None or not left_out[i, j]:
                total += math.log1p(math.exp(-sign * (10 * cosines()[i, j] - 10)))
    return total / B


@pytest.mark.parametrize("margin", [0.0, 0.7])
def test_inverse_euclidean_equals_the_papers_formula(margin):
    assert inverse_distances().min() < 0.7 < inverse_distances().max()
    loss = loss_of("inverse_euclidean", margin=margin)
    np.testing.assert_allclose(loss, cross_entropies(inverse_distances(margin)), rtol=1e-5)


@pytest.mark.parametrize("chunks", [1, 3])
def test_logits_of_very_different_size(chunks):
    """Own logits of 200 in half of the rows and of about 1 in the others, so that no single shift fits all."""
    near = np.concatenate([TARGET[: B // 2] + 0.005 * unit(vectors(B // 2, E, 2)), PREDICTED[B // 2 :]])
    loss = loss_of("inverse_euclidean", near, loss_chunks=chunks)
    np.testing.assert_allclose(loss, cross_entropies(inverse_distances(predicted=near)), rtol=1e-3)


@pytest.mark.parametrize("beyond", [60, 80, 88, 95])
@pytest.mark.parametrize("chunks", [1, 2])
def test_logits_far_above_the_own_ones(chunks, beyond):
    """Loss and gradient of a column with one logit in each half that exceeds its row's own by `beyond`."""
    logits = np.zeros((8, 8), np.float32)
    logits[[0, 7], 1] = beyond

    def loss(left: jax.Array) -> jax.Array:
        mask, right = lambda logits, target, own: logits, jnp.eye(8)  # noqa: E731
        return cross_entropy(lambda x, margin: x, mask, chunks, False, jnp.zeros(()), left, right, right)

    def plain(logits: jax.Array) -> jax.Array:
        sides = (jax.nn.logsumexp(logits, axis=axis) - jnp.diagonal(logits) for axis in (0, 1))
        return sum(side.mean() for side in sides) / 2

    results, expected = (jax.value_and_grad(function)(jnp.asarray(logits)) for function in (loss, plain))
    np.testing.assert_allclose(results[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(results[1], expected[1], atol=1e-6)


def test_infonce_equals_clips_formula():
    np.testing.assert_allclose(loss_of("infonce", temperature=0.2), cross_entropies(cosines() / 0.2), rtol=1e-5)


def test_sigmoid_equals_siglips_formula():
    np.testing.assert_allclose(loss_of("sigmoid"), sigmoid_loss(), rtol=1e-5)


def test_distances_row_by_row():
    np.testing.assert_allclose(loss_of("l1"), np.abs(PREDICTED - TARGET).mean(), rtol=1e-5)
    distances = [math.dist(p, t) for p, t in zip(PREDICTED, TARGET, strict=True)]
    np.testing.assert_allclose(loss_of("l2"), np.mean(distances), rtol=1e-5)
    np.testing.assert_allclose(loss_of("cosine"), 1 - np.diagonal(cosines()).mean(), rtol=1e-5)


def test_weighted_sum():
    expected = cross_entropies(cosines() / 0.07) + 0.5 * np.abs(PREDICTED - TARGET).mean() + 2 * sigmoid_loss()
    np.testing.assert_allclose(loss_of("infonce + 0.5*l1 + 2*sigmoid"), expected, rtol=1e-5)
    assert parse_objective(" infonce+1e-1 * l2") == {"infonce": 1.0, "l2": 0.1}


@pytest.mark.parametrize("kind", ["", "contrast", "infonce + contrast", "infonce + infonce", "-1*l1", "0*l1", "1e*l1"])
def test_unknown_objective(kind):
    with pytest.raises(ConfigError, match="config.objective.kind") as caught:
        parse_objective(kind)
    assert "\n" not in str(caught.value)


def test_false_negatives_are_left_out():
    """Pairs of targets with a cosine above the threshold are no negatives; own pairs stay."""
    twins = is_near(0.5)
    assert twins.sum() > 4
    np.testing.assert_allclose(
        loss_of("inverse_euclidean", false_negative_threshold=0.5),
        cross_entropies(inverse_distances(), twins),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        loss_of("infonce", false_negative_threshold=0.5), cross_entropies(cosines() / 0.07, twins), rtol=1e-5
    )
    np.testing.assert_allclose(loss_of("sigmoid", false_negative_threshold=0.5), sigmoid_loss(twins), rtol=1e-5)


@pytest.mark.parametrize("kind", CONTRASTIVE)
@pytest.mark.parametrize("chunks", CHUNKS)
def test_gradient_equals_that_of_the_plain_formula(kind, chunks):
    """The custom gradient, in one and several chunks, against JAX's gradient of the plain formula."""
    growth = {"margin_growth": 0.3} if kind == "inverse_euclidean" else {}
    objective = build_objective(kind, {**chunks, **growth})
    predicted, target = jnp.asarray(PREDICTED, jnp.float32), jnp.asarray(TARGET, jnp.float32)
    progress = TrainingProgress(jnp.int32(5), jnp.float32(1.0))

    def plain(params, predicted):
        if kind == "infonce":
            cosines = predicted @ target.T / jnp.linalg.norm(predicted, axis=1, keepdims=True)
            logits = jnp.exp(params[kind]["log_scale"]) * cosines
        else:
            logits = jax.nn.relu(1 / jnp.linalg.norm(predicted[:, None] - target[None], axis=2) - 0.3)
        rows, columns = (jax.nn.logsumexp(logits, axis=axis) - jnp.diagonal(logits) for axis in (1, 0))
        return (rows.mean() + columns.mean()) / 2

    expected = jax.value_and_grad(plain, argnums=(0, 1))(objective.init(), predicted)
    got = jax.value_and_grad(lambda p, x: objective.loss(p, x, target, progress), argnums=(0, 1))(
        objective.init(), predicted
    )
    for actual, wanted in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(actual, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", [*CONTRASTIVE, "sigmoid"])
def test_chunks_do_not_change_the_loss(kind):
    objectives = [build_objective(kind, {**chunks, "false_negative_threshold": 0.5}) for chunks in CHUNKS]
    predicted, target = jnp.asarray(PREDICTED, jnp.float32), jnp.asarray(TARGET, jnp.float32)
    results = [
        jax.value_and_grad(lambda x, o=objective: o.loss(o.init(), x, target))(predicted) for objective in objectives
    ]
    for loss, gradient in results[1:]:
        np.testing.assert_allclose(loss, results[0][0], rtol=1e-5)
        np.testing.assert_allclose(gradient, results[0][1], atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["infonce", "inverse_euclidean"])
def test_small_losses_of_large_logits_are_exact(kind):
    """Predictions that nearly equal their targets, against float64 on the same float32 vectors."""
    rng, rows = np.random.default_rng(0), 2048
    target = rng.normal(size=(rows, 64))
    target = (target / np.linalg.norm(target, axis=1, keepdims=True)).astype(np.float32)
    predicted = (target + 0.02 * rng.normal(size=target.shape)).astype(np.float32)
    start = {"temperature": 0.01} if kind == "infonce" else {}
    for chunks in ({"loss_chunks": 1}, {"loss_chunks": 8}, {"loss_chunks": 8, "remat": True}):
        objective = build_objective(kind, {**start, **chunks})
        results = objective.loss(objective.init(), jnp.asarray(predicted), jnp.asarray(target))
        x, y = predicted.astype(np.float64), target.astype(np.float64)
        if kind == "infonce":
            logits = 100 * (x / np.linalg.norm(x, axis=1, keepdims=True)) @ y.T
        else:
            logits = 1 / np.sqrt(np.maximum((x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T, 1e-6))
        own = np.diag(logits)
        expected = np.mean([np.mean(scipy.special.logsumexp(logits, axis=axis) - own) for axis in (0, 1)])
        np.testing.assert_allclose(results, expected, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("chunks", [1, 8])
def test_common_gradient_is_not_lost_in_rounding(chunks):
    """Where nothing is learned yet all logits are much alike, and rounded alike: the mean gradient, a ten-thousandth of
    the rows' own, against float64. A rounded logarithm of the sums would make it wrong by 4 parts in a thousand."""
    rng, rows = np.random.default_rng(0), 1024
    target = unit(rng.normal(size=(rows, 64)) + 2 * rng.normal(size=(1, 64))).astype(np.float32)
    predicted = (1e-3 * rng.normal(size=(rows, 64))).astype(np.float32)
    objective = build_objective("inverse_euclidean", {"loss_chunks": chunks})
    results = jax.grad(lambda x: objective.loss(objective.init(), x, jnp.asarray(target)))(jnp.asarray(predicted))
    x, y = predicted.astype(np.float64), target.astype(np.float64)
    logits = 1 / np.linalg.norm(x[:, None] - y[None], axis=2)
    of_logits = sum(scipy.special.softmax(logits, axis=axis) - np.eye(rows) for axis in (0, 1)) / (2 * rows)
    of_squares = -0.5 * logits**3 * of_logits
    expected = 2 * (of_squares.sum(1)[:, None] * x - of_squares @ y)
    summed, expected_sum = np.asarray(results, np.float64).sum(0), expected.sum(0)
    assert np.linalg.norm(summed - expected_sum) < 5e-4 * np.linalg.norm(expected_sum)
    np.testing.assert_allclose(results, expected, atol=1e-6 * np.abs(expected).max(), rtol=0)


def test_no_array_holds_all_logits():
    """With 16 chunks, no array of the compiled gradient exceeds a 16th of all logits plus the batch."""
    objective, rows = build_objective("infonce", {"loss_chunks": 16, "remat": True}), 2048
    x = jnp.zeros((rows, 8))
    compiled = jax.jit(jax.grad(lambda x, y: objective.loss(objective.init(), x, y))).lower(x, x).compile()
    plain = build_objective("infonce")
    whole = jax.jit(jax.grad(lambda x, y: plain.loss(plain.init(), x, y))).lower(x, x).compile()
    matrix = rows * rows * 4
    assert whole.memory_analysis().temp_size_in_bytes >= matrix
    assert compiled.memory_analysis().temp_size_in_bytes < matrix / 4


def test_infonce_scale_is_at_most_100():
    objective = build_objective("infonce")
    predicted, target = jnp.asarray(PREDICTED, jnp.float32), jnp.asarray(TARGET, jnp.float32)
    at_100, beyond = ({"infonce": {"log_scale": jnp.asarray(math.log(scale), jnp.float32)}} for scale in (100, 5000))
    assert objective.loss(at_100, predicted, target) == objective.loss(beyond, predicted, target)


@pytest.mark.parametrize("kind", OBJECTIVES)
@pytest.mark.parametrize("predicted", ["equal", "zero", "all the same"])
def test_loss_is_finite_for_equal_vectors(kind, predicted):
    target = jnp.asarray(TARGET, jnp.float32)
    prediction = {"equal": target, "zero": jnp.zeros_like(target), "all the same": jnp.tile(target[:1], (B, 1))}
    objective = build_objective(kind)
    loss, gradient = jax.value_and_grad(lambda x: objective.loss(objective.init(), x, target))(prediction[predicted])
    assert np.isfinite(loss) and np.isfinite(gradient).all()
    if predicted == "equal" and kind in ("inverse_euclidean", "l1", "cosine"):
        assert abs(loss) < 1e-3


@pytest.mark.parametrize("kind", ["infonce", "inverse_euclidean"])
def test_products_have_the_highest_precision(kind):
    """By default accelerators round the inputs of products, which would destroy small distances."""
    objective = build_objective(kind)
    rows = jnp.ones((8, 3))
    with jax.default_matmul_precision("bfloat16"):
        lowered = jax.jit(lambda x: objective.loss(objective.init(), x, rows)).lower(rows).as_text()
    products = [line for line in lowered.splitlines() if "dot_general" in line]
    assert products and all("HIGHEST" in line for line in products)

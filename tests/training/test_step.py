"""Learning rate, clipping and moving average by hand; calls of any number of steps give the same bits."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from c2c_jax.config import OptimizerConfig
from c2c_jax.training.objectives import InverseEuclidean, build_objective
from c2c_jax.training.optimizer import build_learning_rate, build_optimizer
from c2c_jax.training.step import TranslatorLoss, data_mesh, init_state, jit_step, jit_steps, make_step, shard_rows
from c2c_jax.translator.kinds import TranslatorSpec, build_translator

SPEC = TranslatorSpec.from_json(dict(
    kind="mlp", source_dim=12, target_dim=8, width=16, depth=2, heads=1, mlp_width=1, dropout=0.0, clamp=0.0,
    input_norm="unit",
))  # fmt: skip
B, STEPS = 16, 7


@pytest.mark.parametrize("decay", ["constant", "cosine", "linear"])
def test_learning_rate_by_hand(decay):
    rate = build_learning_rate(OptimizerConfig(learning_rate=0.3, warmup=4, decay=decay), steps=24)
    for step in range(24):
        done = (step - 4) / 20
        after = {"constant": 1.0, "cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done}[decay]
        assert rate(step) == pytest.approx(0.3 * (step / 4 if step < 4 else after), abs=1e-6)
    assert build_learning_rate(OptimizerConfig(decay=decay), steps=24)(0) == pytest.approx(1e-3)


def test_gradient_clipping():
    """A gradient of norm 5 is scaled to norm 2; one of norm 1 is unchanged."""
    params = {"model": {"x": np.zeros(2, np.float32)}, "objective": {}}

    def update(gradient: list[float], clip_norm: float) -> np.ndarray:
        optimizer = build_optimizer(OptimizerConfig(clip_norm=clip_norm, eps=1.0), optax.constant_schedule(1.0))
        gradients = {"model": {"x": np.asarray(gradient, np.float32)}, "objective": {}}
        return np.asarray(optimizer.update(gradients, optimizer.init(params), params)[0]["model"]["x"])

    np.testing.assert_allclose(update([3.0, 4.0], 2.0), update([1.2, 1.6], 0.0), rtol=1e-6)
    np.testing.assert_allclose(update([0.6, 0.8], 2.0), update([0.6, 0.8], 0.0), rtol=1e-6)


def batches() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return tuple(rng.normal(size=(STEPS, B, dim)).astype(np.float16) for dim in (12, 8))


def setup(ema: float = 0.0):
    graphdef, params = nnx.split(build_translator(SPEC, rngs=nnx.Rngs(0)), nnx.Param)
    objective, optimizer, mesh = build_objective("infonce"), optax.adamw(1e-2), data_mesh()
    loss = TranslatorLoss(graphdef=graphdef, objective=objective)
    step = make_step(loss, optimizer, optax.constant_schedule(1e-2), ema)
    return step, init_state(params, objective, optimizer, mesh, ema), mesh


def test_moving_average_by_hand():
    step, state, mesh = setup(ema=0.5)
    run, averaged = jit_step(step, mesh), None
    for number in range(STEPS):
        if averaged is None:
            averaged = jax.tree.map(np.asarray, state.params["model"])
        state, _ = run(state, *(shard_rows(side[number], B, mesh) for side in batches()))
        decay = min(0.5, (1 + number) / (10 + number))
        averaged = jax.tree.map(
            lambda old, new, decay=decay: decay * old + (1 - decay) * np.asarray(new),
            averaged, state.params["model"],
        )  # fmt: skip
    for got, expected in zip(jax.tree.leaves(state.model), jax.tree.leaves(averaged), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("parts", [[7], [1, 1, 1, 1, 1, 1, 1], [3, 4], [5, 0, 2]])
def test_calls_of_any_length_give_the_same_bits(parts):
    def after(parts: list[int]):
        step, state, mesh = setup()
        run = jit_steps(step, lambda table, item: item, mesh)
        done, losses = 0, []
        for count in parts:
            blocks = [np.zeros((STEPS, B, side.shape[2]), np.float16) for side in batches()]
            for filled, side in zip(blocks, batches(), strict=True):
                filled[:count] = side[done : done + count]
            state, metrics = run(state, (), tuple(shard_rows(x, B, mesh, axis=1) for x in blocks), count)
            losses += np.asarray(metrics["loss"])[:count].tolist()
            done += count
        return state, losses

    state, losses = after(parts)
    expected_state, expected_losses = after([4, 3])
    assert losses == expected_losses and len(losses) == STEPS
    for actual, expected in zip(jax.tree.leaves(state), jax.tree.leaves(expected_state), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_calls_equal_single_steps():
    step, state, mesh = setup()
    single, losses = jit_step(step, mesh), []
    for number in range(STEPS):
        state, metrics = single(state, *(shard_rows(side[number], B, mesh) for side in batches()))
        losses.append(float(metrics["loss"]))
    step, many, mesh = setup()
    blocks = tuple(shard_rows(side, B, mesh, axis=1) for side in batches())
    many, metrics = jit_steps(step, lambda table, item: item, mesh)(many, (), blocks, STEPS)
    np.testing.assert_allclose(metrics["loss"], losses, atol=1e-6)


def test_margin_grows_with_epochs_of_a_fractional_number_of_steps():
    graphdef, _ = nnx.split(build_translator(SPEC, rngs=nnx.Rngs(0)), nnx.Param)
    objective = InverseEuclidean(margin_growth=0.3, margin_max=0.5)
    loss = TranslatorLoss(graphdef=graphdef, objective=build_objective("l1"), steps_per_epoch=2.5)
    # Epochs end within step 2 and after step 4.
    margins = [float(objective.margin(loss.progress(jnp.asarray(step)))) for step in range(8)]
    np.testing.assert_allclose(margins, [0, 0, 0, 0.3, 0.3, 0.5, 0.5, 0.5], atol=1e-6)

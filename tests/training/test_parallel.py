"""Data parallelism: jit over a mesh against pmap, one device against four, one process against two."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy
from flax import nnx
from jax.sharding import AxisType

from c2c_jax.spaces.models.layers import unit
from c2c_jax.training.objectives import build_objective
from c2c_jax.training.step import TranslatorLoss, data_mesh, init_state, jit_steps, make_step, shard_rows
from c2c_jax.translator.bundle import read_choice
from c2c_jax.translator.kinds import TranslatorSpec, build_translator
from tests.fixtures.programs import run, start, train_command, two_hosts
from tests.fixtures.random_store import random_store

SPEC = TranslatorSpec.from_json(dict(
    kind="mlp", source_dim=24, target_dim=16, width=32, depth=4, heads=1, mlp_width=1, dropout=0.0, clamp=0.2,
    input_norm="none",
))  # fmt: skip
STEPS, B = 5, 32
# Adam divides by the size of the gradient. Where that is almost zero, an eps of 1e-8 makes a full step of its last
# bits, which depend on the order of sums. A larger eps makes a tolerance of 1e-6 meaningful.
ADAM_EPS = 1e-3


def setup(kind: str):
    graphdef, params = nnx.split(build_translator(SPEC, rngs=nnx.Rngs(0)), nnx.Param)
    objective = build_objective(kind)
    return graphdef, params, objective, optax.adamw(1e-2, eps=ADAM_EPS)


def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(step)
    return rng.normal(size=(B, 24)).astype(np.float16), rng.normal(size=(B, 16)).astype(np.float16)


def by_jit(kind: str, mesh: jax.sharding.Mesh):
    graphdef, params, objective, optimizer = setup(kind)
    state = init_state(params, objective, optimizer, mesh)
    loss = TranslatorLoss(graphdef=graphdef, objective=objective)
    train_step = make_step(loss, optimizer, optax.constant_schedule(1e-2))
    run_steps = jit_steps(train_step, lambda table, vectors: vectors, mesh)  # as the program calls it
    sides = (np.stack(side_KB) for side_KB in zip(*map(batch, range(STEPS)), strict=True))
    state, metrics = run_steps(state, (), tuple(shard_rows(side_KB, B, mesh, axis=1) for side_KB in sides), STEPS)
    return jax.tree.map(np.asarray, state.params), float(metrics["loss"][-1])


def logits(kind: str, params, predicted, target):
    """The loss by the papers' formulas."""
    if kind == "infonce":
        return jnp.exp(params["log_scale"]) * unit(predicted) @ target.T
    return 1 / jnp.linalg.norm(predicted[:, None] - target[None], axis=2)


def by_pmap(kind: str, devices: int):
    """The reference with pmap: each device holds its rows of the logits and gathers the other devices' vectors."""
    graphdef, params, objective, optimizer = setup(kind)
    params = {"model": params, "objective": objective.init()}

    def device_loss(params, source, target):
        predicted = nnx.merge(graphdef, params["model"])(source.astype(jnp.float32))
        target = unit(target.astype(jnp.float32))
        all_predicted = jax.lax.all_gather(predicted, "data", tiled=True)
        all_target = jax.lax.all_gather(target, "data", tiled=True)
        own = jax.lax.axis_index("data") * len(source) + jnp.arange(len(source))
        rows = logits(kind, params["objective"][kind], predicted, all_target)
        columns = logits(kind, params["objective"][kind], all_predicted, target).T
        losses = [optax.softmax_cross_entropy_with_integer_labels(side, own) for side in (rows, columns)]
        return (losses[0].mean() + losses[1].mean()) / 2

    def step(params, opt_state, source, target):
        loss, gradients = jax.value_and_grad(device_loss)(params, source, target)
        gradients = jax.lax.pmean(gradients, "data")
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, jax.lax.pmean(loss, "data")

    stack = lambda tree: jax.tree.map(lambda x: jnp.stack([x] * devices), tree)  # noqa: E731
    params, opt_state = stack(params), stack(optimizer.init(params))
    pmapped = jax.pmap(step, axis_name="data")
    for number in range(STEPS):
        source, target = (x.reshape(devices, B // devices, -1) for x in batch(number))
        params, opt_state, loss = pmapped(params, opt_state, source, target)
    return jax.tree.map(lambda x: np.asarray(x[0]), params), float(loss[0])


def assert_close(single, other, atol):
    """Checks that two params agree to `atol` and differ from the initial ones."""
    for x, y in zip(jax.tree.leaves(single), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(x, y, atol=atol, rtol=0)
    _, initial, _, _ = setup("infonce")
    moved = max(
        np.abs(x - y).max() for x, y in zip(jax.tree.leaves(single["model"]), jax.tree.leaves(initial), strict=True)
    )
    assert moved > 1e-2


@pytest.mark.parametrize("kind", ["inverse_euclidean", "infonce"])
def test_jit_equals_pmap(kind):
    assert jax.device_count() == 4
    (params, loss), (expected, expected_loss) = by_jit(kind, data_mesh()), by_pmap(kind, 4)
    assert_close(params, expected, atol=1e-6)
    assert abs(loss - expected_loss) < 1e-6


@pytest.mark.parametrize("kind", ["inverse_euclidean", "infonce"])
def test_one_device_equals_four(kind):
    single = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:1])
    assert_close(by_jit(kind, single)[0], by_jit(kind, data_mesh())[0], atol=1e-6)


ADAPTIVE = [
    "--config", "configs/recommended.py", "--config.steps=5", "--config.batch_size=80", "--config.eval_every=3",
    "--config.translator.settings.width=32", "--config.memory.size=200",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("more", "entries"), [([], 5 + 1), (ADAPTIVE, 5 + 2)])
def test_two_processes_of_two_devices_equal_one_of_four(tmp_path, more, entries):
    """Two processes of the training program give the same bundle to float32's accuracy, and one metrics file."""
    random_store(tmp_path / "store")
    events = (
        "--config.epochs=1",
        f"--config.optimizer.eps={ADAM_EPS}",
        "--config.log_every=1",
        "--config.checkpoint_every=3",
        *more,
    )
    run(train_command(tmp_path / "store", tmp_path / "one", *events), devices=4)
    hosts = [start(host, devices=2) for host in two_hosts(train_command(tmp_path / "store", tmp_path / "two", *events))]
    outputs = [host.communicate()[0] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], "\n".join(outputs)
    single, two = (
        safetensors.numpy.load_file(tmp_path / run / "bundle" / "model.safetensors") for run in ("one", "two")
    )
    for key in single:
        np.testing.assert_allclose(two[key], single[key], atol=1e-5, rtol=0, err_msg=key)
    lines = [len((tmp_path / run / "metrics.jsonl").read_text().splitlines()) for run in ("one", "two")]
    assert lines[0] == lines[1] == entries  # steps and validations
    two, single = (read_choice(tmp_path / run / "bundle") for run in ("two", "one"))
    if not more:
        assert two is single is None
        return
    assert (two.trained, two.linear, two.memory) == (single.trained, single.linear, single.memory)
    assert two.noisy_mrr == pytest.approx(single.noisy_mrr, abs=1e-4)

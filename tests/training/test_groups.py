"""Sums in groups of rows: by hand, in their order; and the same bits on one device and on four."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, Mesh, PartitionSpec

from c2c_jax.training.build import build_blocks
from c2c_jax.training.groups import by_groups, same_order, total
from c2c_jax.training.objectives import Settings, build_objective
from c2c_jax.training.step import Schedule, init_state, jit_steps, make_step, put_rows
from c2c_jax.translator.kinds import TranslatorSpec, build_translator

GROUPS, STEPS, B = 8, 20, 48


def mesh_of(devices: int) -> Mesh:
    return jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])


@pytest.mark.parametrize("devices", [1, 2, 3, 4])
def test_total_by_hand(devices):
    """To the last bit, of numbers that add up otherwise in another order; no sizes are shared evenly."""
    rng = np.random.default_rng(devices)
    shares = {
        name: (rng.normal(size=(devices, *shape)) * 10.0 ** rng.integers(-3, 3, (devices, *shape))).astype(np.float32)
        for name, shape in {"a": (5, 3), "b": (), "c": (7,)}.items()
    }
    body = functools.partial(total, axis="data")
    over_data = PartitionSpec("data")
    summed = jax.shard_map(
        lambda share: jax.tree.map(lambda x: x[None], body(jax.tree.map(lambda x: x[0], share))),
        mesh=mesh_of(devices), in_specs=over_data, out_specs=over_data, check_vma=False,
    )(shares)  # fmt: skip
    for name, share in shares.items():
        expected = {
            1: lambda s: s[0],
            2: lambda s: s[0] + s[1],
            3: lambda s: (s[0] + s[1]) + s[2],
            4: lambda s: (s[0] + s[1]) + (s[2] + s[3]),
        }[devices](share)
        for of_device in np.asarray(summed[name]):
            np.testing.assert_array_equal(of_device, expected)


def test_gradients_of_groups_are_added_by_twos():
    x = np.random.default_rng(2).normal(size=16).astype(np.float32)

    def loss(weight: jax.Array) -> jax.Array:
        return by_groups(lambda part: weight * part, jnp.asarray(x), 16).sum()

    np.testing.assert_array_equal(by_groups(lambda part: 2 * part, jnp.asarray(x), 16), 2 * x)
    expected = x.copy()
    while len(expected) > 1:
        expected = expected[::2] + expected[1::2]
    assert expected[0] not in (np.add.accumulate(x)[-1], np.add.accumulate(x[::-1])[-1])
    assert jax.grad(loss)(jnp.asarray(1.0)) == expected[0]


@pytest.mark.parametrize(
    ("groups", "devices", "is_same"),
    [(2, 1, True), (8, 4, True), (16, 2, True), (12, 3, True), (1, 1, False), (4, 4, False), (12, 2, False),
     (8, 3, False), (4, 8, False)],
)  # fmt: skip
def test_numbers_of_devices(groups, devices, is_same):
    assert same_order(groups, devices) == is_same


@pytest.mark.parametrize("batch_size", [1024, 16_384, 32_768])
def test_groups_are_taken_alike_on_any_devices(batch_size):
    one, four = (build_blocks(batch_size, mesh_of(devices), 16) for devices in (1, 4))
    assert one == dataclasses.replace(four, groups=16) and four.groups == 4
    assert one.kept == (batch_size <= 16_384)  # 1 GiB
    assert build_blocks(32_768, mesh_of(4)).kept and not build_blocks(32_768, mesh_of(1)).kept


@pytest.mark.slow
@pytest.mark.parametrize(
    ("translator", "dims", "objective", "clip_norm", "feature"),
    [
        ("mlp", (128, 128), "inverse_euclidean", 0.0, {"margin": (0.3, 0.3)}),
        ("mlp_layernorm", (33, 17), "sigmoid", 0.0, {"ema": 0.9}),
        ("residual", (33, 17), "infonce + 0.5*l2", 0.1, {"noise": 0.6}),
        ("residual", (33, 17), "infonce", 0.0, {"noise": 0.6, "means": True}),
        ("residual", (33, 33), "l1", 0.0, {}),
        ("residual", (33, 17), "cosine + l1", 0.0, {"noise": 0.8}),
        ("transformer", (12, 10), "infonce", 0.1, {}),
    ],
)
def test_same_bits_on_one_device_and_on_four(translator, dims, objective, clip_norm, feature):
    """With Adam's own epsilon, which makes full steps of the last bits of small gradients; at sizes of which a device's
    share does not fill a processor's vectors."""
    spec = TranslatorSpec(
        kind=translator, source_dim=dims[0], target_dim=dims[1], width=16, depth=2, heads=2, mlp_width=24,
        dropout=0.1, clamp=0.0, input_norm="unit",
    )  # fmt: skip
    rng = np.random.default_rng(0)
    sides = [rng.normal(size=(STEPS, B, dim)).astype(np.float16) for dim in dims]

    def after(devices: int) -> list[np.ndarray]:
        mesh = mesh_of(devices)
        graphdef, params = nnx.split(build_translator(spec, rngs=nnx.Rngs(0)), nnx.Param)
        asked = build_objective(objective, Settings(twin_cosine=0.2, blocks=build_blocks(B, mesh, GROUPS, count=2)))
        clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
        optimizer = optax.chain(clip, optax.adamw(1e-2))
        means = tuple(np.full(dim, 0.05, np.float32) for dim in dims) if "means" in feature else None
        schedule = Schedule(**{name: value for name, value in feature.items() if name != "means"})
        state = init_state(params, asked, optimizer, mesh, schedule.ema)
        run = jit_steps(make_step(graphdef, asked, optimizer, mesh, schedule, means), lambda table, item: item, mesh)
        state, _ = run(state, (), tuple(put_rows(side, B, mesh, axis=1) for side in sides), STEPS)
        return [np.asarray(x) for x in jax.tree.leaves(state)]

    for one, other in zip(after(1), after(4), strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_array_equal(one, other)

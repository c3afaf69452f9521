"""The training state, the step, and its jitted forms: data-parallel over the devices, many steps a dispatch."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from c2c_jax.spaces.devices import gpu_options
from c2c_jax.spaces.models.layers import unit
from c2c_jax.training.augment import draw_noise, perturbed
from c2c_jax.training.contrast import places
from c2c_jax.training.groups import by_groups, gathered, total
from c2c_jax.training.objectives import Objective
from c2c_jax.translator.centring import centred

Metrics = dict[str, jax.Array]


class TrainState(NamedTuple):
    """step: steps done. params: {"model": nnx.State, "objective": dict}. opt_state: optax's. averaged: the moving
    average of the model's params, None where none is asked for."""

    step: jax.Array
    params: dict[str, Any]
    opt_state: optax.OptState
    averaged: Any = None

    @property
    def model(self) -> Any:
        """The model's params to validate and publish."""
        return self.params["model"] if self.averaged is None else self.averaged


# (params, step, source [B, ...], target [B, ...]) → loss [], gradients; either side may be a pytree of arrays.
Gradients = Callable[[dict[str, Any], jax.Array, Any, Any], tuple[jax.Array, dict[str, Any]]]
# (state, source, target) → (state, metrics)
Step = Callable[[TrainState, Any, Any], tuple[TrainState, Metrics]]


def data_mesh() -> Mesh:
    """All devices of all hosts on one axis, `data`, of the Auto kind: outside `shard_map` XLA shares the work out."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def init_state(
    model: nnx.State, objective: Objective, optimizer: optax.GradientTransformation, mesh: Mesh, ema: float = 0.0
) -> TrainState:
    """Step 0, from a model's initial weights, replicated over the mesh. ema: see `Schedule`."""
    params = {"model": model, "objective": objective.init()}
    averaged = jax.tree.map(jnp.copy, model) if ema else None  # a copy: both are donated to the next step
    state = TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), averaged)
    return jax.device_put(state, NamedSharding(mesh, PartitionSpec()))


@dataclasses.dataclass(frozen=True)
class Schedule:
    """What changes with the step. steps_per_epoch: whole or not. margin: (growth an epoch, most); see ObjectiveConfig.
    seed: of dropout and noise. noise: cosine, see `augment.perturbed`; at 1 there is none. ema: decay of the
    moving average of the weights; 0: none. learning_rate: the optimizer's own, for the metrics."""

    steps_per_epoch: int | float = 1
    margin: tuple[float, float] = (0.0, 0.0)
    seed: int = 0
    noise: float = 1.0
    ema: float = 0.0
    learning_rate: optax.Schedule = optax.constant_schedule(0.0)

    def margin_at(self, step: jax.Array) -> jax.Array:
        growth, most = self.margin
        return jnp.minimum(growth * jnp.floor(step / self.steps_per_epoch), most)

    def decay_at(self, step: jax.Array) -> jax.Array:
        """Less in the first steps, so that the initial weights are soon forgotten (as TensorFlow's `num_updates`)."""
        return jnp.minimum(self.ema, (1 + step) / (10 + step))


def make_step(
    graphdef: nnx.GraphDef,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    schedule: Schedule = Schedule(),  # noqa: B008
    means: tuple[np.ndarray, np.ndarray] | None = None,
) -> Step:
    """The translator's step over a batch whose rows are shared by the devices of the mesh.

    Each device translates its rows, a group after the other, compares them with the targets of all, and gets the
    gradient of its share of the loss; the sum over the devices is that of the whole (see `groups`, and the objective's
    own `Blocks`). Vectors are raw, in any float dtype; targets are brought to unit length, since that is how CLAP
    vectors condition AudioLDM. means: of the unit source and target vectors, to centre both by; None: neither is
    centred. Metrics: those of `step_of`, and margin where there is one. Raises ValueError for an objective that takes
    the rows at hand for all of the batch where several devices share it.
    """
    blocks, has_noise = objective.settings.blocks, schedule.noise < 1
    if mesh.size > 1 and not blocks.axis:
        raise ValueError(f"{mesh.size} devices share the rows: the objective needs Blocks(axis='data')")

    def on_device(
        params: dict[str, Any], step: jax.Array, source_RS: jax.Array, noise_RS: jax.Array | None, target_RE: jax.Array
    ) -> tuple[jax.Array, dict[str, Any]]:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(schedule.seed), step), 1)
        target_BE = gathered(target_RE, blocks.axis).astype(jnp.float32)
        target_BE = unit(target_BE) if means is None else centred(target_BE, means[1])

        def of_group(
            params: dict[str, Any], part: tuple[jax.Array, jax.Array | None, jax.Array]
        ) -> dict[str, jax.Array]:
            source_RS, noise_RS, places_R = part
            source_RS = source_RS.astype(jnp.float32)
            if means is not None:
                source_RS = centred(source_RS, means[0])
            if noise_RS is not None:
                source_RS = perturbed(source_RS, noise_RS, schedule.noise)
            model = nnx.merge(graphdef, params["model"])
            predicted_RE = model(source_RS, rngs=nnx.Rngs(dropout=jax.random.fold_in(key, places_R[0])))
            return objective.rows(params["objective"], predicted_RE, target_BE, places_R)

        def loss(params: dict[str, Any]) -> jax.Array:
            parts = source_RS, noise_RS, places(len(source_RS), blocks.axis)
            of_rows = by_groups(functools.partial(of_group, params), parts, blocks.groups)
            return objective.whole(of_rows, target_BE, schedule.margin_at(step))

        share, gradients = jax.value_and_grad(loss)(params)
        return total((share, gradients), blocks.axis)

    everywhere, own = PartitionSpec(), PartitionSpec("data")
    specs = everywhere, everywhere, own, own, own
    # Unchecked, gradients of replicated params stay those of a device's own rows; `total` adds them.
    on_devices = jax.shard_map(on_device, mesh=mesh, in_specs=specs, out_specs=everywhere, check_vma=False)

    def gradients(
        params: dict[str, Any], step: jax.Array, source_BS: jax.Array, target_BE: jax.Array
    ) -> tuple[jax.Array, dict[str, Any]]:
        key = jax.random.fold_in(jax.random.key(schedule.seed), step)
        noise_BS = draw_noise(jax.random.fold_in(key, 0), source_BS.shape) if has_noise else None
        # Behind the barrier the optimizer is compiled in the same way whatever the devices.
        return jax.lax.optimization_barrier(on_devices(params, step, source_BS, noise_BS, target_BE))

    return step_of(gradients, optimizer, schedule)


def step_of(gradients_of: Gradients, optimizer: optax.GradientTransformation, schedule: Schedule) -> Step:
    """A step down the gradient of a loss. Metrics: loss, grad_norm, update_norm, learning_rate, and temperature where
    one is learned."""

    def step(state: TrainState, source: Any, target: Any) -> tuple[TrainState, Metrics]:
        value, gradients = gradients_of(state.params, state.step, source, target)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        averaged = state.averaged
        if averaged is not None:
            share = 1 - schedule.decay_at(state.step)
            averaged = optax.incremental_update(params["model"], averaged, share)
        metrics = {
            "loss": value,
            "grad_norm": optax.tree.norm(gradients),
            "update_norm": optax.tree.norm(updates),
            "learning_rate": jnp.asarray(schedule.learning_rate(state.step), jnp.float32),
        }
        for learned in params["objective"].values():
            if "log_scale" in learned:
                metrics["temperature"] = jnp.exp(-learned["log_scale"])
        if schedule.margin[0]:
            metrics["margin"] = schedule.margin_at(state.step)
        return TrainState(state.step + 1, params, opt_state, averaged), metrics

    return step


def jit_step(step: Step, mesh: Mesh) -> Step:
    """The step jitted; the state is donated.

    The batch is sharded over `data`, the state replicated.
    """
    replicated, over_data = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    return jax.jit(
        step,
        in_shardings=(replicated, over_data, over_data),
        out_shardings=replicated,
        donate_argnums=(0,),
        compiler_options=gpu_options(),
    )


def jit_steps(
    step: Step, batch: Callable[[Any, Any], tuple[jax.Array, jax.Array]], mesh: Mesh
) -> Callable[[TrainState, Any, Any, int], tuple[TrainState, Metrics]]:
    """Many steps in one dispatch: (state, table, block, count) → (state, metrics [K]), of which `count` are filled in.

    block: a pytree of arrays [K, B, ...], whose step k is given to batch(table, block[k]) → (source [B, S], target
    [B, E]). One program does any count up to K, so that parameters do not depend on how a run was cut into dispatches.
    The state is donated; the batches are sharded over `data` as for `jit_step`.
    """
    over_data = NamedSharding(mesh, PartitionSpec("data"))

    def steps(state: TrainState, table: Any, block: Any, count: jax.Array) -> tuple[TrainState, Metrics]:
        def one(k: jax.Array, state: TrainState) -> tuple[TrainState, Metrics]:
            item = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, k, keepdims=False), block)
            return step(state, *jax.lax.with_sharding_constraint(batch(table, item), over_data))

        def body(k: jax.Array, carried: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
            state, metrics = carried
            state, latest = one(k, state)
            return state, {name: metrics[name].at[k].set(latest[name]) for name in metrics}

        K = len(jax.tree.leaves(block)[0])
        shapes = jax.eval_shape(one, jnp.zeros((), jnp.int32), state)[1]
        metrics = {name: jnp.zeros(K, shape.dtype) for name, shape in shapes.items()}
        return jax.lax.fori_loop(0, count, body, (state, metrics))

    replicated = NamedSharding(mesh, PartitionSpec())
    over_rows = NamedSharding(mesh, PartitionSpec(None, "data"))
    return jax.jit(
        steps,
        in_shardings=(replicated, replicated, over_rows, replicated),
        out_shardings=replicated,
        donate_argnums=(0,),
        compiler_options=gpu_options(),
    )


def put_rows(mine: np.ndarray, rows: int, mesh: Mesh, axis: int = 0) -> jax.Array:
    """This process's contiguous share of `rows` rows along `axis`, as one array sharded over all processes' devices."""
    spec = PartitionSpec(*[None] * axis, "data")
    shape = (*mine.shape[:axis], rows, *mine.shape[axis + 1 :])
    return jax.make_array_from_process_local_data(NamedSharding(mesh, spec), mine, shape)


def own_share(rows: int) -> slice:
    """The places in a batch of `rows` that this process puts on its devices."""
    share = rows // jax.process_count()
    return slice(jax.process_index() * share, (jax.process_index() + 1) * share)

"""The training state and the jitted, data-parallel step."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from c2c_jax.models.layers import unit
from c2c_jax.training.objectives import Objective


class TrainState(NamedTuple):
    """step: steps done. params: {"translator": nnx.State, "objective": dict}. opt_state: optax's."""

    step: jax.Array
    params: dict[str, Any]
    opt_state: optax.OptState


def data_mesh() -> Mesh:
    """All devices of all hosts on one axis, `data`.

    Axes are of the Auto kind: under make_mesh's default, Explicit, a contrastive `a @ b.T` of two arrays sharded over
    the same axis is refused.
    """
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def init_state(
    translator: nnx.State, objective: Objective, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """Step 0, from the translator's initial weights, replicated over the mesh."""
    params = {"translator": translator, "objective": objective.init()}
    state = TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))
    return jax.device_put(state, NamedSharding(mesh, PartitionSpec()))


@dataclasses.dataclass(frozen=True)
class Schedule:
    """What changes with the step. steps_per_epoch, and margin: (growth an epoch, most); see config.ObjectiveConfig.
    seed: of dropout."""

    steps_per_epoch: int
    margin: tuple[float, float]
    seed: int

    def margin_at(self, step: jax.Array) -> jax.Array:
        growth, most = self.margin
        return jnp.minimum(growth * (step // self.steps_per_epoch), most)


def make_train_step(
    graphdef: nnx.GraphDef,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    schedule: Schedule = Schedule(steps_per_epoch=1, margin=(0.0, 0.0), seed=0),
) -> Callable[[TrainState, jax.Array, jax.Array], tuple[TrainState, dict[str, jax.Array]]]:
    """The jitted step (state, source [B, S], target [B, E]) → (state, metrics); the state is donated.

    Vectors are raw, in any float dtype; targets are brought to unit length, since that is how CLAP vectors condition
    AudioLDM. The batch is sharded over `data`, the state replicated; the loss is written as if for one device and XLA
    inserts the collectives, so the negatives are those of the whole batch.
    """

    def step(state: TrainState, source_BS: jax.Array, target_BE: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        margin = schedule.margin_at(state.step)

        def loss_of(params: dict[str, Any]) -> jax.Array:
            rngs = nnx.Rngs(dropout=jax.random.fold_in(jax.random.key(schedule.seed), state.step))
            predicted_BE = nnx.merge(graphdef, params["translator"])(source_BS.astype(jnp.float32), rngs=rngs)
            return objective.loss(params["objective"], predicted_BE, unit(target_BE.astype(jnp.float32)), margin)

        loss, gradients = jax.value_and_grad(loss_of)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {"loss": loss, "grad_norm": optax.tree.norm(gradients), "update_norm": optax.tree.norm(updates)}
        for learned in params["objective"].values():
            if "log_scale" in learned:
                metrics["temperature"] = jnp.exp(-learned["log_scale"])
        if schedule.margin[0]:
            metrics["margin"] = margin
        return TrainState(state.step + 1, params, opt_state), metrics

    replicated, over_data = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    return jax.jit(step, in_shardings=(replicated, over_data, over_data), out_shardings=replicated, donate_argnums=(0,))


def global_batch(rows: np.ndarray, vectors: np.ndarray, mesh: Mesh) -> jax.Array:
    """The rows [B] of host array `vectors` [N, E] as one array sharded over all devices of all processes.

    Every process calls it with the same rows and puts on its devices only its own contiguous share of them.
    """
    share = len(rows) // jax.process_count()
    mine = rows[jax.process_index() * share : (jax.process_index() + 1) * share]
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    return jax.make_array_from_process_local_data(sharding, vectors[mine], (len(rows), vectors.shape[1]))

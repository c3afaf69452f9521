"""The training state and the training step, data-parallel over all devices of all hosts.

`TranslatorLoss` computes the loss of a batch, `make_step` adds the gradient and the optimizer, and `jit_steps` compiles
several steps into one call.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from c2c_jax.spaces.devices import gpu_options
from c2c_jax.spaces.models.layers import unit
from c2c_jax.training.objectives import TrainingProgress, WeightedSum
from c2c_jax.translator.centring import centred

Metrics = dict[str, jax.Array]


class TrainState(NamedTuple):
    """Everything that training changes.

    step: number of steps done. params: {"model": nnx.State, "objective": dict}. opt_state: optax's. averaged: the
    moving average of the model's params; None if the config has none.
    """

    step: jax.Array
    params: dict[str, Any]
    opt_state: optax.OptState
    averaged: Any = None

    @property
    def model(self) -> Any:
        """The model's params for validation and the bundle: the moving average, if there is one."""
        return self.params["model"] if self.averaged is None else self.averaged


Step = Callable[[TrainState, Any, Any], tuple[TrainState, Metrics]]  # (state, source, target) → (state, metrics)


def data_mesh() -> Mesh:
    """A mesh of all devices of all hosts with a single axis, `data`, of type Auto: XLA divides the work."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def init_state(
    model: nnx.State, objective: WeightedSum, optimizer: optax.GradientTransformation, mesh: Mesh, ema: float = 0.0
) -> TrainState:
    """The initial state for a model's initial weights, replicated over the mesh. ema: 0 = no moving average."""
    params = {"model": model, "objective": objective.init()}
    averaged = jax.tree.map(jnp.copy, model) if ema else None  # a copy, because the step donates both
    state = TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), averaged)
    return jax.device_put(state, NamedSharding(mesh, PartitionSpec()))


def add_noise(key: jax.Array, source_BS: Float[Array, "B S"], cosine: float) -> Float[Array, "B S"]:
    """Rotates vectors in random directions until their cosine to the originals is `cosine`; see `perturb`."""
    return perturb(source_BS, jax.random.normal(key, source_BS.shape), cosine)


def perturb(source_BS: Float[Array, "B S"], noise_BS: Float[Array, "B S"], cosine: float) -> Float[Array, "B S"]:
    """Rotates vectors towards the noise until their cosine to the originals is `cosine`. Lengths are preserved.

    This is the Gaussian noise of CapDec and CLOSE (Nukrai et al. 2022, Gu et al. 2023). Its strength is given as a
    cosine, which does not depend on the width S: a variance of σ² per coordinate corresponds to 1/√(1 + S σ²).
    """
    x_BS, length_B1 = unit(source_BS), jnp.linalg.norm(source_BS, axis=1, keepdims=True)
    orthogonal_BS = unit(noise_BS - jnp.sum(noise_BS * x_BS, axis=1, keepdims=True) * x_BS)
    return length_B1 * (cosine * x_BS + (1 - cosine**2) ** 0.5 * orthogonal_BS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranslatorLoss:
    """The loss of a translator on a batch of raw caption vectors.

    A batch is centred, its source vectors are perturbed and translated, and the objective compares the result with the
    target vectors. centring: means of captions' unit source and target vectors; None = no centring.
    noise_cosine: see `add_noise`; 1 = no noise. Noise and dropout are functions of the seed and the step.
    """

    graphdef: nnx.GraphDef
    objective: WeightedSum
    centring: tuple[np.ndarray, np.ndarray] | None = None
    noise_cosine: float = 1.0
    steps_per_epoch: float | int = 1
    seed: int = 0

    def __call__(
        self, params: dict[str, Any], step: jax.Array, source_BS: jax.Array, target_BE: jax.Array
    ) -> jax.Array:
        """The loss [] of a batch. params: see `TrainState`. source_BS, target_BE: raw vectors of any float type."""
        key = jax.random.fold_in(jax.random.key(self.seed), step)
        # The extra split is kept from version 0.1, so that a seed still gives the same translator.
        noise_key, dropout_key = jax.random.split(jax.random.fold_in(key, 0))[0], jax.random.fold_in(key, 1)
        source_BS, target_BE = source_BS.astype(jnp.float32), target_BE.astype(jnp.float32)
        if self.centring is None:
            target_BE = unit(
                target_BE
            )  # AudioLDM is conditioned on unit vectors; the translator normalises its inputs itself
        else:
            source_BS, target_BE = centred(source_BS, self.centring[0]), centred(target_BE, self.centring[1])
        if self.noise_cosine < 1:
            source_BS = add_noise(noise_key, source_BS, self.noise_cosine)
        translator = nnx.merge(self.graphdef, params["model"])
        predicted_BE = translator(source_BS, rngs=nnx.Rngs(dropout=dropout_key))
        return self.objective.loss(params["objective"], predicted_BE, target_BE, self.progress(step))

    def progress(self, step: jax.Array) -> TrainingProgress:
        """The progress of training at a step."""
        return TrainingProgress(step, step / self.steps_per_epoch)

    def metrics(self, params: dict[str, Any], step: jax.Array) -> Metrics:
        """The objective's metrics."""
        return self.objective.metrics(params["objective"], self.progress(step))


def make_step(
    loss: Callable[..., jax.Array],
    optimizer: optax.GradientTransformation,
    learning_rate: optax.Schedule,
    ema: float = 0.0,
    metrics_of: Callable[[dict[str, Any], jax.Array], Metrics] = lambda params, step: {},
) -> Step:
    """Builds the training step: gradient of loss(params, step, source, target), optimizer update, moving average.

    It is written for a single device; `jit_step` and `jit_steps` spread it over all. Metrics: loss, grad_norm,
    update_norm, learning_rate, and those of metrics_of(params, step). ema: decay of the moving average of the weights;
    the first steps use a smaller one, so that the initial weights are soon forgotten (TensorFlow's `num_updates`).
    """

    def step(state: TrainState, source: Any, target: Any) -> tuple[TrainState, Metrics]:
        value, gradients = jax.value_and_grad(loss)(state.params, state.step, source, target)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        averaged = state.averaged
        if averaged is not None:
            decay = jnp.minimum(ema, (1 + state.step) / (10 + state.step))
            averaged = optax.incremental_update(params["model"], averaged, 1 - decay)
        metrics = {
            "loss": value,
            "grad_norm": optax.tree.norm(gradients),
            "update_norm": optax.tree.norm(updates),
            "learning_rate": jnp.asarray(learning_rate(state.step), jnp.float32),
            **metrics_of(params, state.step),
        }
        return TrainState(state.step + 1, params, opt_state, averaged), metrics

    return step


def jit_step(step: Step, mesh: Mesh) -> Step:
    """Compiles a step for the mesh: the batch is sharded over `data`; the state is replicated and donated."""
    replicated, over_data = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    return jax.jit(
        step,
        in_shardings=(replicated, over_data, over_data),
        out_shardings=replicated,
        donate_argnums=(0,),
        compiler_options=gpu_options(),
    )


def jit_steps(
    step: Step, gather: Callable[[Any, Any], tuple[jax.Array, jax.Array]], mesh: Mesh
) -> Callable[[TrainState, Any, Any, int], tuple[TrainState, Metrics]]:
    """Compiles K steps into one call: (state, table, batches, count) → (state, metrics [K]).

    batches: a pytree of arrays [K, B, ...]. gather(table, batches[k]) gives step k its (source [B, S], target [B, E]).
    Only the first `count` steps run, and only their metrics are set. One program serves every count up to K, so that
    the parameters do not depend on how a run is divided into calls.
    """
    over_data = NamedSharding(mesh, PartitionSpec("data"))

    def steps(state: TrainState, table: Any, batches: Any, count: jax.Array) -> tuple[TrainState, Metrics]:
        def run_step(k: jax.Array, state: TrainState) -> tuple[TrainState, Metrics]:
            batch = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, k, keepdims=False), batches)
            return step(state, *jax.lax.with_sharding_constraint(gather(table, batch), over_data))

        def body(k: jax.Array, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
            state, metrics = carry
            state, latest = run_step(k, state)
            return state, {name: metrics[name].at[k].set(latest[name]) for name in metrics}

        K = len(jax.tree.leaves(batches)[0])
        shapes = jax.eval_shape(run_step, jnp.zeros((), jnp.int32), state)[1]
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


def shard_rows(local: np.ndarray, rows: int, mesh: Mesh, axis: int = 0) -> jax.Array:
    """A global array of `rows` rows along `axis`, sharded over the devices of all processes. local: the rows of this
    process, see `process_rows`."""
    spec = PartitionSpec(*[None] * axis, "data")
    shape = (*local.shape[:axis], rows, *local.shape[axis + 1 :])
    return jax.make_array_from_process_local_data(NamedSharding(mesh, spec), local, shape)


def process_rows(rows: int) -> slice:
    """The slice of a batch of `rows` rows that this process puts on its devices."""
    count = rows // jax.process_count()
    return slice(jax.process_index() * count, (jax.process_index() + 1) * count)


def on_any_process(flag: bool) -> bool:
    """Whether a flag is set on any process. All processes must call it."""
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag)))) if jax.process_count() > 1 else flag

"""The training program: store in, checkpoints, metrics and a bundle out."""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx

from c2c_jax.config import Config, OptimizerConfig
from c2c_jax.data.store import Store
from c2c_jax.errors import ConfigError, TrainingError
from c2c_jax.models import translator as translators
from c2c_jax.training import objectives
from c2c_jax.training.log import RunLog, refuse_non_finite
from c2c_jax.training.metrics import retrieval
from c2c_jax.training.step import TrainState, data_mesh, global_batch, init_state, make_train_step
from c2c_jax.weights.translator import Bundle


def train(config: Config, store: Store, workdir: Path) -> Bundle:
    """Trains a translator on a store and leaves checkpoints, `metrics.jsonl`, `config.json` and `bundle/` in `workdir`.

    A run that was stopped goes on from its last checkpoint and ends with the same parameters, bit for bit, as one that
    was not. Raises ConfigError before anything is compiled, TrainingError for a loss that is not finite.
    """
    check(config)
    check_rows(config, store)
    source_N, target_N = store.read("source"), store.read("target")
    held_out, training = split(store.plan.rows, config.data.holdout, config.seed)
    spec = translators.TranslatorSpec(
        source_dim=store.plan.source.dim, target_dim=store.plan.target.dim, **dataclasses.asdict(config.translator)
    )
    graphdef, params = nnx.split(translators.build_translator(spec, rngs=nnx.Rngs(config.seed)), nnx.Param)
    objective = objectives.build_objective(config.objective.kind, config.objective.temperature)
    optimizer = build_optimizer(config.optimizer)
    mesh = data_mesh()
    state = init_state(params, objective, optimizer, mesh)
    train_step = make_train_step(graphdef, objective, optimizer, mesh)
    steps = config.epochs * (len(training) // config.batch_size)

    def validated(state: TrainState) -> Bundle:
        trained = jax.device_get(state.params["translator"])
        predicted = np.asarray(_translate(graphdef, trained, source_N[held_out].astype(np.float32)))
        scores = retrieval(predicted, target_N[held_out].astype(np.float32))
        return Bundle(
            translator=nnx.merge(graphdef, trained),
            spec=spec,
            source=store.plan.source,
            target=store.plan.target,
            recipe=dataclasses.asdict(config),
            metrics={"step": int(state.step), "held_out": len(held_out), **scores},
        )

    log = RunLog(workdir, config)
    with ocp.CheckpointManager(
        (workdir / "checkpoints").absolute(), options=ocp.CheckpointManagerOptions(max_to_keep=2)
    ) as checkpoints:
        if (newest := checkpoints.latest_step()) is not None:
            state = restore(checkpoints, newest, state)
        log.start(int(state.step), steps, len(training), spec.kind)
        for rows in batches(training, config.batch_size, config.epochs, config.seed, start=int(state.step)):
            state, metrics = train_step(state, global_batch(rows, source_N, mesh), global_batch(rows, target_N, mesh))
            step = log.count(len(rows))
            if step % config.log_every == 0 or step == steps:
                log.training({**metrics, "learning_rate": config.optimizer.learning_rate})
            if step % config.eval_every == 0 and step < steps:
                log.validation(validated(state))
            if step % config.checkpoint_every == 0 or step == steps:
                refuse_non_finite(step, float(metrics["loss"]), workdir)
                checkpoints.save(step, args=ocp.args.StandardSave(state))
        bundle = validated(state)
        log.validation(bundle)
    return bundle


def restore(checkpoints: ocp.CheckpointManager, step: int, state: TrainState) -> TrainState:
    """The state saved at `step`, laid out over the devices as `state` is. Raises TrainingError where it is damaged."""
    try:
        return checkpoints.restore(step, args=ocp.args.StandardRestore(state))
    except (ValueError, OSError) as error:
        folder = Path(checkpoints.directory) / str(step)
        cause = str(error).splitlines()[0]
        raise TrainingError(
            f"checkpoint {folder} is damaged ({cause}); delete that folder to resume from the one before"
        ) from error


def build_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """AdamW with torch's defaults; decay pulls at the translator only, not at a learned temperature."""
    return optax.adamw(
        config.learning_rate,
        b1=0.9,
        b2=0.999,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask={"translator": True, "objective": False},
    )


def check(config: Config) -> None:
    """Raises ConfigError, in one line, for a config that cannot run on any store: to be called before embedding one."""
    kinds = {"translator": translators.KINDS, "objective": objectives.KINDS}
    for field, known in kinds.items():
        if (kind := getattr(config, field).kind) not in known:
            raise ConfigError(f"config.{field}.kind is {kind!r}; known are {', '.join(known)}")
    if config.translator.input_norm not in translators.INPUT_NORMS:
        known = ", ".join(translators.INPUT_NORMS)
        raise ConfigError(f"config.translator.input_norm is {config.translator.input_norm!r}; known are {known}")
    positive = {
        "batch_size": config.batch_size,
        "epochs": config.epochs,
        "log_every": config.log_every,
        "eval_every": config.eval_every,
        "checkpoint_every": config.checkpoint_every,
        "data.holdout": config.data.holdout,
        "translator.width": config.translator.width,
        "translator.depth": config.translator.depth,
        "objective.temperature": config.objective.temperature,
        "optimizer.learning_rate": config.optimizer.learning_rate,
    }
    for field, value in positive.items():
        if not value > 0:
            raise ConfigError(f"config.{field} is {value}; it must be above 0")
    not_negative = {
        "translator.clamp": config.translator.clamp,
        "optimizer.weight_decay": config.optimizer.weight_decay,
        "optimizer.eps": config.optimizer.eps,
    }
    for field, value in not_negative.items():
        if not value >= 0:
            raise ConfigError(f"config.{field} is {value}; it must not be below 0")
    if beyond := config.batch_size % (devices := jax.device_count()):
        raise ConfigError(
            f"config.batch_size {config.batch_size} is no multiple of the {devices} devices; "
            f"pass {config.batch_size - beyond + devices}"
        )


def check_rows(config: Config, store: Store) -> None:
    """Raises ConfigError where a store has too few rows for the config."""
    training = store.plan.rows - config.data.holdout
    if config.batch_size > training:
        raise ConfigError(
            f"config.batch_size is {config.batch_size}, but of {store.plan.rows} captions {config.data.holdout} are "
            f"held out (config.data.holdout) and {max(training, 0)} are left to train on"
        )


def split(rows: int, holdout: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(held-out rows, training rows), each sorted; a function of its arguments alone."""
    order = np.random.default_rng((seed, 0)).permutation(rows)
    return np.sort(order[:holdout]), np.sort(order[holdout:])


def batches(training: np.ndarray, batch_size: int, epochs: int, seed: int, start: int) -> Iterator[np.ndarray]:
    """The rows [B] of each step from step `start` on; the order of an epoch is a function of seed and epoch alone.

    The last rows of an epoch that do not fill a batch are left out of that epoch; the next one shuffles anew.
    """
    per_epoch = len(training) // batch_size
    for epoch in range(start // per_epoch, epochs):
        order = np.random.default_rng((seed, 1, epoch)).permutation(training)
        for step in range(max(start, epoch * per_epoch), (epoch + 1) * per_epoch):
            first = (step - epoch * per_epoch) * batch_size
            yield order[first : first + batch_size]


@functools.partial(jax.jit, static_argnums=(0,))
def _translate(graphdef: nnx.GraphDef, params: nnx.State, source_NS: jax.Array) -> jax.Array:
    return nnx.merge(graphdef, params)(source_NS)

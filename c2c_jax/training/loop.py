"""The training program: store in, checkpoints, metrics and a bundle out."""

import dataclasses
import functools
from collections.abc import Collection, Iterator
from pathlib import Path

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx
from jax.sharding import Mesh

from c2c_jax.config import Config, OptimizerConfig
from c2c_jax.data.store import Store
from c2c_jax.errors import ConfigError, TrainingError
from c2c_jax.models import translator as translators
from c2c_jax.training import objectives
from c2c_jax.training.closed_form import moments, procrustes, ridge, set_linear
from c2c_jax.training.log import RunLog, refuse_non_finite
from c2c_jax.training.metrics import retrieval
from c2c_jax.training.step import Schedule, TrainState, data_mesh, global_batch, init_state, make_train_step
from c2c_jax.weights.translator import Bundle

STARTS = ("identity", "procrustes")  # of a residual translator's linear layer
PLAIN_ROWS = 8192  # beyond this batch size a matrix of all logits costs more than computing its blocks again


def train(config: Config, store: Store, workdir: Path) -> Bundle:
    """Trains a translator on a store and leaves checkpoints, `metrics.jsonl`, `config.json` and `bundle/` in `workdir`.

    A run that was stopped goes on from its last checkpoint and ends with the same parameters, bit for bit, as one that
    was not. Raises ConfigError before anything is compiled, TrainingError for a loss that is not finite.
    """
    check(config)
    check_rows(config, store)
    source_N, target_N = store.read("source"), store.read("target")
    held_out, training = split(store.plan.rows, config.data.holdout, config.seed)
    spec = build_spec(config, store)
    graphdef, params = nnx.split(initial_translator(config, spec, store, held_out), nnx.Param)
    objective = build_objective(config, mesh := data_mesh())
    optimizer = build_optimizer(config.optimizer)
    state = init_state(params, objective, optimizer, mesh)
    steps_per_epoch = len(training) // config.batch_size
    schedule = Schedule(
        steps_per_epoch=steps_per_epoch,
        margin=(config.objective.margin_growth, config.objective.margin_most),
        seed=config.seed,
    )
    train_step = make_train_step(graphdef, objective, optimizer, mesh, schedule)
    steps = 0 if spec.kind in translators.CLOSED_FORM else config.epochs * steps_per_epoch

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
        for rows in batches(training, config.batch_size, steps, config.seed, start=int(state.step)):
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


def build_spec(config: Config, store: Store) -> translators.TranslatorSpec:
    """The translator that a config asks for between a store's spaces."""
    chosen = config.translator
    return translators.TranslatorSpec(
        kind=chosen.kind,
        source_dim=store.plan.source.dim,
        target_dim=store.plan.target.dim,
        width=chosen.width,
        depth=chosen.depth or translators.DEPTHS[chosen.kind],
        heads=chosen.heads,
        mlp_width=chosen.mlp_width,
        dropout=chosen.dropout,
        clamp=chosen.clamp,
        input_norm=chosen.input_norm,
    )


def initial_translator(
    config: Config, spec: translators.TranslatorSpec, store: Store, held_out: np.ndarray
) -> translators.Translator:
    """By the seed; with a linear layer in closed form from the store's training rows where the config says so."""
    translator = translators.build_translator(spec, rngs=nnx.Rngs(config.seed))
    if spec.kind == "ridge":
        set_linear(translator, *ridge(moments(store, held_out, spec), config.translator.ridge))
    elif spec.kind == "procrustes" or (spec.kind == "residual" and config.translator.start == "procrustes"):
        set_linear(translator, *procrustes(moments(store, held_out, spec)))
    return translator


def build_objective(config: Config, mesh: Mesh) -> objectives.Objective:
    """The config's objective, its logits in as many blocks of rows as the batch size asks for."""
    rows = config.batch_size // len(mesh.devices)
    blocks = config.objective.blocks or max(config.batch_size // PLAIN_ROWS, 1)
    settings = objectives.Settings(
        temperature=config.objective.temperature,
        twin_cosine=config.objective.twin_cosine,
        blocks=next(blocks for blocks in range(min(blocks, rows), 0, -1) if rows % blocks == 0),
        shards=len(mesh.devices),
    )
    return objectives.build_objective(config.objective.kind, settings)


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
    objectives.parse_objective(config.objective.kind)
    known: dict[str, tuple[str, Collection[str]]] = {
        "kind": (config.translator.kind, translators.KINDS),
        "input_norm": (config.translator.input_norm, translators.INPUT_NORMS),
        "start": (config.translator.start, STARTS),
    }
    for field, (name, names) in known.items():
        if name not in names:
            raise ConfigError(f"config.translator.{field} is {name!r}; known are {', '.join(names)}")
    if config.translator.kind == "transformer" and config.translator.width % config.translator.heads:
        raise ConfigError(
            f"config.translator.width {config.translator.width} is no multiple of heads {config.translator.heads}"
        )
    if not config.translator.dropout < 1:
        raise ConfigError(f"config.translator.dropout is {config.translator.dropout}; it must be below 1")
    positive = {
        "batch_size": config.batch_size,
        "epochs": config.epochs,
        "log_every": config.log_every,
        "eval_every": config.eval_every,
        "checkpoint_every": config.checkpoint_every,
        "data.holdout": config.data.holdout,
        "translator.width": config.translator.width,
        "translator.heads": config.translator.heads,
        "translator.mlp_width": config.translator.mlp_width,
        "objective.temperature": config.objective.temperature,
        "optimizer.learning_rate": config.optimizer.learning_rate,
    }
    for field, value in positive.items():
        if not value > 0:
            raise ConfigError(f"config.{field} is {value}; it must be above 0")
    not_negative = {
        "translator.depth": config.translator.depth,
        "translator.dropout": config.translator.dropout,
        "translator.ridge": config.translator.ridge,
        "objective.margin_growth": config.objective.margin_growth,
        "objective.margin_most": config.objective.margin_most,
        "objective.blocks": config.objective.blocks,
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
    needed = 1 if config.translator.kind in translators.CLOSED_FORM else config.batch_size
    if needed > training:
        raise ConfigError(
            f"config.batch_size is {config.batch_size}, but of {store.plan.rows} captions {config.data.holdout} are "
            f"held out (config.data.holdout) and {max(training, 0)} are left to train on"
        )


def split(rows: int, holdout: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(held-out rows, training rows), each sorted; a function of its arguments alone."""
    order = np.random.default_rng((seed, 0)).permutation(rows)
    return np.sort(order[:holdout]), np.sort(order[holdout:])


def batches(training: np.ndarray, batch_size: int, steps: int, seed: int, start: int) -> Iterator[np.ndarray]:
    """The rows [B] of each step from step `start` on; the order of an epoch is a function of seed and epoch alone.

    The last rows of an epoch that do not fill a batch are left out of that epoch; the next one shuffles anew.
    """
    per_epoch = len(training) // batch_size
    order, of_epoch = training, -1
    for step in range(start, steps):
        epoch, place = divmod(step, per_epoch)
        if epoch != of_epoch:
            order, of_epoch = np.random.default_rng((seed, 1, epoch)).permutation(training), epoch
        yield order[place * batch_size : (place + 1) * batch_size]


@functools.partial(jax.jit, static_argnums=(0,))
def _translate(graphdef: nnx.GraphDef, params: nnx.State, source_NS: jax.Array) -> jax.Array:
    return nnx.merge(graphdef, params)(source_NS)

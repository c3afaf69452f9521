"""The training program: store in, checkpoints, metrics and the best bundle out."""

import contextlib
import dataclasses
import functools
import signal
import time
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float

from c2c_jax.config import Config
from c2c_jax.data.store import Store
from c2c_jax.io.progress import phase
from c2c_jax.io.signals import noted
from c2c_jax.training.build import (
    build_learning_rate,
    build_objective,
    build_optimizer,
    build_spec,
    initial_translator,
    takes_moments,
)
from c2c_jax.training.candidates import Chooser
from c2c_jax.training.check import check, check_rows, fitted_to_rows, run_length
from c2c_jax.training.checkpoints import Checkpoints
from c2c_jax.training.dispatch import Dispatches, on_any_host
from c2c_jax.training.feed import choose_feed, held_out_vectors, open_feed, split
from c2c_jax.training.known import Known
from c2c_jax.training.log import RunLog, console
from c2c_jax.training.metrics import retrieval
from c2c_jax.training.report import draw_curves, print_scores
from c2c_jax.training.rows import start_or_resume
from c2c_jax.training.step import Schedule, TrainState, data_mesh, init_state, jit_steps, make_step
from c2c_jax.translator import kinds as translators
from c2c_jax.translator.bundle import Bundle, read_choice, read_metrics
from c2c_jax.translator.scores import NOISY_SCORES

VALIDATED_AT_ONCE = 64  # rows; the transformer's attention takes 8 MiB of memory for each


def train(config: Config, store: Store, workdir: Path, picture_PS: Float[np.ndarray, "P S"] | None = None) -> bool:
    """Trains a translator on a store and leaves checkpoints, `metrics.jsonl`, `config.json`, `curves.png` and the best
    `bundle/` in `workdir`. Gives whether it came to its end: False where SIGTERM stopped it, with a checkpoint.

    picture_PS: raw source vectors of unlabelled pictures, where the config names any; see `pictures.picture_vectors`.
    A run that was stopped goes on from its last sound checkpoint and ends with the same parameters, bit for bit, as one
    that was not. Raises ConfigError before anything is compiled, TrainingError for a loss that is not finite and for a
    checkpoint that cannot be written, StoreError for a damaged store.
    """
    check(config)
    check_rows(config, store)
    store.check_files()
    config = fitted_to_rows(config, store.plan.rows)
    mesh, B = data_mesh(), config.batch_size
    held_out, training = split(store.plan.rows, config.data.holdout, config.seed)
    spec = build_spec(config, store)
    closed_form = spec.kind in translators.CLOSED_FORM
    steps, epochs = run_length(config, len(training))
    objective, learning_rate = build_objective(config, mesh), build_learning_rate(config.optimizer, steps)
    optimizer = build_optimizer(config.optimizer, learning_rate)
    schedule = Schedule(
        steps_per_epoch=max(len(training) / B, 1),
        margin=(config.objective.margin_growth, config.objective.margin_most),
        seed=config.seed,
        noise=config.augment.noise,
        ema=config.optimizer.ema,
        learning_rate=learning_rate,
    )

    with (
        jax.default_matmul_precision(config.precision),
        noted(signal.SIGTERM) as is_terminated,
        RunLog(workdir, config) as log,
        Checkpoints(workdir) as checkpoints,
        contextlib.ExitStack() as compiling,
    ):
        started = start_or_resume(workdir, store, choose_feed(config.data.feed, store))
        if not (config.groups or closed_form) and started.devices != jax.device_count():
            moved = f"started on {started.devices} device(s), now on {jax.device_count()}"
            log.console_print(f"{moved}: without config.groups the weights will differ from those of an unbroken run")
        with phase(console, "going through the captions", quiet=not log.writes):
            known = Known.of(config, spec, store, (held_out, training), picture_PS)
            first = initial_translator(config, spec, known.moments if takes_moments(config) else None)
            chooser = known.chooser(config, store, (held_out, training), picture_PS)
        for line in known.notes:
            log.console_print(line)
        graphdef, params = nnx.split(first, nnx.Param)
        state = checkpoints.restore(init_state(params, objective, optimizer, mesh, config.optimizer.ema))
        step = int(state.step)
        with phase(console, "reading the store", quiet=not log.writes):
            feed = open_feed(started.feed, store, training, B, config.seed, mesh, epochs + 1)
        run = jit_steps(make_step(graphdef, objective, optimizer, mesh, schedule, known.centring), feed.batch, mesh)
        scored_on = held_out_vectors(store, held_out)
        validated = functools.partial(_validated, config, store, graphdef, scored_on, known, chooser)
        devices = f"{jax.device_count()} {jax.devices()[0].platform} device(s)"
        log.start(step, steps, len(training), f"{spec.kind}, {len(training):,} captions, on {devices}, {feed}", epochs)

        dispatches = Dispatches(config, steps, feed.most)
        stopping = on_any_host(log.writes and log.is_stale)
        count = 0 if stopping else dispatches.length(step)
        block = feed.block(step, count) if count else None
        # Until the first steps are done; on a terminal the log has its bar.
        compiling.enter_context(phase(console, "compiling", quiet=not log.writes or console.is_terminal))
        while count and not stopping:
            since = time.perf_counter()
            state, metrics = run(state, feed.table, block, count)
            following = dispatches.length(step + count)
            block = feed.block(step + count, following) if following else None  # while the devices work
            told = {name: np.asarray(values) for name, values in metrics.items()}  # waits for them
            seconds = time.perf_counter() - since
            compiling.close()
            dispatches.took(count, seconds)
            log.steps_done(told, count, seconds)
            step += count
            if step % config.eval_every == 0 or step == steps:
                log.validation(validated(state))
            stopping = on_any_host(is_terminated() or (log.writes and log.is_stale))
            if step % config.checkpoint_every == 0 or step == steps or stopping:
                checkpoints.save(state)
            count = following
        if on_any_host(is_terminated()):
            log.console_print(f"stopped at step {step:,} of {steps:,} as asked; start again to go on")
            return False
        if not log.is_validated:
            log.validation(validated(state))
    if log.writes:
        draw_curves(workdir / "curves.png", log.history, f"{workdir.name}: {spec.kind}, {config.objective.kind}")
        choice = read_choice(workdir / "bundle")
        print_scores(console, read_metrics(workdir / "bundle"), log.scores[-1])
        if config.adapt and choice:
            console.print(f"selected from {len(choice.scores)} candidates by {choice.selected_by}: {choice}")
    return True


def _validated(
    config: Config,
    store: Store,
    graphdef: nnx.GraphDef,
    held_out: tuple[np.ndarray, np.ndarray],
    known: Known,
    chooser: Chooser,
    state: TrainState,
) -> Bundle:
    """The best candidate at the current step, with its scores on the held-out captions. Its closed-form part is then
    fitted to these captions as well."""
    trained = jax.device_get(state.model)
    choice, noisy_scores, length = chooser.choose(lambda x: np.asarray(_translate(graphdef, trained, x)))
    model = nnx.merge(graphdef, trained)
    chosen, final = (chooser.built(choice, model, length, final=is_final) for is_final in (False, True))
    source_NS, target_NE = known.centred(*held_out)
    scores = retrieval(np.asarray(_translate(*nnx.split(chosen, nnx.Param), source_NS)), target_NE)
    competed = {f"{choice.selected_by}_trained": max(choice.of_trained)} if config.adapt else {}
    return Bundle(
        translator=final,
        spec=final.spec,
        source=store.plan.source,
        target=store.plan.target,
        recipe=dataclasses.asdict(config),
        metrics={"step": int(state.step), "held_out": len(target_NE), **noisy_scores, **competed, **scores},
        gap=known.gap,
        memory=known.memory if choice.memory else known.references,
        choice=choice if config.adapt or config.select_by in NOISY_SCORES else None,
    )


@functools.partial(jax.jit, static_argnums=(0,))
def _translate(graphdef: nnx.GraphDef, params: nnx.State, source_NS: jax.Array) -> jax.Array:
    return jax.lax.map(lambda x: nnx.merge(graphdef, params)(x[None])[0], source_NS, batch_size=VALIDATED_AT_ONCE)

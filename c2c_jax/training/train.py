"""The training program: turns an embedding store into checkpoints, metrics and the best translator bundle.

The path of the data: `loader` reads batches of caption vectors from the store; `TranslatorLoss` (step.py) centres,
perturbs and translates them and compares the result with the targets (objectives.py); `run_steps` updates the weights.
Every validation scores the translator against closed-form maps (candidates.py), and `log` saves the best bundle.
"""

import contextlib
import dataclasses
import functools
import signal
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float

from c2c_jax.config import PERTURBED_SCORES, Config
from c2c_jax.data.store import Store
from c2c_jax.errors import ConfigError
from c2c_jax.io.progress import phase
from c2c_jax.io.signals import record_signal
from c2c_jax.training.candidates import CandidateSelector
from c2c_jax.training.check import build_spec, check, check_rows, fits_closed_form, run_length
from c2c_jax.training.checkpoints import Checkpoints
from c2c_jax.training.closed_form import set_closed_form
from c2c_jax.training.curves import draw_curves
from c2c_jax.training.loader import choose_loader, open_loader, read_vectors, split_rows
from c2c_jax.training.log import RunLog
from c2c_jax.training.metrics import retrieval_scores
from c2c_jax.training.objectives import build_objective
from c2c_jax.training.optimizer import build_learning_rate, build_optimizer
from c2c_jax.training.precompute import Precomputed
from c2c_jax.training.run_state import RunState, start_or_resume
from c2c_jax.training.step import (
    TrainState,
    TranslatorLoss,
    data_mesh,
    init_state,
    jit_steps,
    make_step,
    on_any_process,
)
from c2c_jax.translator.bundle import Bundle
from c2c_jax.translator.kinds import build_translator

VALIDATION_BATCH = 64  # rows; the transformer takes 4 to 14 MiB of memory per row, by its width


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TrainingResult:
    """A finished run: its best bundle, and the entries of its `metrics.jsonl`."""

    bundle: Bundle
    history: list[dict[str, Any]]


def train(
    config: Config,
    store: Store,
    workdir: Path | None,
    image_PS: Float[np.ndarray, "P S"] | None = None,
    *,
    progress: bool = True,
) -> TrainingResult | None:
    """Trains a translator on a store, and returns its best bundle; None if SIGTERM stopped the run, after saving a
    checkpoint.

    workdir: folder for checkpoints, `metrics.jsonl`, `config.json`, `curves.png` and the best `bundle/`; None: nothing
    is written, and the run cannot be resumed. image_PS: raw source vectors of unlabelled images, if the config names
    any; see `data.images.image_vectors`. progress: whether to show progress on stderr.
    Interrupted runs resume from their last intact checkpoint, bit-exactly on the same number of devices. Raises
    ConfigError before anything is compiled, TrainingError for a loss that is not finite and for a checkpoint that
    cannot be written, StoreError for a damaged store.
    """
    # Set up.
    config = check_rows(check(config), store)
    store.check_files()
    mesh = data_mesh()
    spec = build_spec(config, store.plan.source.dim, store.plan.target.dim)
    split = split_rows(store.plan.rows, config.data.validation_size, config.seed)
    validation, training = split
    steps, epochs = run_length(config, len(training))
    objective = build_objective(config.objective.kind, config.objective.settings)
    translator = build_translator(spec, rngs=nnx.Rngs(config.seed))
    learning_rate = build_learning_rate(config.optimizer, steps)
    optimizer = build_optimizer(config.optimizer, learning_rate, translator.undecayed)

    with (
        jax.default_matmul_precision(config.precision),
        record_signal(signal.SIGTERM) if workdir else contextlib.nullcontext(lambda: False) as is_terminated,
        RunLog(workdir, config, progress) as log,
        Checkpoints(workdir) if workdir else contextlib.nullcontext() as checkpoints,
    ):
        kind = choose_loader(config.data.loader, store)
        run_state = start_or_resume(workdir, store, kind) if workdir else RunState.of(store.plan, kind)
        is_quiet = not (log.writes and progress)
        if steps and run_state.devices != jax.device_count():
            log.info(
                f"the run was started on {run_state.devices} device(s) and resumes on {jax.device_count()}: sums are "
                "taken in another order, so the weights will differ in their last bits from an uninterrupted run"
            )
        with phase("computing means and moments of the captions", quiet=is_quiet):
            precomputed = Precomputed.of(config, spec, store, split, image_PS)
            selector = precomputed.selector(config, store, split, image_PS)
        for line in precomputed.notes:
            log.info(line)
        if fits_closed_form(config):
            set_closed_form(translator, precomputed.moments)

        # Restore.
        graphdef, params = nnx.split(translator, nnx.Param)
        state = init_state(params, objective, optimizer, mesh, ema=config.optimizer.ema)
        if checkpoints:
            state = checkpoints.restore(state)
        step = int(state.step)
        if step > steps:
            raise ConfigError(
                f"{workdir} has been trained for {step:,} steps, more than the {steps:,} of this config: pass more "
                "--config.epochs or --config.steps, or another --workdir"
            )
        with phase("reading the store", quiet=is_quiet):
            loader = open_loader(run_state.loader, config, store, training, mesh, epochs)
        loss = TranslatorLoss(
            graphdef=graphdef,
            objective=objective,
            centring=precomputed.centring,
            noise_cosine=config.augment.noise_cosine,
            steps_per_epoch=max(len(training) / config.batch_size, 1),
            seed=config.seed,
        )
        train_step = make_step(loss, optimizer, learning_rate, ema=config.optimizer.ema, metrics_of=loss.metrics)
        run_steps = jit_steps(train_step, loader.gather, mesh)
        validate = functools.partial(
            _validate, config, store, graphdef, read_vectors(store, validation), precomputed, selector
        )
        devices = f"{jax.device_count()} {jax.devices()[0].platform} device(s)"
        summary = f"{spec.kind}, {len(training):,} captions, on {devices}, {loader}"
        log.start(step, steps, len(training), summary, epochs)

        # Train. While the devices run one call, the host loads the batches of the next.
        must_stop = on_any_process(log.is_stale)  # a run that `patience` has ended stays ended
        count = 0 if must_stop else _steps_of_call(config, step, steps, loader.max_steps)
        batches = loader.batches(step, count) if count else None
        while count and not must_stop:
            start = time.perf_counter()
            state, metrics = run_steps(state, loader.table, batches, count)
            next_count = _steps_of_call(config, step + count, steps, loader.max_steps)
            batches = loader.batches(step + count, next_count) if next_count else None
            values_K = {name: np.asarray(value_K) for name, value_K in metrics.items()}  # waits for the devices
            log.log_steps(values_K, count, time.perf_counter() - start)
            step += count
            if step % config.eval_every == 0 or step == steps:
                log.log_validation(validate(state))
            must_stop = on_any_process(is_terminated() or log.is_stale)
            if checkpoints and (step % config.checkpoint_every == 0 or step == steps or must_stop):
                checkpoints.save(state)
            count = next_count
        if on_any_process(is_terminated()):
            log.info(f"stopped at step {step:,} of {steps:,} by SIGTERM; start again to resume")
            return None
        if not log.is_step_validated:
            log.log_validation(validate(state))
    assert log.best is not None
    if workdir and log.writes:
        draw_curves(workdir / "curves.png", log.history, f"{workdir.name}: {spec.kind}, {config.objective.kind}")
    if config.adapt and (choice := log.best.choice):
        log.info(f"selected from {len(choice.scores)} candidates by {choice.selected_by}: {choice}")
    return TrainingResult(bundle=log.best, history=log.history)


def _steps_of_call(config: Config, step: int, steps: int, max_steps: int) -> int:
    """The number of steps of the call that starts at `step`: up to the next validation or checkpoint; 0 at the end."""
    events = config.eval_every, config.checkpoint_every
    return min(max_steps, steps - step, *(every - step % every for every in events))


def _validate(
    config: Config,
    store: Store,
    graphdef: nnx.GraphDef,
    validation: tuple[np.ndarray, np.ndarray],
    precomputed: Precomputed,
    selector: CandidateSelector,
    state: TrainState,
) -> Bundle:
    """Selects the best candidate at the current step and scores it on the validation captions. The bundle that is
    returned has the scores of that candidate; its closed-form part is then fitted to these captions as well."""
    trained = jax.device_get(state.model)
    choice, perturbed_scores, output_length = selector.select(lambda x: np.asarray(_translate(graphdef, trained, x)))
    model = nnx.merge(graphdef, trained)
    scored = selector.build(choice, model, output_length, final=False)
    published = selector.build(choice, model, output_length, final=True)
    source_VS, target_VE = precomputed.centre(*validation)
    scores = retrieval_scores(np.asarray(_translate(*nnx.split(scored, nnx.Param), source_VS)), target_VE)
    trained_scores = {f"{choice.selected_by}_trained": max(choice.trained_scores)} if config.adapt else {}
    return Bundle(
        translator=published,
        spec=published.spec,
        source=store.plan.source,
        target=store.plan.target,
        recipe=dataclasses.asdict(config),
        metrics={"step": int(state.step), "held_out": len(target_VE), **perturbed_scores, **trained_scores, **scores},
        means=precomputed.means,
        memory=precomputed.memory if choice.memory else precomputed.references,
        choice=choice if config.adapt or config.select_by in PERTURBED_SCORES else None,
    )


@functools.partial(jax.jit, static_argnums=(0,))
def _translate(graphdef: nnx.GraphDef, params: nnx.State, source_NS: jax.Array) -> jax.Array:
    return jax.lax.map(lambda x: nnx.merge(graphdef, params)(x[None])[0], source_NS, batch_size=VALIDATION_BATCH)

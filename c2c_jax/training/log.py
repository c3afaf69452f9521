"""Records a run's metrics and best bundle, in memory and in a work directory, and shows its progress."""

import contextlib
import dataclasses
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
from rich.progress import BarColumn, Progress, TextColumn

from c2c_jax.config import CAPTION_SCORES, Config, candidate_score, flat_fields
from c2c_jax.errors import BundleError, CheckpointError, ConfigError, TrainingError
from c2c_jax.io.atomic import atomic_write, sweep
from c2c_jax.io.console import stderr_console
from c2c_jax.io.files import describe_path
from c2c_jax.io.json import format_json, read_json, read_json_lines
from c2c_jax.io.progress import time_left
from c2c_jax.old_names import upgraded
from c2c_jax.training.trackers import Trackers
from c2c_jax.translator.bundle import Bundle, load_bundle, save_bundle

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 5.0  # of progress, if stderr is not a terminal

_REQUIRED = {"train": ("loss",), "validation": CAPTION_SCORES}  # values of an entry, by phase

# Fields that may differ when a run is resumed, because they do not affect its weights at any step.
_CHANGEABLE = (
    "epochs",
    "steps",
    "steps_per_call",
    "log_every",
    "eval_every",
    "checkpoint_every",
    "patience",
    "embed",
    "log",
    "data.data_dir",
    "data.manual_dir",
    "data.store",
)


class RunLog:
    """The log of a run. Only process 0 writes.

    workdir: folder for `metrics.jsonl`, `config.json` and the best bundle; None: nothing is written. progress: whether
    to show a progress bar, or status lines if stderr is not a terminal. history: the entries of `metrics.jsonl`. best:
    the best bundle so far. Raises ConfigError if `workdir` holds a run with another config.
    """

    def __init__(self, workdir: Path | None, config: Config, progress: bool = True):
        self.workdir, self.config = workdir, config
        self.writes = jax.process_index() == 0
        self.history: list[dict[str, Any]] = []
        self.best: Bundle | None = None
        self.trackers: Trackers | None = None
        if workdir:
            workdir.mkdir(parents=True, exist_ok=True)
            sweep(workdir)
            if describe_path(workdir / "config.json") != "no file":
                _require_same_config(workdir, config)
        console = stderr_console()
        is_shown = self.writes and progress
        self.prints_status = is_shown and not console.is_terminal
        shown = (TextColumn(f"{{task.fields[{name}]}}") for name in ("epoch", "loss", "rate", "left", "score"))
        self.bar = Progress(BarColumn(), *shown, console=console, disable=not is_shown or self.prints_status)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.stop()
        if self.trackers:
            self.trackers.close()

    def start(self, step: int, steps: int, rows: int, summary: str, epochs: int | None = None) -> None:
        """Logs that a run starts at `step`, writes config.json and reads the best bundle so far. Removes log entries
        from after the checkpoint that it resumes from.

        steps, epochs: length of the run; epochs None = the config's. rows: training rows per epoch. summary: describes
        the run."""
        self.step, self.first, self.steps, self.rows = step, step, steps, rows
        self.epochs = epochs or self.config.epochs
        self.started = self.last_status = time.monotonic()
        self.info(f"{f'resuming at step {step:,} of' if step else 'training for'} {steps:,} steps: {summary}")
        if self.workdir:
            self._open(self.workdir, step)
        self.bar.start()
        self.task = self.bar.add_task(
            "training", total=max(steps, 1), completed=step, epoch="", loss="", rate="", left="", score=""
        )

    def _open(self, workdir: Path, step: int) -> None:
        metrics = workdir / "metrics.jsonl"
        if describe_path(metrics) != "no file":
            self.history = [entry for entry in read_entries(metrics) if entry["step"] <= step]
        with contextlib.suppress(BundleError, CheckpointError):
            self.best = load_bundle(workdir / "bundle")
        if self.writes:
            with atomic_write(workdir / "config.json") as temporary:
                temporary.write_bytes(format_json(dataclasses.asdict(self.config)))
            if self.history or describe_path(metrics) != "no file":
                with atomic_write(metrics) as temporary:
                    lines = "".join(json.dumps(entry) + "\n" for entry in self.history)
                    temporary.write_text(lines, encoding="utf-8", newline="\n")
            self.trackers = Trackers(workdir, self.config, step)

    def info(self, line: str) -> None:
        """Logs a line, on process 0 only."""
        if self.writes:
            logger.info("%s", line)

    def log_steps(self, metrics: Mapping[str, np.ndarray], count: int, seconds: float) -> None:
        """Logs the metrics [K] of the next `count` steps. seconds: their total duration.

        Raises TrainingError for a loss, gradient or update that is not finite.
        """
        first, B = self.step, self.config.batch_size
        rate = count * B / seconds
        watched = {"loss": "loss", "grad_norm": "gradient's norm", "update_norm": "update's norm"}
        finite = np.all([np.isfinite(metrics[name][:count]) for name in watched], axis=0)
        for k in range(count):
            self.step = first + k + 1
            if not finite[k]:
                name = next(name for name in watched if not np.isfinite(metrics[name][k]))
                raise self._not_finite(watched[name], float(metrics[name][k]))
            if self.step % self.config.log_every == 0 or self.step == self.steps:
                values = {name: float(values[k]) for name, values in metrics.items()}
                self._write("train", {**values, "rows_per_second": rate})
        loss, done = metrics["loss"][count - 1], self.step - self.first
        left = time_left(done, self.steps - self.first, time.monotonic() - self.started)
        epoch = f"epoch {self.step * B / self.rows:.1f}/{self.epochs}"
        shown = epoch, f"loss {loss:.4f}", f"{rate:,.0f} rows/s", f"{left} left" if left else ""
        self.bar.update(self.task, completed=self.step, epoch=shown[0], loss=shown[1], rate=shown[2], left=shown[3])
        if self.prints_status and time.monotonic() - self.last_status > SECONDS_BETWEEN_LINES:
            self.last_status = time.monotonic()
            self.bar.console.print(f"step {self.step:,} of {self.steps:,}  {'  '.join(filter(None, shown))}")

    def _not_finite(self, what: str, value: float) -> TrainingError:
        folder = self.workdir and self.workdir / "checkpoints"
        kept = sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal()) if folder else []
        last = f"the last good checkpoint is {folder}/{kept[-1]}" if kept else "no checkpoint is saved"
        return TrainingError(
            f"the {what} is {value} at step {self.step}; {last}; in a new run, try a smaller "
            "--config.optimizer.learning_rate, --config.optimizer.clip_norm=1.0 or --config.optimizer.warmup=100"
        )

    @property
    def scores(self) -> list[dict[str, Any]]:
        """The entries of all validations."""
        return [entry for entry in self.history if entry["phase"] == "validation"]

    @property
    def is_step_validated(self) -> bool:
        """Whether the current step has been validated and there is a best bundle."""
        return bool(self.scores) and self.scores[-1]["step"] == self.step and self.best is not None

    @property
    def is_stale(self) -> bool:
        """Whether the last `config.patience` validations brought no improvement; False on processes other than 0. With
        config.adapt, an improvement of the trained translator counts even if another candidate is better."""
        if not (self.writes and self.config.patience and (best := self.best)):
            return False
        since = best.metrics["step"]
        if self.config.adapt and self.scores:
            score = f"{candidate_score(self.config.select_by)}_trained"
            since = max(since, max(self.scores, key=lambda entry: entry.get(score, -2.0))["step"])
        return sum(entry["step"] > since for entry in self.scores) >= self.config.patience

    def log_validation(self, bundle: Bundle) -> None:
        """Logs the scores of the current step's bundle, and keeps it if it is better than the best one so far."""
        self._write("validation", bundle.metrics)
        chosen = self.config.select_by
        score = f"{chosen} {bundle.metrics[chosen]:.4g}"
        if self.best is None or _is_better(chosen, bundle.metrics[chosen], self.best.metrics[chosen]):
            self.best = bundle
            score += ", the best"
            if self.workdir and self.writes:
                save_bundle(self.workdir / "bundle", bundle)
        self.bar.update(self.task, score=score)
        shown = "  ".join(f"{name} {value:,.4g}" for name, value in bundle.metrics.items() if name != "step")
        self.info(f"step {self.step:,} of {self.steps:,}  {shown}")

    def _write(self, phase: str, values: Mapping[str, Any]) -> None:
        entry = {"step": self.step, "phase": phase, **values}
        self.history.append(entry)
        if self.workdir and self.writes:
            with open(self.workdir / "metrics.jsonl", "a", encoding="utf-8", newline="\n") as file:
                file.write(json.dumps(entry) + "\n")
        if self.trackers:
            self.trackers.write(self.step, phase, {name: value for name, value in values.items() if name != "step"})


def _is_better(score: str, a: float, b: float) -> bool:
    return a < b if score == "median_rank" else a > b


def read_entries(path: Path) -> list[dict[str, Any]]:
    """Reads the entries of a `metrics.jsonl` up to the first damaged line, which is reported. An incomplete last line
    is dropped silently. Raises TrainingError if the file cannot be read.
    """
    entries: list[dict[str, Any]] = []
    for number, entry in read_json_lines(path, dict, TrainingError, "delete it, or pass another --workdir"):
        if not _is_entry(entry):
            logger.warning("%s: line %s cannot be read; it and all later lines are dropped", path, f"{number:,}")
            break
        entries.append(entry)  # type: ignore[arg-type]
    else:
        if not entries:
            logger.warning("%s has no readable entries", path)
    return entries


def _is_entry(entry: Any) -> bool:
    """Whether an entry has a step, a phase and the numbers that its phase requires."""
    if not isinstance(entry, dict) or type(entry.get("step")) is not int or entry["step"] < 0:
        return False
    required = next((names for phase, names in _REQUIRED.items() if phase == entry.get("phase")), None)
    are_numbers = all(type(value) in (int, float) for name, value in entry.items() if name != "phase")
    return required is not None and are_numbers and all(name in entry for name in required)


def _require_same_config(workdir: Path, config: Config) -> None:
    saved = upgraded(read_json(workdir / "config.json", ConfigError, "pass another --workdir"))
    before, now = dict(flat_fields(saved)), dict(flat_fields(dataclasses.asdict(config)))
    if before and "steps_per_call" not in before:  # version 0.1 saved the settings of all translators
        before = {**now, **{name: value for name, value in before.items() if name in now}}
    decays = config.optimizer.decay != "constant"
    free = tuple(name for name in _CHANGEABLE if name not in ("epochs", "steps")) if decays else _CHANGEABLE
    changed = [
        name
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name) and not any(name == f or name.startswith(f + ".") for f in free)
    ]
    if not changed:
        return
    differences = ", ".join(f"{name} {before.get(name)!r:.80}, now {now.get(name)!r:.80}" for name in changed[:3])
    if changed == ["epochs"]:
        raise ConfigError(
            f"the run in {workdir} was started with a different length ({differences}): with optimizer.decay "
            f"{config.optimizer.decay} the length sets the learning rate, so it cannot change on resume; pass "
            f"--config.epochs={before.get('epochs')}, or another --workdir"
        )
    raise ConfigError(f"{workdir} holds a run with another config ({differences}); pass another --workdir")

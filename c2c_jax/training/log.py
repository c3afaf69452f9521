"""What a run writes for people: `metrics.jsonl`, `config.json`, the bundle, and lines on the terminal."""

import dataclasses
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from c2c_jax.config import Config
from c2c_jax.errors import ConfigError, TrainingError
from c2c_jax.files import written_whole
from c2c_jax.weights.translator import Bundle, save_bundle

console = Console(stderr=True, soft_wrap=True, highlight=False)

# A run may be taken up with other values of these: they do not touch its parameters at any step.
_FREE = (
    "epochs",
    "log_every",
    "eval_every",
    "checkpoint_every",
    "embed",
    "data.data_dir",
    "data.manual_dir",
    "data.store",
)


class RunLog:
    """The log of one run in one work directory. Only process 0 writes.

    Raises ConfigError where `workdir` holds a run with another config.
    """

    def __init__(self, workdir: Path, config: Config):
        self.workdir, self.config = workdir, config
        self.writes = jax.process_index() == 0
        self.step = self.steps = self.rows = 0
        workdir.mkdir(parents=True, exist_ok=True)
        if (workdir / "config.json").is_file():
            _refuse_another_run(workdir, config)
        if self.writes:
            with written_whole(workdir / "config.json") as beside:
                beside.write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n", encoding="utf-8")

    def start(self, step: int, steps: int, rows: int, kind: str) -> None:
        """Tells what begins, and drops the lines that a run stopped after its last checkpoint left behind."""
        self.step, self.steps = step, steps
        self.since = time.monotonic()
        devices = f"{jax.device_count()} {jax.devices()[0].platform} device(s)"
        if self.writes:
            verb = f"resuming at step {step:,} of" if step else "training for"
            console.print(f"{verb} {steps:,} steps: {kind}, {rows:,} captions, on {devices}")
            metrics = self.workdir / "metrics.jsonl"
            if metrics.is_file():
                kept = [line for line in _whole_lines(metrics) if self._stays(json.loads(line), step)]
                with written_whole(metrics) as beside:
                    beside.write_text("".join(kept), encoding="utf-8")

    def _stays(self, entry: Mapping[str, Any], step: int) -> bool:
        final = entry["phase"] == "validation" and entry["step"] == self.steps  # every end of the run writes it anew
        return entry["step"] <= step and not final

    def count(self, rows: int) -> int:
        """Notes a step over `rows` rows as done; gives its number, counted from 1."""
        self.step += 1
        self.rows += rows
        return self.step

    def training(self, metrics: Mapping[str, Any]) -> None:
        """Writes a step's metrics and the rows per second since the last such line.

        Raises TrainingError for a loss that is not finite.
        """
        values = {name: float(value) for name, value in metrics.items()}  # waits for the device
        refuse_non_finite(self.step, values["loss"], self.workdir)
        now = time.monotonic()
        values["rows_per_second"] = self.rows / (now - self.since)
        self.since, self.rows = now, 0
        self._write("train", values)

    def validation(self, bundle: Bundle) -> None:
        """Writes a bundle and its scores. The time it took does not count as training."""
        self._write("validation", bundle.metrics)
        if self.writes:
            save_bundle(self.workdir / "bundle", bundle)
        self.since, self.rows = time.monotonic(), 0

    def _write(self, phase: str, values: Mapping[str, Any]) -> None:
        if not self.writes:
            return
        entry = {"step": self.step, "phase": phase, **values}
        with open(self.workdir / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        shown = "  ".join(f"{name} {value:,.4g}" for name, value in values.items() if name != "step")
        console.print(f"step {self.step:>{len(str(self.steps))}}/{self.steps}  {shown}")


def refuse_non_finite(step: int, loss: float, workdir: Path) -> None:
    """Raises TrainingError for a loss that is inf or nan, saying from where and how to go on."""
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss is {loss} at step {step}; the last good checkpoint is in {workdir / 'checkpoints'}; "
            "try a smaller --config.optimizer.learning_rate in a new work directory"
        )


def _whole_lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]


def _fields(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields as `a.b` → value."""
    flat = {}
    for name, value in config.items():
        flat.update(_fields(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat


def _refuse_another_run(workdir: Path, config: Config) -> None:
    try:
        before = _fields(json.loads((workdir / "config.json").read_text(encoding="utf-8")))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{workdir / 'config.json'} is damaged ({error}); pass another --workdir") from None
    now = _fields(dataclasses.asdict(config))
    changed = [
        name
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name) and not any(name == free or name.startswith(free + ".") for free in _FREE)
    ]
    if changed:
        told = ", ".join(f"{name} {before.get(name)!r}, now {now.get(name)!r}" for name in changed[:3])
        raise ConfigError(f"{workdir} holds a run with another config ({told}); pass another --workdir")

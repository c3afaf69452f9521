"""Sends metrics to TensorBoard and Weights & Biases, if the config enables them."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from c2c_jax.config import Config


class Trackers:
    """The trackers of a run. A resumed run continues its earlier TensorBoard and W&B logs."""

    def __init__(self, workdir: Path, config: Config, step: int):
        self.board = self.wandb = None
        if config.log.tensorboard:
            from tensorboardX import SummaryWriter

            self.board = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)
        if config.log.wandb:
            import wandb

            path = str(workdir.resolve())
            self.wandb = wandb.init(
                project=config.log.wandb,
                name=workdir.resolve().name,
                id=hashlib.sha256(path.encode()).hexdigest()[:16],
                resume="allow",
                dir=path,
                config=dataclasses.asdict(config),
            )

    def write(self, step: int, phase: str, values: Mapping[str, Any]) -> None:
        """Sends values by name. phase: "train" or "validation", which becomes the prefix of the names."""
        if self.board:
            for name, value in values.items():
                self.board.add_scalar(f"{phase}/{name}", value, step)
        if self.wandb:
            self.wandb.log({f"{phase}/{name}": value for name, value in values.items()}, step=step)

    def close(self) -> None:
        """Closes the trackers, after everything is written."""
        if self.board:
            self.board.close()
        if self.wandb:
            self.wandb.finish()

"""A resumable training loop in torch, for AudioLDM's networks."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from c2c_jax.io.atomic import atomic_write
from c2c_jax.io.console import stderr_console
from tools.pretrain.clock import Clock

console = stderr_console()
Module = TypeVar("Module", bound=torch.nn.Module)


EVERY = 250  # steps between checkpoints, and between printed lines


def fit(
    module: Module,
    loss_of: Callable[[Module, int], torch.Tensor],
    path: Path,
    *,
    steps: int,
    learning_rate: float,
    warmup: int = 200,
    ema: float = 0.999,
) -> tuple[Module, float]:
    """Trains a module with AdamW and cosine decay; returns the moving average of its weights and the minutes taken.

    loss_of: (module, step) → loss. The batch is a function of the step, so that interrupted runs resume bit-exactly.
    path: of the checkpoint.
    """
    averaged = copy.deepcopy(module).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(module.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    first = 0
    if path.is_file():
        state = torch.load(path, weights_only=True)
        first = state["step"]
        module.load_state_dict(state["module"])
        averaged.load_state_dict(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
    clock, losses = Clock(path.with_suffix(".minutes")), []
    start = clock.minutes
    for step in range(first, steps):
        rate = learning_rate * min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(step)
        loss = loss_of(module.train(), step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        decay = min(ema, (1 + step) / (10 + step))
        with torch.no_grad():
            for average, weight in zip(averaged.state_dict().values(), module.state_dict().values(), strict=True):
                average.lerp_(weight, 1 - decay) if average.is_floating_point() else average.copy_(weight)
        losses.append(float(loss.detach()))
        if (step + 1) % EVERY == 0 or step + 1 == steps:
            state = {
                "step": step + 1,
                "module": module.state_dict(),
                "averaged": averaged.state_dict(),
                "optimizer": optimizer.state_dict(),
            }
            with atomic_write(path) as temp:
                torch.save(state, temp)
            clock.save()
            pace = (clock.minutes - start) / (step + 1 - first)
            console.print(f"{path.stem}: step {step + 1} of {steps}  loss {np.mean(losses):.4f}  "
                          f"{60 * pace:.2f} s a step, {pace * (steps - step - 1):.0f} min left")  # fmt: skip
            losses = []
    return averaged, clock.minutes if first < steps else start

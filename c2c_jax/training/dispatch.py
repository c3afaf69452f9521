"""How many steps a dispatch takes, and whether a run is to stop after it: the same on every host."""

import jax
import numpy as np
from jax.experimental import multihost_utils

from c2c_jax.config import Config

SECONDS = 0.5  # of a dispatch: a run stops no later after it is asked to


class Dispatches:
    """Lengths of dispatches: single steps until the pace is known, then half a second's worth, never past a validation,
    a checkpoint or the end.

    most: steps that a dispatch can take.
    """

    def __init__(self, config: Config, steps: int, most: int):
        self.config, self.steps, self.most = config, steps, most
        self.measured = 0
        self.at_once = 1

    def length(self, step: int) -> int:
        """Steps of the dispatch from `step` on; 0 at the end."""
        every = self.config.eval_every, self.config.checkpoint_every
        return min(self.at_once, self.steps - step, *(event - step % event for event in every))

    def took(self, count: int, seconds: float) -> None:
        """Learns the pace from the second dispatch: the first one compiled as well."""
        self.measured += 1
        if self.measured == 2:
            at_once = min(max(int(SECONDS * count / seconds), 1), self.most)
            self.at_once = int(multihost_utils.broadcast_one_to_all(np.asarray(at_once)))


def on_any_host(told: bool) -> bool:
    """Whether it is so on any host."""
    return bool(np.any(multihost_utils.process_allgather(np.asarray(told)))) if jax.process_count() > 1 else told

"""Settings for sampling sounds. The module imports neither torch nor JAX."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import msgspec

from c2c_jax.errors import CheckpointError, GenerationError
from c2c_jax.io.extras import require_extra
from c2c_jax.io.files import path_exists
from c2c_jax.io.json import read_json

# ddim: as in the paper. Others: the fewest steps that come as close to the limit of many steps (`bench/generate.py`).
STEPS = {"dpm++": 35, "unipc": 25, "ddim": 200}
DTYPES = ("float32", "bfloat16", "float16")
MAX_SEED, MAX_CANDIDATES = 2**63 - 1, 1000
MAX_PROMPT = 10_000  # characters of the negative prompt in a checkpoint's sampling.json
SAMPLING_FILE = "sampling.json"  # optional file in a checkpoint's folder with its recommended settings
MINIWORLD_CLAP, MINIWORLD_AUDIOLDM = "miniworld/clap", "miniworld/audioldm"  # checkpoints of the package
MAX_SECONDS = 600  # of sound; memory grows quadratically, and the model was trained on ten seconds


def require_torch() -> None:
    """Raises MissingExtraError unless the packages that run AudioLDM are installed. Imports none of them."""
    require_extra("torch", "generating sounds", "torch", "diffusers")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """AudioLDM's sampling settings; the defaults of guidance and negative prompt are those of CLIP2CLAP (Wong)."""

    scheduler: str = "dpm++"  # a key of STEPS
    steps: int | None = None  # None: as in STEPS
    seconds: float = 10.0
    guidance: float = 7.5  # weight of classifier-free guidance; 1 or less: no guidance
    negative_prompt: str = "Low quality"  # what guidance leads away from
    seed: int = 0  # of the first candidate's initial noise; the next candidate has the next seed
    candidates: int = 1  # sounds for each vector

    @property
    def seeds(self) -> list[int]:
        """The seed of each candidate."""
        return [self.seed + number for number in range(self.candidates)]

    @property
    def number_of_steps(self) -> int:
        """The number of steps, with the default of the scheduler."""
        return STEPS[self.scheduler] if self.steps is None else self.steps

    def check(self) -> None:
        """Raises GenerationError for settings that no model supports; see `AudioLDM.check` for those of one model."""
        if self.scheduler not in STEPS:
            raise GenerationError(f"scheduler must be one of {', '.join(STEPS)}, found {self.scheduler!r}")
        if self.number_of_steps < 1:
            raise GenerationError(f"steps must be 1 or more, found {self.steps}")
        if not 0 < self.seconds <= MAX_SECONDS:
            raise GenerationError(f"seconds must be above 0 and at most {MAX_SECONDS}, found {self.seconds}")
        if not math.isfinite(self.guidance):
            raise GenerationError(f"guidance must be a finite number (1 or less: none), found {self.guidance}")
        if not 1 <= self.candidates <= MAX_CANDIDATES:
            raise GenerationError(f"candidates must be from 1 to {MAX_CANDIDATES:,}, found {self.candidates}")
        if not 0 <= self.seed <= MAX_SEED - self.candidates + 1:
            raise GenerationError(f"seed must be from 0 to {MAX_SEED}, found {self.seed}")


def checkpoint_sampling(folder: Path) -> dict[str, Any]:
    """Reads a checkpoint's recommended settings, keyed by the fields of `Sampling`; empty for most checkpoints. Raises
    CheckpointError for invalid settings."""
    path = folder / SAMPLING_FILE
    if not path_exists(path):
        return {}
    settings = read_json(path)
    known = {field.name for field in dataclasses.fields(Sampling)} - {"seed", "candidates"}
    if unknown := sorted(set(settings) - known):
        raise CheckpointError(f"{path}: unknown {', '.join(unknown)[:200]}; known are {', '.join(sorted(known))}")
    settings = {name: value for name, value in settings.items() if value is not None}
    try:
        sampling = msgspec.convert(settings, Sampling)
        sampling.check()
        if len(sampling.negative_prompt) > MAX_PROMPT:
            raise GenerationError(f"negative_prompt has more than {MAX_PROMPT:,} characters")
    except (msgspec.ValidationError, GenerationError) as error:
        raise CheckpointError(f"{path}: {error}; fetch it again") from None
    return settings

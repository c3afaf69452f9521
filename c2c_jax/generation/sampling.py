"""How sounds are sampled: settings alone, with nothing heavy imported."""

import dataclasses
import math
from pathlib import Path
from typing import Annotated, Any

import msgspec

from c2c_jax.errors import CheckpointError, GenerationError
from c2c_jax.io.files import is_there
from c2c_jax.io.json import read_json

# Of ddim the paper's; of the others the fewest that come as near to the end of endless steps (`bench/generate.py`).
STEPS = {"dpm++": 35, "unipc": 25, "ddim": 200}
DTYPES = ("float32", "bfloat16", "float16")
MAX_SEED, MAX_CANDIDATES = 2**63 - 1, 1000
SAMPLING_FILE = "sampling.json"  # in a checkpoint's folder: the settings that it is best sampled with, if it knows
LONGEST = 600  # seconds of sound: memory grows with its square, and the model was trained on ten


@dataclasses.dataclass(frozen=True, kw_only=True)
class Versions:
    """Of the libraries by which a sound was made, as its record states them."""

    c2c_jax: str = ""
    diffusers: str = ""
    flax: str = ""
    jax: str = ""
    numpy: str = ""
    torch: str = ""
    transformers: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """AudioLDM's settings; guidance and negative prompt are CLIP2CLAP's (Wong)."""

    scheduler: str = "dpm++"  # a key of STEPS
    steps: int | None = None  # None: as many as are enough for the scheduler
    seconds: float = 10.0
    guidance: float = 7.5  # weight of classifier-free guidance; at 1 or below there is none
    negative_prompt: str = "Low quality"  # what guidance leads away from
    seed: int = 0  # of the first candidate's initial noise; the next candidate has the next seed
    candidates: int = 1  # sounds for each vector

    @property
    def seeds(self) -> list[int]:
        return [self.seed + number for number in range(self.candidates)]

    @property
    def number_of_steps(self) -> int:
        return STEPS[self.scheduler] if self.steps is None else self.steps

    def check(self) -> None:
        """Raises GenerationError for what no model can do; `AudioLDM.check` knows what one model can."""
        if self.scheduler not in STEPS:
            raise GenerationError(f"scheduler must be one of {', '.join(STEPS)}, found {self.scheduler!r}")
        if self.number_of_steps < 1:
            raise GenerationError(f"steps must be 1 or more, found {self.steps}")
        if not 0 < self.seconds <= LONGEST:
            raise GenerationError(f"seconds must be above 0 and at most {LONGEST}, found {self.seconds}")
        if not math.isfinite(self.guidance):
            raise GenerationError(f"guidance must be a finite number (1 or less: none), found {self.guidance}")
        if not 1 <= self.candidates <= MAX_CANDIDATES:
            raise GenerationError(f"candidates must be from 1 to {MAX_CANDIDATES:,}, found {self.candidates}")
        if not 0 <= self.seed <= MAX_SEED - self.candidates + 1:
            raise GenerationError(f"seed must be from 0 to {MAX_SEED}, found {self.seed}")


@dataclasses.dataclass(frozen=True)
class _OwnSampling:
    scheduler: str | None = None
    steps: Annotated[int, msgspec.Meta(ge=1, le=10_000)] | None = None
    seconds: float | None = None
    guidance: float | None = None
    negative_prompt: Annotated[str, msgspec.Meta(max_length=10_000)] | None = None


def own_sampling(folder: Path) -> dict[str, Any]:
    """The settings that a checkpoint says it is best sampled with, by the names of `Sampling`'s fields; of most
    checkpoints none. Raises CheckpointError for what are no settings."""
    path = folder / SAMPLING_FILE
    if not is_there(path):
        return {}
    settings = read_json(path)
    known = {field.name for field in dataclasses.fields(_OwnSampling)}
    if foreign := sorted(set(settings) - known):
        raise CheckpointError(f"{path}: unknown {', '.join(foreign)[:200]}; known are {', '.join(sorted(known))}")
    try:
        own = msgspec.convert(settings, _OwnSampling)
        settings = {name: value for name, value in dataclasses.asdict(own).items() if value is not None}
        Sampling(**settings).check()
    except (msgspec.ValidationError, GenerationError) as error:
        raise CheckpointError(f"{path}: {error}; fetch it again") from None
    return settings

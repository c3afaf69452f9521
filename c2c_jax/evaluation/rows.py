"""The rows of an evaluation, each one figure of one method in one task, and what it goes without."""

import dataclasses
from typing import Any

TASKS = {
    "captions": "captions",
    "images_to_sounds": "images → sounds",
    "sounds_to_images": "sounds → images",
    "texts_to_sounds": "sound captions → sounds",
    "sounds_to_texts": "sounds → sound captions",
    "gaps": "the gaps",
    "generated": "generated sound",
    "geometry": "the geometry of the two spaces",
    "rotation": "linear maps between the two text spaces",
}
CENTRED, LESS_HUBNESS = "centred_", "nnn_"
# How queries and candidates are compared, by the prefix of a metric's name; "": plain cosine.
SCORINGS = {"": "", CENTRED: "centred cosine", LESS_HUBNESS: "centred cosine, less hubness"}
DIRECTIONS = {"source_to_target": "source text → target text", "target_to_source": "target text → source text"}


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure.

    task: a key of TASKS. method: whose vectors were scored. n: number of queries, pairs or sounds. low, high: the 95 %
    interval; None: it has none. direction: a key of DIRECTIONS, for tasks with two. reference: the set that a distance
    is measured to.
    """

    task: str
    method: str
    metric: str
    value: float
    n: int
    low: float | None = None
    high: float | None = None
    direction: str | None = None
    reference: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields as written to `metrics.json`, without an absent direction or reference."""
        fields = dataclasses.asdict(self)
        return {name: fields[name] for name in fields if name not in ("direction", "reference") or fields[name]}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SkippedFile:
    """A file or row that was not used, or not in full, and why."""

    file: str
    why: str

    def __str__(self) -> str:
        return f"{self.file}: {self.why}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Missing:
    """A method or metric that could not be computed, and why."""

    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


def scoring_of(metric: str) -> tuple[str, str]:
    """Splits a metric's name into its prefix, a key of SCORINGS, and the rest."""
    prefix = next((prefix for prefix in (CENTRED, LESS_HUBNESS) if metric.startswith(prefix)), "")
    return prefix, metric.removeprefix(prefix)

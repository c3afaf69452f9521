"""What an evaluation is made of: rows, each one figure of one method in one task."""

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One figure. task: a key of TASKS. method: whose vectors they are. n: queries, pairs or sounds that it is over.

    low, high: its 95 % interval, None where it has none. direction: a key of DIRECTIONS, where the task does not say
    it. reference: the set that a distance is to.
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
        """As it goes into `metrics.json`: without a direction or reference that it does not have."""
        fields = dataclasses.asdict(self)
        return {name: fields[name] for name in fields if name not in ("direction", "reference") or fields[name]}


def scoring_of(metric: str) -> tuple[str, str]:
    """Splits a metric's name into its prefix, a key of SCORINGS, and the rest."""
    prefix = next((prefix for prefix in (CENTRED, LESS_HUBNESS) if metric.startswith(prefix)), "")
    return prefix, metric.removeprefix(prefix)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A file that is named and not used in full, and why."""

    file: str
    why: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Missing:
    """A method or metric that the table goes without, and what would bring it."""

    what: str
    why: str

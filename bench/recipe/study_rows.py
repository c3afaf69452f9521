"""The study as data: the rows of its panels, each with the settings that validation chooses among."""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence

from bench.recipe.configs import Settings, read_settings
from bench.recipe.ground import REFERENCES
from bench.recipe.methods import TEMPERATURES
from bench.recipe.others import BEHIND, OTHERS, RECIPE
from bench.recipe.use import MEANS

Grid = Mapping[str, Sequence[object]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A config file with some fields set; the settings are the combinations of each of the grids, each with each of the
    kinds of means."""

    name: str
    config: str = RECIPE
    fixed: Mapping[str, object]
    grids: tuple[Grid, ...] = ({},)
    means: tuple[str, ...] = ("",)

    @property
    def first(self) -> "Row":
        """Of its first setting alone."""
        grid = {field: values[:1] for field, values in self.grids[0].items()}
        return dataclasses.replace(self, grids=(grid,), means=self.means[:1])

    def settings(self) -> Settings:
        """Raises ConfigError."""
        found: Settings = {}
        for grid in self.grids:
            found |= read_settings(self.config, grid, self.fixed)
        return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """Rows on one ground. suffix: of their names. references: rows without a config. like: the number of captions whose
    steps every row has, by more or fewer epochs; None: the epochs are the rows' own. second: in the second pair of
    spaces."""

    rows: tuple[Row, ...]
    captions: int
    suffix: str = ""
    references: tuple[str, ...] = ()
    offset: str = "gap:0"
    like: int | None = None
    second: bool = False


def row(name: str, fixed: Mapping[str, object], *grids: Grid, **others) -> Row:
    return Row(name=name, fixed=fixed, grids=grids or ({},), **others)


NOISE = {
    "translator.depth": 4, "augment.noise": 0.8, "objective.kind": "infonce", "objective.temperature": 0.07,
    "memory.captions": 0, "pictures.calibrate": False,
}  # fmt: skip
PLAIN = NOISE | {"augment.noise": 1.0}
COSINE = NOISE | {"objective.kind": "cosine"}
MEMORY = {"memory.captions": 8000, "memory.share": 0.45, "memory.temperature": 0.01}

# The first values are those of a quick study.
DEPTHS = {"translator.depth": (4, 2, 6)}
NOISES = (
    {"augment.noise": (0.8, 0.9, 0.7, 0.6)},
    {"augment.noise": (0.7,), "augment.noise_most": (0.95,)},
    {"augment.noise": (0.6,), "augment.noise_most": (0.9,)},
)
MEMORIES = {
    "memory.share": (0.45, 0.25, 0.35, 0.6, 0.75, 1),
    "memory.captions": (8000, 300, -1),
    "memory.temperature": (0.01, 0.02),
}

PAPER = row("paper", {}, config="configs/mlp.py")
SHIPPED = row("shipped", {})
TOOLS = (
    PAPER,
    row("mlp_infonce", {}, config="configs/mlp_infonce.py"),
    row("plain", PLAIN, DEPTHS),
    row("plain_cosine", PLAIN | {"objective.kind": "cosine"}),
    row("plain_memory", PLAIN, MEMORIES),
    row("noise", NOISE, *NOISES),
    row("noise_deep", NOISE, {"translator.depth": (4, 2, 3, 6)}),
    row("memory", NOISE, MEMORIES),
    row("cosine", COSINE, *NOISES),
    row("cosine_deep", COSINE, {"translator.depth": (4, 2, 6)}),
    row("cosine_memory", COSINE, MEMORIES),
    SHIPPED,
    row("means", PLAIN, DEPTHS, means=MEANS),
    row("noise_means", NOISE, *NOISES, means=MEANS),
    row("cosine_means", COSINE, means=MEANS),
    row("cosine_memory_means", COSINE, MEMORIES, means=MEANS[:1]),
    # What else holds a translator back, on top of the noise.
    row("twins", NOISE, {"objective.twin_cosine": (0.8, 0.9, 0.95)}),
    row("decay", NOISE, {"optimizer.weight_decay": (0.1, 1, 3)}),
    row("narrow", NOISE, {"translator.width": (64, 128)}),
    row("infonce_cosine", NOISE | {"objective.kind": "infonce + cosine"}),
    row("longer", NOISE, {"epochs": (5, 15, 45)}),
    row("no_average", NOISE | {"optimizer.ema": 0}),
    row("identity", NOISE | {"translator.start": "identity"}),
)
# Of one setting: nothing is chosen any more.
UNCALIBRATED = row("shipped_uncalibrated", {"pictures.calibrate": False})
ONE_EACH = (PAPER, row("plain", PLAIN), row("noise", NOISE), row("cosine", COSINE), SHIPPED)

BOUNDS = ("ceiling", "chance")
GAPS = {"natural": "gap:0", "0.55": "gap:0.55", "0.85": "gap:0.85"}
SIZES, QUICK_SIZES = (300, 3000, 30_000, 300_000), (300, 3000)
EPOCHS, QUICK_EPOCHS = (1, 2, 4, 8, 16, 32), (1, 4, 16)
SHARES = (0, 0.1, 0.2, 0.3, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
QUICK_SHARES = (0, 0.5, 1)


def calibrated(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Each with the means of unlabelled pictures."""
    return tuple(dataclasses.replace(one, name=f"{one.name}_calibrated", means=("pictures",)) for one in rows)


def _trained_for(epochs: int) -> tuple[Row, ...]:
    ways = {"plain": PLAIN, "noise": NOISE, "cosine": COSINE}
    ways |= {f"{name}_memory": fixed | MEMORY for name, fixed in ways.items()}
    return tuple(row(f"{name}@{epochs}", fixed | {"epochs": epochs}) for name, fixed in ways.items())


def _shared(share: float) -> Row:
    """The shipped recipe with so much of its memory."""
    return row(f"shipped@{share:g}", {"memory.share": share} if share else {"memory.captions": 0})


def panels(flags: argparse.Namespace) -> dict[str, tuple[Case, ...]]:
    """All of them, by name, in the order in which they run. flags: captions and quick are read."""
    sizes, epochs, shares = (
        (QUICK_SIZES, QUICK_EPOCHS, QUICK_SHARES) if flags.quick else (SIZES, EPOCHS, SHARES)
    )  # fmt: skip
    here, others = flags.captions, list(OTHERS)[: 4 if flags.quick else None]
    nearest = tuple(f"nearest_caption@{temperature:g}" for temperature in TEMPERATURES)
    both_nearest = ("nearest_caption", "nearest_caption_calibrated")
    found = {
        "tools": (Case(rows=TOOLS, captions=here, references=(*REFERENCES, *BOUNDS)),),
        "gap": tuple(
            Case(
                rows=(*ONE_EACH, *calibrated(ONE_EACH[:4]), UNCALIBRATED), captions=here, suffix=f"@{name}",
                offset=offset, references=(*both_nearest, "label_prompts"),
            )
            for name, offset in GAPS.items()
        ),
        "captions": tuple(
            Case(rows=ONE_EACH, captions=size, suffix=f"@{size}", like=here, references=("nearest_caption",))
            for size in sizes
        ),
        "towers": (
            Case(rows=ONE_EACH, captions=here, second=True, references=("nearest_caption", "label_prompts", *BOUNDS)),
        ),
        "curves": (Case(rows=sum(map(_trained_for, epochs), ()), captions=here),),
        "frontier": (
            Case(
                rows=(*ONE_EACH[:4], *map(_shared, shares)), captions=here,
                references=(*nearest, "label_prompts", "oracle_ridge", "oracle_residual"),
            ),
        ),
        "others": (Case(rows=(), captions=here, references=tuple(others) + tuple(name + BEHIND for name in others)),),
    }  # fmt: skip
    if not flags.quick:
        return found
    return {
        name: tuple(dataclasses.replace(case, rows=tuple(one.first for one in case.rows)) for case in cases)
        for name, cases in found.items()
    }

"""Tabulates the scores of a finished run and draws its `curves.png`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from c2c_jax.config import CAPTION_SCORES, PERTURBED_SCORES
from c2c_jax.io.atomic import atomic_write


def score_table(best: dict[str, Any], last: dict[str, Any]) -> Table:
    """A table of the scores of the saved bundle next to those of the last validation."""
    columns = [("kept", best)] if best["step"] == last["step"] else [("kept", best), ("last", last)]
    table = Table("score", *(f"{name}, step {entry['step']:,}" for name, entry in columns))
    for score in (score for score in (*PERTURBED_SCORES, *CAPTION_SCORES) if score in best):
        table.add_row(score, *(f"{entry[score]:.4g}" for _, entry in columns))
    return table


def draw_curves(path: Path, history: Sequence[dict[str, Any]], title: str) -> None:
    """Draws the training loss and the validation scores over steps. history: the entries of `metrics.jsonl`."""
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    training = [entry for entry in history if entry["phase"] == "train"]
    validations = [entry for entry in history if entry["phase"] == "validation"]
    left.plot([entry["step"] for entry in training], [entry["loss"] for entry in training], linewidth=1)
    left.set(xlabel="step", ylabel="training loss")
    for score in (*PERTURBED_SCORES, *(score for score in CAPTION_SCORES if score.startswith("recall"))):
        scored = [entry for entry in validations if score in entry]
        if scored:
            right.plot([e["step"] for e in scored], [e[score] for e in scored], marker=".", label=score)
    right.set(xlabel="step", ylabel="validation score", ylim=(0, 1))
    right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=120)

"""Results as tables and as one flat object."""

from collections.abc import Sequence

from rich.console import Console

from bench.recipe.scores import Summary
from bench.recipe.trial import Result
from c2c_jax.evaluation.tables import Table, markdown, show

PARTS = ("", "_seen", "_held_out")
COLUMNS = {
    "image → sound": (
        *("caption_recall@1", "source", "cell", "cell_seen", "cell_held_out", "gap_source", "gap_target"),
    ),
    "own sound in galleries of a sound of each cell": tuple(f"recall@{k}{part}" for k in (1, 5, 10) for part in PARTS),
    "captions and sources, by cells": tuple(
        f"{name}{part}" for name in ("caption_recall@1", "source") for part in PARTS[1:]
    ),
}


def tables(results: Sequence[Result]) -> list[Table]:
    """Every figure of every result. The first table has the settings too, and what runs kept, seed by seed."""
    found: list[Table] = []
    for title, columns in COLUMNS.items():
        rows = [result for result in results if set(columns) & set(result.figures)]
        if not rows:
            continue
        cells = [[_words(row.name), *(_cell(row.figures.get(column)) for column in columns)] for row in rows]
        header = ["recipe", *map(_words, columns)]
        if not found:
            header += ["setting", "kept"]
            cells = [[*line, row.setting, "; ".join(row.kept)] for line, row in zip(cells, rows, strict=True)]
        found.append(
            Table(title=f"{title}: mean [± standard deviation over seeds × drawings]", header=header, cells=cells)
        )
    return found


def _words(name: str) -> str:
    return name.replace("_", " ")


def _cell(summary: Summary | None) -> str:
    if summary is None:
        return ""
    return f"{summary.mean:.3f}" + (f" [± {summary.spread:.3f}]" if summary.spread else "")


def print_tables(found: Sequence[Table], console: Console) -> None:
    """On a terminal as it likes them, elsewhere in Markdown."""
    for table in found:
        if console.is_terminal:
            show(table, console)
        else:
            console.file.write(markdown(table) + "\n")


def flat(results: Sequence[Result]) -> dict[str, float | str]:
    """`RECIPE.METRIC` → mean, `RECIPE.METRIC_spread` → standard deviation, `RECIPE.setting` where one was chosen,
    `RECIPE.validation_cell`, which chose it, and `RECIPE.kept`, what runs kept, seed by seed."""
    figures: dict[str, float | str] = {}
    for result in results:
        summaries = dict(result.figures)
        if result.validation:
            summaries["validation_cell"] = result.validation
        for name, summary in summaries.items():
            figures[f"{result.name}.{name}"] = summary.mean
            figures[f"{result.name}.{name}_spread"] = summary.spread
        if result.setting:
            figures[f"{result.name}.setting"] = result.setting
        if result.kept:
            figures[f"{result.name}.kept"] = "; ".join(result.kept)
    return figures

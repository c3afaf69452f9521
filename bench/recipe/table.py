"""Formats results as a table and as one flat object."""

from collections.abc import Sequence

from rich.console import Console

from bench.recipe.scores import Result, Summary
from c2c_jax.evaluation.results import Table, markdown, show

COLUMNS = (
    *("caption_recall@1", "source", "cell", "cell_seen", "cell_held_out", "recall@1", "recall@10"),
    *("gap_source", "gap_target"),
)


def table_of(results: Sequence[Result]) -> Table:
    """The main figures of every result, and the selection of each seed's run."""
    return Table(
        title="images to sounds: mean [± standard deviation over seeds × drawings]",
        header=["recipe", *map(_words, COLUMNS), "kept"],
        cells=[
            [_words(row.name), *(_cell(row.figures.get(column)) for column in COLUMNS), "; ".join(row.kept)]
            for row in results
        ],
    )


def _words(name: str) -> str:
    return name.replace("_", " ")


def _cell(summary: Summary | None) -> str:
    if summary is None:
        return ""
    return f"{summary.mean:.3f}" + (f" [± {summary.spread:.3f}]" if summary.spread else "")


def print_table(table: Table) -> None:
    """Prints a table: formatted on a terminal, as Markdown elsewhere."""
    console = Console()
    if console.is_terminal:
        show(table, console)
    else:
        console.file.write(markdown(table) + "\n")


def flat(results: Sequence[Result]) -> dict[str, float | str]:
    """`RECIPE.METRIC` → mean, `RECIPE.METRIC_spread` → standard deviation, `RECIPE.kept` → selections."""
    figures: dict[str, float | str] = {}
    for result in results:
        for name, summary in result.figures.items():
            figures[f"{result.name}.{name}"] = summary.mean
            figures[f"{result.name}.{name}_spread"] = summary.spread
        if result.kept:
            figures[f"{result.name}.kept"] = "; ".join(result.kept)
    return figures

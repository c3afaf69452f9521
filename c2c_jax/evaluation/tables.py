"""Tables of rows: for the terminal, in Markdown, and in LaTeX."""

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from c2c_jax.evaluation.rows import DIRECTIONS, SCORINGS, TASKS, Row, scoring_of
from c2c_jax.io.console import printable

UNBOUND = 10_000  # columns of a console in which any table fits
_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "→": r"$\to$", "–": "--", "<": r"\textless{}",
    ">": r"\textgreater{}",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A title, a header and cells, in words for people. The first column names the rows."""

    title: str
    header: list[str]
    cells: list[list[str]]


def tables(rows: Sequence[Row]) -> list[Table]:
    """One table for each task, direction and scoring, in order of appearance, with a row per method and a column per
    metric. The gaps have many metrics, so their table is transposed and has a column of n. In other tables the title
    states the n of most figures; a column or figure with another n states its own."""
    return [_table(title, group) for title, group in by_scoring(rows).items()]


def by_scoring(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each table by its title. Metrics lose their prefixes, since the title names the scoring. The scores
    of a random ranking are in the tables of all scorings."""
    groups: dict[tuple[str, str | None, str], list[Row]] = {}
    for row in rows:
        prefix, metric = scoring_of(row.metric)
        groups.setdefault((row.task, row.direction, prefix), []).append(dataclasses.replace(row, metric=metric))
    titled = {}
    for (task, direction, prefix), group in groups.items():
        if prefix:
            metrics, plain = {row.metric for row in group}, groups.get((task, direction, ""), [])
            group = group + [row for row in plain if row.method == "chance" and row.metric in metrics]
        words = TASKS[task], DIRECTIONS[direction] if direction else "", SCORINGS[prefix]
        titled[", ".join(filter(None, words))] = group
    return titled


def _table(title: str, rows: Sequence[Row]) -> Table:
    is_gaps = rows[0].task == "gaps"
    first, second = ("metric", "method") if is_gaps else ("method", "metric")
    names, columns = (dict.fromkeys(getattr(row, field) for row in rows) for field in (first, second))
    n = _usual_n(rows)
    n_of = {metric: _usual_n([row for row in rows if row.metric == metric]) for metric in {row.metric for row in rows}}
    figures = {(getattr(row, first), getattr(row, second)): _figure(row) + _n(row.n, n_of[row.metric]) for row in rows}
    cells = [[_words(name), *(figures.get((name, column), "") for column in columns)] for name in names]
    if is_gaps:
        cells = [[line[0], f"{n_of[name]:,}", *line[1:]] for name, line in zip(names, cells, strict=True)]
        return Table(title=title, header=[first, "n", *map(_words, columns)], cells=cells)
    references = dict.fromkeys(row.reference for row in rows if row.reference)
    title = ", ".join([title, f"n = {n:,}", *(f"distances to {name}" for name in references)])
    return Table(title=title, header=[first, *(_words(name) + _n(n_of[name], n) for name in columns)], cells=cells)


def _usual_n(rows: Sequence[Row]) -> int:
    """The n of most rows."""
    return Counter(row.n for row in rows).most_common(1)[0][0]


def _n(n: int, usual: int) -> str:
    return "" if n == usual else f" (n = {n:,})"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _figure(row: Row) -> str:
    """The value and its interval: `0.354 [0.330, 0.381]`."""
    digits = 1 if "rank" in row.metric or abs(row.value) >= 10 else 3
    if row.low is None or row.high is None:
        return f"{row.value:,.{digits}f}"
    return f"{row.value:,.{digits}f} [{row.low:,.{digits}f}, {row.high:,.{digits}f}]"


def show(table: Table, console: Console) -> None:
    """Prints a table; on a console that is too narrow for it, without the intervals."""
    shown = _rich(table.title, table.header, table.cells)
    if console.measure(shown, options=console.options.update(max_width=UNBOUND)).maximum > console.width:
        cells = [[re.sub(r" \[[^]]*\]", "", cell) for cell in line] for line in table.cells]
        shown = _rich(table.title + ", without intervals", table.header, cells)
    console.print(shown)


def _rich(title: str, header: list[str], cells: list[list[str]]) -> RichTable:
    shown = RichTable(title=printable(title), title_justify="left", box=box.SIMPLE_HEAD)
    for number, name in enumerate(header):
        shown.add_column(name, justify="right" if number else "left")
    for line in cells:
        shown.add_row(*map(printable, line))
    return shown


def markdown(table: Table) -> str:
    """A heading and a table in GitHub's Markdown."""
    header, *lines = [f"| {' | '.join(map(escaped, line))} |" for line in [table.header, *table.cells]]
    ruler = "|".join(["---", *["---:"] * (len(table.header) - 1)])
    return "\n".join([f"### {escaped(table.title)}", "", header, f"|{ruler}|", *lines, ""])


def escaped(text: str) -> str:
    """Text on one line, without markup of Markdown; brackets, which intervals have, are kept where no link follows."""
    return re.sub(r"(^\[|[|<>*`&#\\!]|\](?=\())", r"\\\1", printable(text))


def latex(table: Table) -> str:
    """A LaTeX tabular, one line for each row, with the title as a comment before it."""
    header, *lines = [f"{' & '.join(map(tex_escaped, line))} \\\\" for line in [table.header, *table.cells]]
    begin = f"% {printable(table.title)}", f"\\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}"
    return "\n".join([*begin, "\\hline", header, "\\hline", *lines, "\\hline", "\\end{tabular}", ""])


def tex_escaped(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return "".join(_TEX.get(letter, letter) for letter in printable(text))

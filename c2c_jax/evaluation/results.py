"""The results of an evaluation: rows of figures, the tables that show them, and the files that store them."""

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich.table
from rich import box
from rich.console import Console

from c2c_jax.errors import C2CError, ConfigError
from c2c_jax.io.atomic import atomic_write
from c2c_jax.io.console import printable
from c2c_jax.io.files import describe_path, sha256_of
from c2c_jax.io.json import read_json_as
from c2c_jax.io.output_paths import require_output_file, require_output_folder
from c2c_jax.io.vectors import unit_rows

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
CENTRED, MINUS_HUBNESS = "centred_", "nnn_"
# How queries and candidates are compared, by the prefix of a metric's name; "": plain cosine.
SCORINGS = {"": "", CENTRED: "centred cosine", MINUS_HUBNESS: "centred cosine minus hubness"}
DIRECTIONS = {"source_to_target": "source text → target text", "target_to_source": "target text → source text"}

FILES = ("metrics.json", "table.md", "table.tex", "vectors.npz")
MAX_VECTORS = 1000  # of each kind in vectors.npz
MAX_NAMED_FILES = 10  # of those left out, in table.md and on the terminal
MAX_JSON_BYTES = 2**24  # of metrics.json: 100 for each file that was left out
UNLIMITED_WIDTH = 10_000  # columns of a console in which any table fits
_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "→": r"$\to$", "–": "--", "<": r"\textless{}",
    ">": r"\textgreater{}",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure of one method in one task.

    task: a key of TASKS. n: number of queries, pairs or sounds. low, high: bounds of the 95 % interval; None if there
    is no interval. direction: a key of DIRECTIONS, for tasks with two directions. reference: the set of sounds that a
    distance is measured to.
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
        """Returns the fields as written to `metrics.json`, without a direction or reference that is None."""
        fields = dataclasses.asdict(self)
        return {name: fields[name] for name in fields if name not in ("direction", "reference") or fields[name]}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SkippedFile:
    """A file or row that was skipped or only partly used, and the reason."""

    file: str
    why: str

    def __str__(self) -> str:
        return f"{self.file}: {self.why}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Missing:
    """A method or metric that could not be computed, and the reason."""

    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """The results of an evaluation, as in `metrics.json`.

    bundle, spaces, settings: what was evaluated, and how. The bundle's `spec` and `metrics` identify it. left_out:
    files that were skipped or only partly used. missing: figures that could not be computed. warnings: reasons to doubt
    the figures, one line each. vectors: see `write`; they are not part of `metrics.json`. vectors_sha256: checksum of
    `vectors.npz`; None if it is not yet written, or written by an older version.
    """

    bundle: dict[str, Any]
    settings: dict[str, Any]
    rows: list[Row]
    left_out: list[SkippedFile]
    missing: list[Missing]
    spaces: dict[str, Any] = dataclasses.field(default_factory=dict)
    warnings: list[str] = dataclasses.field(default_factory=list)
    vectors: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    vectors_sha256: str | None = None


def read_results(folder: Path, error: type[C2CError], advice: str) -> Results:
    """Reads `metrics.json` of a folder, without the vectors. If it cannot be read, raises `error`, whose message ends
    with `advice`."""
    return read_json_as(Results, folder / "metrics.json", error, advice, MAX_JSON_BYTES)


def write(results: Results, out: Path) -> list[Path]:
    """Writes the four files into the folder `out`, each atomically, `metrics.json` last, and returns their paths.

    `vectors.npz` holds float16 unit vectors, at most MAX_VECTORS of each kind. Row i of `source_text`, `target_text`
    and `translated_text` is the same caption; row i of `source_image`, `translated_image` and `target_audio` is the
    same pair.
    """
    content = {
        "bundle": results.bundle,
        "spaces": results.spaces,
        "settings": {name: _plain(value) for name, value in results.settings.items()},
        "left_out": [{"file": printable(skipped.file), "why": printable(skipped.why)} for skipped in results.left_out],
        "missing": [dataclasses.asdict(missing) for missing in results.missing],
        "warnings": results.warnings,
        "rows": [row.to_json() for row in results.rows],
    }
    json.dumps(content, allow_nan=False)  # raises before a file is replaced
    with atomic_write(out / "vectors.npz") as temp:
        units: dict[str, Any] = {
            name: unit_rows(x_NE[:MAX_VECTORS]).astype(np.float16) for name, x_NE in results.vectors.items()
        }
        np.savez_compressed(temp, **units)
    content["vectors_sha256"] = sha256_of(out / "vectors.npz")
    all_tables = tables(results.rows)
    texts = {
        "table.md": "\n".join(map(markdown, all_tables)) + "".join(f"\n{escaped(line)}\n" for line in notes(results)),
        "table.tex": "\n".join(map(latex, all_tables)),
        "metrics.json": json.dumps(content, indent=2, allow_nan=False) + "\n",
    }
    for name, text in texts.items():
        with atomic_write(out / name) as temp:
            temp.write_text(text, encoding="utf-8", newline="\n")
    return [out / name for name in FILES]


def require_results_place(out: Path) -> None:
    """Raises ConfigError if the four files cannot be written into `out`, or would replace files that are not those of
    an earlier evaluation."""
    require_output_folder(out, "--out")
    for name in FILES:
        require_output_file(out / name, "the evaluation's file")
    if present := [name for name in FILES if describe_path(out / name) == "a file"]:
        read_results(out, ConfigError, f"{out / present[0]} would be replaced: pass another --out, or move it away")


def require_same_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raises ConfigError if a folder holds an evaluation with other settings."""
    if describe_path(folder / "metrics.json") != "a file":
        return
    stored = read_results(folder, ConfigError, "pass another --out").settings
    if different := [f"{name}: {value}" for name, value in stored.items() if _plain(settings.get(name)) != value]:
        raise ConfigError(
            f"{folder} holds an evaluation with other settings ({', '.join(different)}): pass another --out, or "
            f"--out {folder} to replace it"
        )


def _plain(value: Any) -> Any:
    return printable(value) if isinstance(value, str) else value


def notes(results: Results) -> list[str]:
    """Returns lines to print: warnings, missing figures, and files that were left out; ten of the files are named."""
    lines = [f"warning: {line}" for line in results.warnings] + [str(missing) for missing in results.missing]
    if results.left_out:
        lines.append(f"{len(results.left_out):,} files or rows skipped or only partly used:")
        lines += [str(skipped) for skipped in results.left_out[:MAX_NAMED_FILES]]
        if (more := len(results.left_out) - MAX_NAMED_FILES) > 0:
            lines.append(f"and {more:,} more, named in metrics.json")
    return lines


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table as text: title, header and cells. The first column names the rows."""

    title: str
    header: list[str]
    cells: list[list[str]]


def tables(rows: Sequence[Row]) -> list[Table]:
    """Returns one table for each task, direction and scoring, with one line per method and one column per metric.

    The table of the gaps is transposed, since it has many metrics, and has a column for n. The titles of the other
    tables state the most common n; columns and cells with another n state theirs.
    """
    return [_table(title, group) for title, group in by_scoring(rows).items()]


def by_scoring(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Groups rows into tables by title. Metrics lose their scoring prefix, which the title names. Figures of a random
    ranking do not depend on the scoring and appear in the tables of all scorings."""
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


def scoring_of(metric: str) -> tuple[str, str]:
    """Splits a metric's name into its scoring prefix, a key of SCORINGS, and the rest."""
    prefix = next((prefix for prefix in (CENTRED, MINUS_HUBNESS) if metric.startswith(prefix)), "")
    return prefix, metric.removeprefix(prefix)


def _table(title: str, rows: Sequence[Row]) -> Table:
    is_gaps = rows[0].task == "gaps"
    first, second = ("metric", "method") if is_gaps else ("method", "metric")
    names, columns = (dict.fromkeys(getattr(row, field) for row in rows) for field in (first, second))
    n = _usual_n(rows)
    n_of = {metric: _usual_n([row for row in rows if row.metric == metric]) for metric in {row.metric for row in rows}}
    texts = {(getattr(row, first), getattr(row, second)): _value(row) + _n(row.n, n_of[row.metric]) for row in rows}
    cells = [[_words(name), *(texts.get((name, column), "") for column in columns)] for name in names]
    if is_gaps:
        cells = [[line[0], f"{n_of[name]:,}", *line[1:]] for name, line in zip(names, cells, strict=True)]
        return Table(title=title, header=[first, "n", *map(_words, columns)], cells=cells)
    references = dict.fromkeys(row.reference for row in rows if row.reference)
    title = ", ".join([title, f"n = {n:,}", *(f"distances to {name}" for name in references)])
    return Table(title=title, header=[first, *(_words(name) + _n(n_of[name], n) for name in columns)], cells=cells)


def _usual_n(rows: Sequence[Row]) -> int:
    """The most common n."""
    return Counter(row.n for row in rows).most_common(1)[0][0]


def _n(n: int, usual: int) -> str:
    return "" if n == usual else f" (n = {n:,})"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _value(row: Row) -> str:
    """Formats the value and its interval: `0.354 [0.330, 0.381]`."""
    digits = 1 if "rank" in row.metric or abs(row.value) >= 10 else 3
    if row.low is None or row.high is None:
        return f"{row.value:,.{digits}f}"
    return f"{row.value:,.{digits}f} [{row.low:,.{digits}f}, {row.high:,.{digits}f}]"


def show(table: Table, console: Console) -> None:
    """Prints a table. If the console is too narrow for it, the intervals are left out."""
    shown = _rich(table.title, table.header, table.cells)
    if console.measure(shown, options=console.options.update(max_width=UNLIMITED_WIDTH)).maximum > console.width:
        cells = [[re.sub(r" \[[^]]*\]", "", cell) for cell in line] for line in table.cells]
        shown = _rich(table.title + ", without intervals", table.header, cells)
    console.print(shown)


def _rich(title: str, header: list[str], cells: list[list[str]]) -> rich.table.Table:
    shown = rich.table.Table(title=printable(title), title_justify="left", box=box.SIMPLE_HEAD)
    for number, name in enumerate(header):
        shown.add_column(name, justify="right" if number else "left")
    for line in cells:
        shown.add_row(*map(printable, line))
    return shown


def markdown(table: Table) -> str:
    """Formats a table, below a heading, in GitHub's Markdown."""
    header, *lines = [f"| {' | '.join(map(escaped, line))} |" for line in [table.header, *table.cells]]
    ruler = "|".join(["---", *["---:"] * (len(table.header) - 1)])
    return "\n".join([f"### {escaped(table.title)}", "", header, f"|{ruler}|", *lines, ""])


def escaped(text: str) -> str:
    """Escapes Markdown in a text and puts it on one line. Brackets, which intervals have, are escaped only where they
    would make a link."""
    return re.sub(r"(^\[|[|<>*`&#\\!]|\](?=\())", r"\\\1", printable(text))


def latex(table: Table) -> str:
    """Formats a table as a LaTeX tabular, with the title in a comment above it."""
    header, *lines = [f"{' & '.join(map(tex_escaped, line))} \\\\" for line in [table.header, *table.cells]]
    begin = f"% {printable(table.title)}", f"\\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}"
    return "\n".join([*begin, "\\hline", header, "\\hline", *lines, "\\hline", "\\end{tabular}", ""])


def tex_escaped(text: str) -> str:
    """Escapes the special characters of LaTeX in a text."""
    return "".join(_TEX.get(letter, letter) for letter in printable(text))

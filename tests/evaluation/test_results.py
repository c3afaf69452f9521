"""Rows as tables and files: the format of `metrics.json` and `vectors.npz`, escaping, number formats."""

import json
import shutil

import numpy as np
import pytest
from rich.console import Console

from c2c_jax.errors import ConfigError, ReportError
from c2c_jax.evaluation.results import (
    Missing,
    Results,
    Row,
    SkippedFile,
    latex,
    markdown,
    notes,
    read_results,
    require_results_place,
    require_same_settings,
    show,
    tables,
    tex_escaped,
    write,
)
from c2c_jax.io.files import sha256_of
from tests.fixtures.kills import killed_at_every_step

ROWS = [
    Row(task="captions", method="translator", metric="recall@1", value=0.35449, low=0.325, high=0.3851, n=1000,
        direction="source_to_target"),
    Row(task="captions", method="translator", metric="median_rank", value=12.0, n=1000, direction="source_to_target"),
    Row(task="captions", method="chance", metric="recall@1", value=0.001, n=1000, direction="source_to_target"),
    Row(task="captions", method="translator", metric="recall@1", value=0.5, n=1000, direction="target_to_source"),
    Row(task="gaps", method="spaces", metric="length(source_text, source_image)", value=0.83, n=400),
    Row(task="gaps", method="translator", metric="uniformity(translated_text)", value=-2.5, n=900),
    Row(task="generated", method="control", metric="fad_clap", value=1234.56, n=40, reference="the sounds of real_50%"),
]  # fmt: skip


def results(**fields) -> Results:
    given = dict(
        bundle={"name": "run"}, spaces={}, settings={"seed": 0}, rows=ROWS, missing=[], left_out=[],
        vectors={"source_text": 3 * np.ones((1200, 4), np.float32), "target_audio": np.eye(3, dtype=np.float32)},
    )  # fmt: skip
    return Results(**{**given, **fields})


def test_format_of_metrics_json(tmp_path):
    left_out = [SkippedFile(file="a.wav", why="it is silent")]
    missing = [Missing(what="oracle", why="3 different pairs")]
    warnings = ["source text: collapsed"]
    paths = write(results(left_out=left_out, missing=missing, warnings=warnings), tmp_path / "out")
    assert [path.name for path in paths] == ["metrics.json", "table.md", "table.tex", "vectors.npz"]
    content = json.loads(paths[0].read_text())
    assert list(content) == [
        "bundle", "spaces", "settings", "left_out", "missing", "warnings", "rows", "vectors_sha256",
    ]  # fmt: skip
    assert content["warnings"] == warnings
    assert content["left_out"] == [{"file": "a.wav", "why": "it is silent"}]
    assert content["missing"] == [{"what": "oracle", "why": "3 different pairs"}]
    assert content["rows"][0] == {
        "task": "captions", "method": "translator", "metric": "recall@1", "value": 0.35449, "n": 1000, "low": 0.325,
        "high": 0.3851, "direction": "source_to_target",
    }  # fmt: skip
    assert content["rows"][4] == {
        "task": "gaps", "method": "spaces", "metric": "length(source_text, source_image)", "value": 0.83, "n": 400,
        "low": None, "high": None,
    }  # fmt: skip
    assert content["rows"][6]["reference"] == "the sounds of real_50%"
    assert [Row(**row) for row in content["rows"]] == ROWS


def test_a_kill_between_the_files_is_detected(tmp_path):
    """metrics.json is written last and has the checksum of its vectors."""
    out, digests = tmp_path / "out", set()

    def restore():
        shutil.rmtree(out, ignore_errors=True)
        write(results(bundle=bundle), out)

    bundle = {"spec": {}, "metrics": {}}
    other = results(bundle=bundle, vectors={"source_text": -np.eye(4, dtype=np.float32)}, settings={"seed": 1})
    for _ in killed_at_every_step(lambda: write(other, out), restore):
        found = read_results(out, ReportError, "")
        is_whole = found.vectors_sha256 == sha256_of(out / "vectors.npz")
        digests.add((found.settings["seed"], is_whole))
    assert digests == {(0, True), (0, False), (1, True)}


def test_vectors_are_unit_float16_and_at_most_a_thousand(tmp_path):
    write(results(), tmp_path)
    with np.load(tmp_path / "vectors.npz") as file:
        assert set(file.files) == {"source_text", "target_audio"}
        assert file["source_text"].dtype == np.float16 and file["source_text"].shape == (1000, 4)
        np.testing.assert_allclose(file["source_text"], 0.5)
        np.testing.assert_array_equal(file["target_audio"], np.eye(3))


def test_a_figure_that_is_not_finite_is_not_written(tmp_path):
    rows = [Row(task="captions", method="translator", metric="recall@1", value=float("nan"), n=1)]
    with pytest.raises(ValueError, match="JSON"):
        write(results(rows=rows), tmp_path)
    assert not (tmp_path / "metrics.json").exists()


def test_tables_have_a_line_per_method_and_gaps_a_line_per_metric():
    found = tables(ROWS)
    assert [table.title for table in found] == [
        "captions, source text → target text, n = 1,000",
        "captions, target text → source text, n = 1,000",
        "the gaps",
        "generated sound, n = 40, distances to the sounds of real_50%",
    ]
    assert found[0].header == ["method", "recall@1", "median rank"]
    assert found[0].cells == [["translator", "0.354 [0.325, 0.385]", "12.0"], ["chance", "0.001", ""]]
    assert found[2].header == ["metric", "n", "spaces", "translator"]
    assert found[2].cells == [
        ["length(source text, source image)", "400", "0.830", ""],
        ["uniformity(translated text)", "900", "", "-2.500"],
    ]
    assert found[3].cells == [["control", "1,234.6"]]


def test_columns_and_cells_with_another_n_state_it():
    """A column states it in its header, a single figure next to it, also on narrow terminals."""
    of = {"translator": (6, 6, 10), "caption": (2, 2, 10), "chance": (6, 6, 10)}
    rows = [
        Row(task="images_to_sounds", method=method, metric=metric, value=0.5, low=0.25, high=0.75, n=n)
        for method, ns in of.items()
        for metric, n in zip(("recall@1", "mrr", "map"), ns, strict=True)
    ]
    (table,) = tables(rows)
    assert table.title == "images → sounds, n = 6"
    assert table.header == ["method", "recall@1", "mrr", "map (n = 10)"]
    figure = "0.500 [0.250, 0.750]"
    assert table.cells[0] == ["translator", figure, figure, figure]
    assert table.cells[1] == ["caption", f"{figure} (n = 2)", f"{figure} (n = 2)", figure]
    console = Console(width=60)
    with console.capture() as captured:
        show(table, console)
    assert "0.500 (n = 2)" in captured.get() and "0.250" not in captured.get()


def test_markdown():
    lines = markdown(tables(ROWS)[0]).splitlines()
    assert lines[0] == "### captions, source text → target text, n = 1,000"
    assert lines[2:] == [
        "| method | recall@1 | median rank |",
        "|---|---:|---:|",
        "| translator | 0.354 [0.325, 0.385] | 12.0 |",
        "| chance | 0.001 |  |",
    ]
    odd = Row(task="captions", method="a|b<i>*c*", metric="recall@1", value=1.0, n=1)
    assert markdown(tables([odd])[0]).splitlines()[4] == r"| a\|b\<i\>\*c\* | 1.000 |"


def test_latex():
    text = latex(tables(ROWS)[3])
    assert text.splitlines() == [
        "% generated sound, n = 40, distances to the sounds of real_50%",
        r"\begin{tabular}{lr}",
        r"\hline",
        r"method & fad clap \\",
        r"\hline",
        r"control & 1,234.6 \\",
        r"\hline",
        r"\end{tabular}",
    ]
    assert tex_escaped(r"a_b & 5% of $x^2 #1 {~\}") == (
        r"a\_b \& 5\% of \$x\textasciicircum{}2 \#1 \{\textasciitilde{}\textbackslash{}\}"
    )
    assert tex_escaped("a → b") == r"a $\to$ b"


def test_each_scoring_has_a_table_with_chance():
    """Chance is the same for all scorings. Metrics that a scoring does not have are not in its table."""

    def row(method, metric, value):
        return Row(task="images_to_sounds", method=method, metric=metric, value=value, n=9)

    rows = [
        row("translator", "mrr", 0.1), row("translator", "centred_mrr", 0.2), row("translator", "nnn_mrr", 0.3),
        row("sound", "centred_map", 0.4), row("chance", "mrr", 0.05), row("chance", "map", 0.06),
        row("chance", "class_accuracy", 0.5),
    ]  # fmt: skip
    plain, centred, nnn = tables(rows)
    assert [table.title for table in (plain, centred, nnn)] == [
        "images → sounds, n = 9",
        "images → sounds, centred cosine, n = 9",
        "images → sounds, centred cosine minus hubness, n = 9",
    ]
    assert plain.header == ["method", "mrr", "map", "class accuracy"]
    assert plain.cells == [["translator", "0.100", "", ""], ["chance", "0.050", "0.060", "0.500"]]
    assert centred.header == ["method", "mrr", "map"]
    assert centred.cells == [["translator", "0.200", ""], ["sound", "", "0.400"], ["chance", "0.050", "0.060"]]
    assert nnn.cells == [["translator", "0.300"], ["chance", "0.050"]]


@pytest.mark.parametrize(("width", "has_intervals"), [(120, True), (45, False)])
def test_terminal(width, has_intervals):
    console = Console(width=width)
    with console.capture() as captured:
        show(tables(ROWS)[0], console)
    words = captured.get().split()
    assert "translator" in words and "0.354" in words
    assert ("[0.325," in words) == has_intervals
    assert ("intervals" in words) != has_intervals


def test_notes(tmp_path):
    left_out = [SkippedFile(file=f"{number}.wav", why="it is silent") for number in range(12)]
    missing = [Missing(what="oracle", why="3 different pairs")]
    lines = notes(results(missing=missing, warnings=["collapsed"]))
    assert lines == ["warning: collapsed", "oracle: 3 different pairs"]
    given = results(left_out=left_out, missing=missing)
    lines = notes(given)
    assert lines[:3] == [
        "oracle: 3 different pairs",
        "12 files or rows skipped or only partly used:",
        "0.wav: it is silent",
    ]
    assert lines[-1] == "and 2 more, named in metrics.json" and len(lines) == 13
    write(given, tmp_path)
    assert "oracle: 3 different pairs" in (tmp_path / "table.md").read_text()
    assert notes(results()) == []


def test_places_of_results(tmp_path):
    """An earlier evaluation may be replaced; other files with these names are kept."""
    require_results_place(tmp_path / "new")
    write(results(bundle={"spec": {}, "metrics": {}}), tmp_path / "earlier")
    require_results_place(tmp_path / "earlier")
    for name, content in (("table.md", "mine"), ("metrics.json", "{}"), ("vectors.npz", "")):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text(content)
        with pytest.raises(ConfigError, match=f"{name}.*pass another --out"):
            require_results_place(folder)
    (tmp_path / "odd" / "table.tex").mkdir(parents=True)
    with pytest.raises(ConfigError, match="table.tex is a folder"):
        require_results_place(tmp_path / "odd")


def test_names_that_are_not_utf8_or_hold_markup(tmp_path):
    hurt = "caf\udce9 [a](javascript:b)\n<b>|`.wav"
    left_out = [SkippedFile(file=hurt, why="it is silent")]
    given = results(bundle={"spec": {}, "metrics": {}}, left_out=left_out, settings={"pairs": hurt})
    write(given, tmp_path)
    read = read_results(tmp_path, ReportError, "")
    assert read.left_out[0].file == "caf\\xe9 [a](javascript:b)\\n<b>|`.wav" == read.settings["pairs"]
    (line,) = [line for line in (tmp_path / "table.md").read_text().splitlines() if line.startswith("caf")]
    assert line == r"caf\\xe9 [a\](javascript:b)\\n\<b\>\|\`.wav: it is silent"
    require_same_settings(tmp_path, {"pairs": hurt})
    with pytest.raises(ConfigError, match="other settings"):
        require_same_settings(tmp_path, {"pairs": "x"})

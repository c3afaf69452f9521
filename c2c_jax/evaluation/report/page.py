"""Writes the page of a translator: everything it shows is drawn, put into a template, and written as one HTML file."""

import base64
import dataclasses
import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jinja2
import numpy as np
from flax import nnx
from markupsafe import Markup

from c2c_jax import __version__
from c2c_jax.config import Config, flat_fields
from c2c_jax.errors import C2CError
from c2c_jax.evaluation.report import plots
from c2c_jax.evaluation.report.gallery import build_gallery
from c2c_jax.evaluation.report.inputs import Run, read_evaluation, read_run
from c2c_jax.evaluation.results import Results
from c2c_jax.evaluation.rows import Row
from c2c_jax.evaluation.tables import by_scoring, tables
from c2c_jax.io.atomic import atomic_write
from c2c_jax.io.console import printable
from c2c_jax.publishing.card import SCORE_MEANINGS, held_out_count, licence, training_summary, validation_scores
from c2c_jax.translator.resolve import is_local

HERE = Path(__file__).parent
MAX_ROWS = 24  # of the gallery


def write_report(
    run: Path, out: Path, *, evaluation: Path | None = None, sounds: Path | None = None, max_rows: int = MAX_ROWS
) -> list[C2CError]:
    """Writes the page of a run to `out`, atomically; returns what could not be shown, each with its reason.

    run: see `bundle_folder`. evaluation: what `c2c evaluate --out` wrote. sounds: an output folder of infer.py, of
    which the first `max_rows` records are shown. A section without its input names the command that makes it. The page
    needs no other file. Raises BundleError, CheckpointError or ReportError for an input that is missing or damaged.
    """
    whole = read_run(run)
    results = read_evaluation(evaluation, whole.bundle) if evaluation else None
    gallery, errors = build_gallery(sounds, whole, max_rows) if sounds else (None, [])
    page = _render(whole, results, gallery, run)
    with atomic_write(out) as temp:
        temp.write_text(page, encoding="utf-8", errors="backslashreplace")
    return errors


def _render(run: Run, results: Results | None, gallery: dict[str, Any] | None, path: Path) -> str:
    """The HTML of a page. path: of the run, as commands on the page name it."""
    named = Path(path.name) if path.is_absolute() else path  # no path of this machine
    bundle = named / "bundle" if is_local(path) and path != run.bundle_folder else named
    script = (HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    rows, settings = (results.rows, results.settings) if results else ([], {})
    return environment.get_template("page.html.j2").render(
        run=run,
        path=shlex.quote(printable(named)),
        bundle=shlex.quote(printable(bundle)),
        scores=validation_scores(run.bundle),
        held_out=held_out_count(run.bundle),
        trained_on=training_summary(run.bundle),
        parameters=sum(leaf.size for leaf in jax.tree.leaves(nnx.state(run.bundle.translator, nnx.Param))),
        spaces=[
            ("CLIP", run.bundle.source, licence(run.bundle.source.name)[1]),
            ("CLAP", run.bundle.target, licence(run.bundle.target.name)[1]),
        ],
        meanings=SCORE_MEANINGS,
        gallery=gallery,
        evaluation=results,
        figures=_figures(results.vectors) if results else {},
        bars=_bars(rows),
        tables=tables(rows),
        judging=[(name.replace("_", " "), value) for name, value in settings.items() if value is not None],
        curves=_curves(run),
        settings=_settings(run.config),
        kinds=plots.KINDS,
        version=__version__,
        style=Markup(plots.STYLE),
        script=Markup(script),
        policy=f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
    )


def _figures(vectors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Plots of the two spaces by their names, as far as there are vectors for them."""
    figures: dict[str, Any] = {}
    for name, kinds in (("before", plots.BEFORE), ("after", plots.AFTER)):
        there = [kind for kind in kinds if kind in vectors]
        if len(there) > 1:
            figures[name] = Markup(plots.plane(name, vectors, there)), there
    for name, query, candidates in (
        ("captions", "translated_text", "target_text"),
        ("pictures", "translated_image", "target_audio"),
    ):
        if query in vectors and candidates in vectors:
            figures[name] = Markup(plots.similarity(name, vectors[query], vectors[candidates]))
    return figures


def _bars(rows: Sequence[Row]) -> list[tuple[str, Markup, str]]:
    """For each task, direction and scoring that has recalls: its title, their plot, and the number of queries, by
    method if methods differ in it."""
    bars: list[tuple[str, Markup, str]] = []
    for title, group in by_scoring(rows).items():
        recalls = [row for row in group if row.metric.startswith("recall@")]
        if not recalls:
            continue
        methods: dict[int, dict[str, None]] = {}
        for row in recalls:
            methods.setdefault(row.n, {})[row.method.replace("_", " ")] = None
        counts = [f"{n:,} of {', '.join(names)}" for n, names in methods.items()]
        queries = f"Queries: {'; '.join(counts)}." if len(counts) > 1 else f"{recalls[0].n:,} queries."
        bars.append((title, Markup(plots.recall(f"recall{len(bars)}", recalls)), queries))
    return bars


def _curves(run: Run) -> list[Markup]:
    phases = {entry["phase"] for entry in run.history}
    curves = [("train", "loss", plots.loss_curve), ("validation", "validation", plots.score_curve)]
    return [Markup(draw(name, run.history)) for phase, name, draw in curves if phase in phases]


def _settings(config: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """Every setting with its value, and whether it differs from the default."""
    defaults = dict(flat_fields(dataclasses.asdict(Config())))
    return [(key, json.dumps(v, ensure_ascii=False), defaults.get(key, v) != v) for key, v in flat_fields(config)]


def _number(value: float) -> str:
    """A number with three decimals, one if it is large, none if it is whole; with a typographic minus."""
    if abs(value) >= 2 and float(value).is_integer():
        return f"{value:,.0f}".replace("-", "−")
    return f"{value:,.{1 if abs(value) >= 100 else 3}f}".replace("-", "−")

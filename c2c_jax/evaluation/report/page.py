"""Writes the report page of a translator as one HTML file that needs no other files."""

import base64
import contextlib
import dataclasses
import hashlib
import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jinja2
import msgspec
import numpy as np
from flax import nnx
from markupsafe import Markup

from c2c_jax.config import Config, flat_fields
from c2c_jax.errors import C2CError, ConfigError, ReportError, one_line
from c2c_jax.evaluation.report import plots
from c2c_jax.evaluation.report.gallery import build_gallery
from c2c_jax.evaluation.results import DIRECTIONS, TASKS, Results, Row, by_scoring, read_results, scoring_of, tables
from c2c_jax.io.arrays import read_npz
from c2c_jax.io.atomic import atomic_write
from c2c_jax.io.console import printable
from c2c_jax.io.files import path_exists, sha256_of
from c2c_jax.io.json import differing_fields, read_json, report_missing_fields
from c2c_jax.io.resolve import bundle_folder, is_local, run_name
from c2c_jax.old_names import upgraded
from c2c_jax.publishing.card import SCORE_MEANINGS, held_out_count, licence, training_summary, validation_scores
from c2c_jax.publishing.names import without_local_paths
from c2c_jax.training import log
from c2c_jax.training.objectives import build_objective
from c2c_jax.translator.bundle import Bundle, load_bundle
from c2c_jax.translator.kinds import kind_named
from c2c_jax.version import __version__

HERE = Path(__file__).parent
MAX_VECTORS_BYTES = 2**28  # of `vectors.npz`, which may contain:
VECTOR_NAMES = ("source_text", "source_image", "target_text", "target_audio", "translated_text", "translated_image")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A run's work directory, or a bundle, without paths of this machine.

    config: all settings of the run; {} for an imported bundle. history: the entries of `metrics.jsonl`; [] for a bundle
    without a run.
    """

    name: str
    bundle_folder: Path
    bundle: Bundle
    config: dict[str, Any]
    history: list[dict[str, Any]]


def write_report(
    run: Path, out: Path, *, evaluation: Path | None = None, generated: Path | None = None, max_rows: int = 24
) -> list[C2CError]:
    """Writes the page of a run to `out`, atomically. Returns an error for each thing that could not be shown.

    run: see `bundle_folder`. evaluation: an output folder of `c2c evaluate`. generated: an output folder of infer.py,
    of which the first `max_rows` records are shown. A section without input names the command that creates it. Raises
    BundleError, CheckpointError or ReportError for an input that is missing or damaged.
    """
    content = read_run(run)
    results = read_evaluation(evaluation, content.bundle) if evaluation else None
    gallery: dict[str, Any] | None = None
    errors: list[C2CError] = []
    if generated:
        translator = f"{content.name}, {content.bundle.spec.kind}"
        weights_sha256 = sha256_of(content.bundle_folder / "model.safetensors")
        gallery, errors = build_gallery(generated, translator, weights_sha256, max_rows)
    page = _html(content, results, gallery, run)
    with atomic_write(out) as temp:
        temp.write_text(page, encoding="utf-8", newline="\n", errors="backslashreplace")
    return errors


def _html(run: Run, results: Results | None, gallery: dict[str, Any] | None, path: Path) -> str:
    """Renders the page. path: the run, as the commands on the page name it."""
    public = Path(path.name) if path.is_absolute() else path  # without folders of this machine
    bundle = public / "bundle" if is_local(path) and path != run.bundle_folder else public
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
        path=shlex.quote(printable(public)),
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
        plots=_space_plots(results.vectors) if results else {},
        bars=_bars(rows),
        tables=tables(rows),
        evaluation_settings=[(name.replace("_", " "), value) for name, value in settings.items() if value is not None],
        curves=_curves(run),
        settings=_settings(run.config),
        kinds=plots.KINDS,
        version=__version__,
        style=Markup(plots.STYLE),
        script=Markup(script),
        policy=f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
    )


def _space_plots(vectors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Plots of the two spaces by name, for the vectors that are available."""
    space_plots: dict[str, Any] = {}
    for name, kinds in (("before", plots.BEFORE), ("after", plots.AFTER)):
        present = [kind for kind in kinds if kind in vectors]
        if len(present) > 1:
            space_plots[name] = Markup(plots.plane(name, vectors, present)), present
    for name, query, candidates in (
        ("captions", "translated_text", "target_text"),
        ("images", "translated_image", "target_audio"),
    ):
        if query in vectors and candidates in vectors:
            space_plots[name] = Markup(plots.similarity(name, vectors[query], vectors[candidates]))
    return space_plots


def _bars(rows: Sequence[Row]) -> list[tuple[str, Markup, str]]:
    """Recall plots: the title, the plot and the number of queries of each task, direction and scoring with recalls. If
    methods have different numbers of queries, each is stated."""
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
    with contextlib.suppress(ConfigError, TypeError, KeyError):  # a damaged config, or a kind of the user's script
        of_kind = dataclasses.asdict(kind_named(config["translator"]["kind"]).Settings())
        of_objective = build_objective(config["objective"]["kind"]).settings
        defaults |= dict(flat_fields({"translator": {"settings": of_kind}, "objective": {"settings": of_objective}}))
    return [(key, json.dumps(v, ensure_ascii=False), defaults.get(key, v) != v) for key, v in flat_fields(config)]


def _number(value: float) -> str:
    """Formats a number with three decimals, one if it is large, none if it is whole; with a typographic minus."""
    if abs(value) >= 2 and float(value).is_integer():
        return f"{value:,.0f}".replace("-", "−")
    return f"{value:,.{1 if abs(value) >= 100 else 3}f}".replace("-", "−")


def read_run(run: Path) -> Run:
    """Reads a run or bundle; see `bundle_folder`. Raises BundleError or CheckpointError if the bundle is missing or
    damaged, ReportError if the run's `config.json` is."""
    folder = bundle_folder(run)
    bundle = load_bundle(folder)
    config, history = bundle.recipe, []
    if is_local(run) and folder != run:
        advice = "train again into another --workdir, or pass the bundle folder alone"
        config = upgraded(read_json(run / "config.json", ReportError, advice))
        _require_config(config, run / "config.json", advice)
        report_missing_fields(Config, config, run / "config.json")
        if path_exists(run / "metrics.jsonl"):
            history = log.read_entries(run / "metrics.jsonl")
    public = without_local_paths(dataclasses.replace(bundle, recipe=config))
    name = printable(run_name(run))
    return Run(name=name, bundle_folder=folder, bundle=public, config=public.recipe, history=history)


def _require_config(config: dict[str, Any], path: Path, advice: str) -> None:
    """Raises ReportError unless `config` is a run's config, without unknown fields."""
    unknown = [name for name, is_stated in differing_fields(Config, config) if is_stated]
    try:
        if unknown:
            raise ValueError(f"unknown field {', '.join(unknown)[:200]}")
        msgspec.convert(config, Config)
    except (ValueError, msgspec.ValidationError) as cause:
        raise ReportError(f"{path} cannot be read as JSON ({one_line(cause)}); {advice}") from None


def read_evaluation(folder: Path, bundle: Bundle) -> Results:
    """Reads the results of `c2c evaluate` with their vectors, whose names are in VECTOR_NAMES.

    Raises ReportError if a file is missing or damaged, or if the evaluated translator is another one, judged by its
    spec and validation scores.
    """
    advice = "pass the --out folder of c2c evaluate, or evaluate again"
    results, path = read_results(folder, ReportError, advice), folder / "vectors.npz"
    evaluated = results.bundle.get("spec")
    spec = evaluated if isinstance(evaluated, dict) else {}
    is_same_spec = all(spec.get(name) == value for name, value in bundle.spec.to_json().items())
    if not is_same_spec or results.bundle.get("metrics") != bundle.metrics:
        raise ReportError(f"{folder} is the evaluation of another translator, or of another step of it: evaluate again")
    if invalid := next((row for row in results.rows if not _is_valid(row)), None):
        raise ReportError(f"{folder / 'metrics.json'}: {invalid} is not a row of c2c evaluate: {advice}")
    vectors = read_npz(path, VECTOR_NAMES, MAX_VECTORS_BYTES, ReportError, advice)
    for name, x_NE in vectors.items():
        if x_NE.ndim != 2 or x_NE.dtype.kind != "f" or not np.isfinite(x_NE).all():
            raise ReportError(
                f"{path}: {name} is {x_NE.dtype} of shape {x_NE.shape}; expected finite vectors [N, E]: {advice}"
            )
    if results.vectors_sha256 not in (None, sha256_of(path)):
        raise ReportError(f"{folder} holds vectors.npz of one evaluation and metrics.json of another: evaluate again")
    return dataclasses.replace(results, vectors={name: x_NE.astype(np.float32) for name, x_NE in vectors.items()})


def _is_valid(row: Row) -> bool:
    """Whether a row can be shown: its task and direction are known, and its numbers finite."""
    numbers = (row.value, row.n, *(bound for bound in (row.low, row.high) if bound is not None))
    is_known = row.task in TASKS and row.direction in (None, *DIRECTIONS)
    _, metric = scoring_of(row.metric)
    is_valid_recall = not metric.startswith("recall@") or re.fullmatch("recall@[0-9]{1,9}", metric)
    return bool(is_known and is_valid_recall) and all(math.isfinite(x) for x in numbers)

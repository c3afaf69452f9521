"""Reads and checks what a page shows: a run or a bundle, and an evaluation of it."""

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from c2c_jax.config import Config
from c2c_jax.errors import ReportError, one_line
from c2c_jax.evaluation.results import Results, read_results
from c2c_jax.evaluation.rows import DIRECTIONS, TASKS, Row, scoring_of
from c2c_jax.io.arrays import read_npz
from c2c_jax.io.console import printable
from c2c_jax.io.files import path_exists, sha256_of
from c2c_jax.io.json import differing_fields, read_json, report_missing_fields
from c2c_jax.old_names import upgraded
from c2c_jax.publishing.names import without_local_paths
from c2c_jax.training import log
from c2c_jax.translator.bundle import Bundle, load_bundle
from c2c_jax.translator.resolve import bundle_folder, is_local, run_name

MAX_VECTORS = 2**28  # bytes of `vectors.npz`, which may hold:
VECTORS = ("source_text", "source_image", "target_text", "target_audio", "translated_text", "translated_image")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A work directory, or a bundle alone, without the paths of this machine.

    config: every setting of the run; {} for an imported bundle. history: the entries of `metrics.jsonl`; [] for a
    bundle alone.
    """

    name: str
    bundle_folder: Path
    bundle: Bundle
    config: dict[str, Any]
    history: list[dict[str, Any]]


def read_run(run: Path) -> Run:
    """Reads what a RUN argument names, see `bundle_folder`. Raises BundleError or CheckpointError if there is no whole
    bundle, ReportError for a damaged `config.json` of the run."""
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
    """Raises ReportError unless `config` is that of a run, with no other fields."""
    unknown = [name for name, is_stated in differing_fields(Config, config) if is_stated]
    try:
        if unknown:
            raise ValueError(f"unknown field {', '.join(unknown)[:200]}")
        msgspec.convert(config, Config)
    except ValueError as cause:
        raise ReportError(f"{path} cannot be read as JSON ({one_line(cause)}); {advice}") from None


def read_evaluation(folder: Path, bundle: Bundle) -> Results:
    """Reads what `c2c evaluate` wrote, with its vectors by name, some of VECTORS. Raises ReportError if a file is
    missing or damaged, or if another translator, by its sizes and validation, was evaluated."""
    advice = "pass the --out folder of c2c evaluate, or evaluate again"
    results, path = read_results(folder, ReportError, advice), folder / "vectors.npz"
    if [results.bundle.get(name) for name in ("spec", "metrics")] != [dataclasses.asdict(bundle.spec), bundle.metrics]:
        raise ReportError(f"{folder} is the evaluation of another translator, or of another step of it: evaluate again")
    if wrong := next((row for row in results.rows if not _is_valid(row)), None):
        raise ReportError(f"{folder / 'metrics.json'}: {wrong} is not a row of c2c evaluate: {advice}")
    vectors = read_npz(path, VECTORS, MAX_VECTORS, ReportError, advice)
    for name, x_NE in vectors.items():
        if x_NE.ndim != 2 or x_NE.dtype.kind != "f" or not np.isfinite(x_NE).all():
            found = f"{name} is {x_NE.dtype} of shape {x_NE.shape}"
            raise ReportError(f"{path}: {found}; expected finite vectors [N, E]: {advice}")
    if results.vectors_sha256 not in (None, sha256_of(path)):
        raise ReportError(f"{folder} holds vectors.npz of one evaluation and metrics.json of another: evaluate again")
    return dataclasses.replace(results, vectors={name: x_NE.astype(np.float32) for name, x_NE in vectors.items()})


def _is_valid(row: Row) -> bool:
    """Whether a row can be shown: of a known task and direction, with finite numbers."""
    numbers = (row.value, row.n, *(bound for bound in (row.low, row.high) if bound is not None))
    is_named = row.task in TASKS and row.direction in (None, *DIRECTIONS)
    _, figure = scoring_of(row.metric)
    is_ranked = not figure.startswith("recall@") or re.fullmatch("recall@[0-9]{1,9}", figure)
    return bool(is_named and is_ranked) and all(math.isfinite(x) for x in numbers)

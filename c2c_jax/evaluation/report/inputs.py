"""What a page is made of, read and checked: a run or a bundle, an evaluation, and the records of sounds."""

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Float

from c2c_jax.config import Config
from c2c_jax.errors import ReportError, one_line
from c2c_jax.evaluation.results import read_results
from c2c_jax.evaluation.rows import DIRECTIONS, TASKS, LeftOut, Missing, Row, scoring_of
from c2c_jax.io.arrays import read_npz
from c2c_jax.io.console import printable
from c2c_jax.io.files import is_there, sha256_of
from c2c_jax.io.json import differing, read_json, report_missing_fields
from c2c_jax.old_names import upgraded
from c2c_jax.publishing.names import without_places
from c2c_jax.training import log
from c2c_jax.translator.bundle import Bundle, load_bundle
from c2c_jax.translator.resolve import bundle_folder, is_local, run_name

RECALLS = ("recall@10", "recall@5", "recall@1")  # of a validation, that are drawn
# What `vectors.npz` may hold: unit vectors of the source space, of the target space, and translated into it.
MAX_VECTORS = 2**28  # bytes of them
VECTORS = ("source_text", "source_image", "target_text", "target_audio", "translated_text", "translated_image")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A work directory, or a bundle alone. Places on this machine are cut from bundle and config.

    config: every setting of the run, {} where a bundle came from elsewhere. history: the entries of `metrics.jsonl`,
    none of a bundle alone.
    """

    name: str
    bundle_folder: Path
    bundle: Bundle
    config: dict[str, Any]
    history: list[dict[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """What `c2c evaluate` wrote. settings: what was evaluated on, and how. vectors: unit vectors by their names, a
    subset of VECTORS."""

    settings: dict[str, Any]
    rows: list[Row]
    vectors: dict[str, Float[np.ndarray, "_ _"]]
    left_out: list[LeftOut]
    missing: list[Missing]
    warnings: list[str]


def read_run(run: Path) -> Run:
    """Reads what a RUN argument names, see `bundle_folder`. Raises BundleError or CheckpointError where there is no
    whole bundle, ReportError for a damaged `config.json` of the run."""
    folder = bundle_folder(run)
    bundle = load_bundle(folder)
    config, history = bundle.recipe, []
    if is_local(run) and folder != run:
        advice = "train again into another --workdir, or pass the bundle folder alone"
        config = upgraded(read_json(run / "config.json", ReportError, advice))
        _require_config(config, run / "config.json", advice)
        report_missing_fields(Config, config, run / "config.json")
        if is_there(run / "metrics.jsonl"):
            history = log.read_entries(run / "metrics.jsonl")
    public = without_places(dataclasses.replace(bundle, recipe=config))
    return Run(
        name=printable(run_name(run)),
        bundle_folder=folder,
        bundle=public,
        config=public.recipe,
        history=history,
    )


def _require_config(config: dict[str, Any], path: Path, advice: str) -> None:
    """Raises ReportError unless `config` is that of a run, with no other fields."""
    unknown = [name for name, is_stated in differing(Config, config) if is_stated]
    try:
        if unknown:
            raise ValueError(f"unknown field {', '.join(unknown)[:200]}")
        msgspec.convert(config, Config)
    except ValueError as cause:
        raise ReportError(f"{path} cannot be read as JSON ({one_line(cause)}); {advice}") from None


def read_evaluation(folder: Path, bundle: Bundle) -> Evaluation:
    """Reads the folder that `c2c evaluate --out` wrote. Raises ReportError where a file is missing or damaged, and
    where another translator, by its sizes and validation, was evaluated."""
    advice = "pass the --out folder of c2c evaluate, or evaluate again"
    written = read_results(folder, ReportError, advice)
    if (written.bundle.spec, written.bundle.metrics) != (dataclasses.asdict(bundle.spec), bundle.metrics):
        raise ReportError(f"{folder} is the evaluation of another translator, or of another step of it: evaluate again")
    if wrong := next((row for row in written.rows if not _is_sound(row)), None):
        raise ReportError(f"{folder / 'metrics.json'}: {wrong} is not a row of c2c evaluate: {advice}")
    vectors = _read_vectors(folder / "vectors.npz", advice)
    if written.vectors_sha256 not in (None, sha256_of(folder / "vectors.npz")):
        raise ReportError(f"{folder} holds vectors.npz of one evaluation and metrics.json of another: evaluate again")
    return Evaluation(
        settings=written.settings,
        rows=written.rows,
        vectors=vectors,
        left_out=written.left_out,
        missing=written.missing,
        warnings=written.warnings,
    )


def _read_vectors(path: Path, advice: str) -> dict[str, Float[np.ndarray, "_ _"]]:
    vectors = read_npz(path, VECTORS, MAX_VECTORS, ReportError, advice)
    for name, vectors_NE in vectors.items():
        if vectors_NE.ndim != 2 or vectors_NE.dtype.kind != "f" or not np.isfinite(vectors_NE).all():
            raise ReportError(
                f"{path}: {name} is {vectors_NE.dtype} of shape {vectors_NE.shape}; expected finite vectors [N, E]: "
                f"{advice}"
            )
    return {name: vectors_NE.astype(np.float32) for name, vectors_NE in vectors.items()}


def _is_sound(row: Row) -> bool:
    """Whether a row can be shown: of a known task and direction, its figures numbers."""
    numbers = (row.value, row.n, *(bound for bound in (row.low, row.high) if bound is not None))
    is_named = row.task in TASKS and row.direction in (None, *DIRECTIONS)
    _, figure = scoring_of(row.metric)
    is_ranked = not figure.startswith("recall@") or re.fullmatch("recall@[0-9]{1,9}", figure)
    return bool(is_named and is_ranked) and all(math.isfinite(x) for x in numbers)

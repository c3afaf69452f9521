"""What a page is made of, read and checked: a run or a bundle, an evaluation, and the records of sounds."""

import dataclasses
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from c2c_jax.errors import ReportError, one_line
from c2c_jax.evaluation.rows import DIRECTIONS, TASKS, LeftOut, Missing, Row
from c2c_jax.publishing.export import bundle_folder
from c2c_jax.publishing.names import without_places
from c2c_jax.training.log import read_entries
from c2c_jax.weights.translator import Bundle, load_bundle

RECALLS = ("recall@10", "recall@5", "recall@1")  # of a validation, that are drawn
# What `vectors.npz` may hold: unit vectors of the source space, of the target space, and translated into it.
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One `NAME.sound.json`. sound: the file of the first sound it tells of, the best where they were ranked."""

    path: Path
    content: dict[str, Any]

    @property
    def sound(self) -> Path:
        return self.path.parent / self.content["sounds"][0]["file"]

    @property
    def pictures(self) -> list[dict[str, str]]:
        """Their recorded paths and checksums; none for a control's own record."""
        return self.content.get("pictures", [])


def read_run(run: Path) -> Run:
    """Reads a work directory or a bundle folder. Raises BundleError or CheckpointError where there is no whole bundle,
    ReportError for a damaged `config.json` of the run."""
    folder = bundle_folder(run)
    bundle = load_bundle(folder)
    config, history = bundle.recipe, []
    if folder != run:
        config = _read_object(
            run / "config.json", "train again into another --workdir, or pass the bundle folder alone"
        )
        if (run / "metrics.jsonl").is_file():
            history = _read_history(run / "metrics.jsonl")
    public = without_places(dataclasses.replace(bundle, recipe=config))
    return Run(
        name=run.resolve().name if folder != run or run.resolve().name != "bundle" else run.resolve().parent.name,
        bundle_folder=folder,
        bundle=public,
        config=public.recipe,
        history=history,
    )


def _read_history(path: Path) -> list[dict[str, Any]]:
    history = read_entries(path)
    for entry in history:
        wanted = {"train": ("loss",), "validation": RECALLS}.get(entry["phase"], ())
        if lacking := [name for name in wanted if not isinstance(entry.get(name), int | float)]:
            raise ReportError(f"{path}: {lacking[0]} of step {entry['step']} is no number: take that line away")
    return history


def read_evaluation(folder: Path, bundle: Bundle) -> Evaluation:
    """Reads the folder that `c2c evaluate --out` wrote. Raises ReportError where a file is missing or damaged, and
    where another translator, by its sizes and validation, was evaluated."""
    advice = "pass the --out folder of c2c evaluate, or evaluate again"
    content = _read_object(folder / "metrics.json", advice)
    try:
        judged = content["bundle"]["spec"], content["bundle"]["metrics"]
        rows = [Row(**row) for row in content["rows"]]
        left_out = [LeftOut(**one) for one in content["left_out"]]
        missing = [Missing(**one) for one in content["missing"]]
        settings = dict(content["settings"])
        wrong = next((row for row in rows if not _is_sound(row)), None)
    except (KeyError, TypeError, ValueError) as error:
        raise ReportError(f"{folder / 'metrics.json'} is not of c2c evaluate ({one_line(error)}): {advice}") from None
    if judged != (dataclasses.asdict(bundle.spec), bundle.metrics):
        raise ReportError(f"{folder} is the evaluation of another translator, or of another step of it: evaluate again")
    if wrong:
        raise ReportError(f"{folder / 'metrics.json'}: {wrong} is no row of c2c evaluate: {advice}")
    vectors = _read_vectors(folder / "vectors.npz", advice)
    return Evaluation(settings=settings, rows=rows, vectors=vectors, left_out=left_out, missing=missing)


def _read_vectors(path: Path, advice: str) -> dict[str, Float[np.ndarray, "_ _"]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            vectors = {name: file[name].astype(np.float32) for name in VECTORS if name in file.files}
    except FileNotFoundError:
        raise ReportError(f"{path} is missing: {advice}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ReportError(f"{path} is damaged ({one_line(error)}): {advice}") from None
    for name, vectors_NE in vectors.items():
        if vectors_NE.ndim != 2 or not np.isfinite(vectors_NE).all():
            raise ReportError(f"{path}: {name} of shape {vectors_NE.shape}; expected finite vectors [N, E]: {advice}")
    return vectors


def read_records(folder: Path) -> tuple[list[Record], list[Record], list[ReportError]]:
    """The records below a folder, by name: of pictures' sounds, of control sounds, and what is wrong with others.

    Raises ReportError where there is no folder, or no record in it.
    """
    if not folder.is_dir():
        raise ReportError(f"{folder} is no folder: pass the --out folder of infer.py, with its .sound.json records")
    paths = sorted(path for path in folder.rglob("*.sound.json") if not path.name.startswith("."))
    if not paths:
        raise ReportError(f"{folder} holds no .sound.json record: pass the --out folder of infer.py")
    records, errors = [], []
    for path in paths:
        try:
            records.append(_checked(path))
        except ReportError as error:
            errors.append(error)
    controls = [record for record in records if "control" in record.content]
    return [record for record in records if "control" not in record.content], controls, errors


def _checked(path: Path) -> Record:
    advice = "make the sound again"
    content = _read_object(path, advice)
    try:
        for sound in content["sounds"]:
            if Path(sound["file"]).name != sound["file"]:
                raise TypeError(f"sounds lie beside their record, not at {sound['file']}")
            _ = sound["seed"], sound["clap_score"], [str(told) for told in sound["defects"]]
        _ = content["sounds"][0], content["clap"], np.asarray(content["clap_vector"], np.float32)
        _ = range(content["sample_rate"])
        if "control" not in content:
            _ = content["translator"]["path"], content["translator"]["sha256"], content["averaged"]
            _ = [(one["what"], one["weight"]) for one in content["mixed_in"]]
            _ = [(one["path"], one["sha256"]) for one in content["pictures"]], content["pictures"][0]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ReportError(f"{path} is no record of a sound ({one_line(error)}): {advice}") from None
    return Record(path=path, content=content)


def _read_object(path: Path, advice: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReportError(f"{path} is missing: {advice}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ReportError(f"{path} is damaged ({one_line(error)}): {advice}") from None
    if not isinstance(content, dict):
        raise ReportError(f"{path} holds no JSON object: {advice}")
    return content


def _is_sound(row: Row) -> bool:
    """Whether a row can be shown: of a known task and direction, its figures numbers."""
    numbers = (row.value, row.n, *(bound for bound in (row.low, row.high) if bound is not None))
    is_named = row.task in TASKS and row.direction in (None, *DIRECTIONS)
    return is_named and all(isinstance(x, int | float) and math.isfinite(x) for x in numbers)

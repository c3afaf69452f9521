"""What a page is made of, read and checked: a run or a bundle, an evaluation, and the records of sounds."""

import dataclasses
import glob
import math
import re
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from jaxtyping import Float

from c2c_jax.config import REMOVED_FIELDS, Config
from c2c_jax.errors import ReportError, SoundError
from c2c_jax.evaluation.results import read_results
from c2c_jax.evaluation.rows import DIRECTIONS, TASKS, LeftOut, Missing, Row, scoring_of
from c2c_jax.generation.sampling import Sampling, Versions
from c2c_jax.io.arrays import read_npz
from c2c_jax.io.console import printable
from c2c_jax.io.files import found_at, is_regular, is_there, matching, path_of, sha256_of
from c2c_jax.io.json import differing, read_json, read_json_as
from c2c_jax.publishing.names import without_places
from c2c_jax.spaces.space import SpaceId
from c2c_jax.training import log
from c2c_jax.translator.bundle import Bundle, load_bundle
from c2c_jax.translator.resolve import bundle_folder, is_local, run_name

RECALLS = ("recall@10", "recall@5", "recall@1")  # of a validation, that are drawn
OF_PICTURES = (  # fields that records of control sounds leave out
    "pictures", "mixed_in", "averaged", "gap_statistics", "output_mean", "caption_memory",
)  # fmt: skip
NEEDLESS = ("control", "output_mean")  # fields that records of pictures may leave out, as older ones do
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class File:
    """A file that a record names: `path` as `text_of` writes it."""

    path: str
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordedSound:
    """One candidate. file: its name, beside the record. sha256: of the file; "": of an older version."""

    file: str
    seed: int
    clap_score: Annotated[float, msgspec.Meta(ge=-2, le=2)] | None
    defects: list[str]
    sha256: str = ""
    peak: float | None = None
    rms: float | None = None

    @property
    def path(self) -> Path:
        return path_of(self.file)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixedIn:
    """A text, or a picture's file."""

    what: str | File
    weight: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks:
    """A generator and where it ran."""

    name: str
    fingerprint: str
    device: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryRecord:
    """A bundle's caption memory."""

    captions: int
    share: float
    temperature: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Content:
    """The contents of `NAME.sound.json`. control: the text of a control sound; None for a sound of pictures.
    output_mean: the mean that a translator of centred vectors un-centred with; None for other translators."""

    sounds: Annotated[list[RecordedSound], msgspec.Meta(min_length=1)]
    clap: SpaceId
    clap_vector: Annotated[list[Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)]], msgspec.Meta(min_length=1)]
    sample_rate: Annotated[int, msgspec.Meta(ge=1000, le=1_000_000)]
    control: str | None = None
    translator: File | None = None
    pictures: list[File] = dataclasses.field(default_factory=list)
    mixed_in: list[MixedIn] = dataclasses.field(default_factory=list)
    averaged: bool = False
    gap_statistics: list[str] = dataclasses.field(default_factory=list)
    output_mean: Literal["text", "audio"] | None = None
    caption_memory: MemoryRecord | None = None
    clip: SpaceId | None = None
    audioldm: Networks | None = None
    ranker: str | None = None
    dtype: str | None = None
    offload: bool = False
    at_once: int | None = None
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    versions: Versions = dataclasses.field(default_factory=Versions)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One `NAME.sound.json`, typed and as it is. sound: the file of the first sound it names, the best where they were
    ranked."""

    path: Path
    content: Content
    raw: dict[str, Any]

    @property
    def sound(self) -> Path:
        return self.path.parent / self.content.sounds[0].path

    def require_file(self, sound: RecordedSound) -> Path:
        """The file of one of its sounds. Raises SoundError where another sound is there."""
        path = self.path.parent / sound.path
        if sound.sha256 and is_regular(path) and sha256_of(path) != sound.sha256:
            raise SoundError(f"{path} is not the sound that {self.path.name} is of: make the sound again")
        return path


def read_run(run: Path) -> Run:
    """Reads what a RUN argument names, see `bundle_folder`. Raises BundleError or CheckpointError where there is no
    whole bundle, ReportError for a damaged `config.json` of the run."""
    folder = bundle_folder(run)
    bundle = load_bundle(folder)
    config, history = bundle.recipe, []
    if is_local(run) and folder != run:
        advice = "train again into another --workdir, or pass the bundle folder alone"
        read_json_as(Config, run / "config.json", ReportError, advice, is_exact=True, removed=REMOVED_FIELDS)
        config = read_json(run / "config.json", ReportError, advice)
        _report_unstated(Config, config, run / "config.json")
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


def read_records(folder: Path) -> tuple[list[Record], list[Record], list[ReportError]]:
    """The records below a folder, by name: of pictures' sounds, of control sounds, and what is wrong with others.

    Raises ReportError where there is no folder, or no record in it.
    """
    if not folder.is_dir():
        raise ReportError(
            f"expected a folder of sounds at {folder}, found {found_at(folder)}: pass the --out folder of infer.py, "
            "with its .sound.json records"
        )
    paths = sorted(matching(f"{glob.escape(str(folder))}/**/*.sound.json"))
    if not paths:
        raise ReportError(f"{folder} holds no .sound.json record: pass the --out folder of infer.py")
    records, errors = [], []
    for path in paths:
        try:
            records.append(_checked(path))
        except ReportError as error:
            errors.append(error)
    controls = [record for record in records if record.content.control is not None]
    return [record for record in records if record.content.control is None], controls, errors


def _checked(path: Path) -> Record:
    advice = "make the sound again"
    content = read_json_as(Content, path, ReportError, advice, is_exact=True)
    raw = read_json(path, ReportError, advice)
    for sound in content.sounds:
        if sound.path.name != str(sound.path):
            raise ReportError(f"{path} names {sound.file}, which is not in the same folder; {advice}")
    if content.control is None and not (content.translator and content.pictures):
        raise ReportError(f"{path} names neither a control text nor a translator and pictures; {advice}")
    if (found := len(content.clap_vector)) != content.clap.dim:
        raise ReportError(f"{path}: its clap_vector has {found} numbers, its CLAP's have {content.clap.dim}; {advice}")
    if not any(content.clap_vector):
        raise ReportError(f"{path}: its clap_vector is zero; {advice}")
    _report_unstated(Content, raw, path, OF_PICTURES if content.control else NEEDLESS)
    return Record(path=path, content=content, raw=raw)


def _report_unstated(kind: type, content: dict[str, Any], path: Path, needless: Collection[str] = ()) -> None:
    """Prints the fields of a dataclass that the JSON it was read from lacks: one of another version, or damaged."""
    unstated = [name for name, is_stated in differing(kind, content) if not is_stated and name not in needless]
    if unstated:
        log.console.print(f"{path} does not state {', '.join(dict.fromkeys(unstated))[:200]}")


def _is_sound(row: Row) -> bool:
    """Whether a row can be shown: of a known task and direction, its figures numbers."""
    numbers = (row.value, row.n, *(bound for bound in (row.low, row.high) if bound is not None))
    is_named = row.task in TASKS and row.direction in (None, *DIRECTIONS)
    _, figure = scoring_of(row.metric)
    is_ranked = not figure.startswith("recall@") or re.fullmatch("recall@[0-9]{1,9}", figure)
    return bool(is_named and is_ranked) and all(math.isfinite(x) for x in numbers)

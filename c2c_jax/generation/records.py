"""Reads and writes records of generated sounds, `NAME.sound.json`, which hold what is needed to reproduce them."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from c2c_jax.errors import AudioError, ReportError
from c2c_jax.generation.sampling import Sampling
from c2c_jax.io.atomic import atomic_write
from c2c_jax.io.files import describe_path, is_regular, path_to_text, sha256_of, text_to_path
from c2c_jax.io.json import format_json, read_json, read_json_as, report_missing_fields
from c2c_jax.spaces.space_id import SpaceId

IMAGE_FIELDS = (  # fields that only sounds of images have
    "pictures", "mixed_in", "averaged", "gap_statistics", "output_mean", "caption_memory",
)  # fmt: skip
CONTROL_FIELDS = ("control",)  # fields that only control sounds have
ADVICE = "generate the sound again"


@dataclasses.dataclass(frozen=True, kw_only=True)
class File:
    """A file that a record refers to. path: as written by `path_to_text`."""

    path: str
    sha256: str


def file_of(path: Path) -> File:
    """Describes a file for a record."""
    return File(path=path_to_text(path), sha256=sha256_of(path))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordedAudio:
    """One candidate sound. file: its name, in the folder of the record. sha256: of the file; "" in old records."""

    file: str
    sha256: str = ""
    seed: int
    clap_score: Annotated[float, msgspec.Meta(ge=-2, le=2)] | None
    peak: float | None = None
    rms: float | None = None
    defects: list[str]

    @property
    def path(self) -> Path:
        """Path of the sound file, relative to the folder of its record."""
        return text_to_path(self.file)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixedIn:
    """A text or an image file that was blended in, with its weight in the CLAP vector."""

    what: str | File
    weight: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks:
    """A generator and the device it ran on."""

    name: str
    fingerprint: str
    device: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Versions:
    """Versions of the libraries that generated a sound."""

    c2c_jax: str = ""
    diffusers: str = ""
    flax: str = ""
    jax: str = ""
    numpy: str = ""
    torch: str = ""
    transformers: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Content:
    """The content of a record. control: the text of a control sound; None for sounds of images. output_mean: the mean
    that a translator of centred vectors added to its output; None for other translators."""

    sounds: Annotated[list[RecordedAudio], msgspec.Meta(min_length=1)]
    control: str | None = None
    pictures: list[File] = dataclasses.field(default_factory=list)
    averaged: bool = False
    gap_statistics: list[str] = dataclasses.field(default_factory=list)
    output_mean: Literal["text", "audio"] | None = None
    caption_memory: dict[str, int | float] | None = None  # `translator.memory.Memory.record`
    mixed_in: list[MixedIn] = dataclasses.field(default_factory=list)
    audioldm: Networks | None = None
    clap: SpaceId
    ranker: str | None = None
    dtype: str | None = None
    offload: bool = False
    at_once: int | None = None
    translator: File | None = None
    clip: SpaceId | None = None
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    sample_rate: Annotated[int, msgspec.Meta(ge=1000, le=1_000_000)]
    clap_vector: Annotated[list[Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)]], msgspec.Meta(min_length=1)]
    versions: Versions = dataclasses.field(default_factory=Versions)

    @property
    def absent(self) -> tuple[str, ...]:
        """The fields that this kind of record does not have."""
        return CONTROL_FIELDS if self.control is None else IMAGE_FIELDS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """A record read from a file. content: its fields, typed. raw: the JSON object."""

    path: Path
    content: Content
    raw: dict[str, Any]

    @property
    def audio_path(self) -> Path:
        """Path of the record's first sound, which is the best one if the candidates were ranked."""
        return self.path.parent / self.content.sounds[0].path

    def require_file(self, audio: RecordedAudio) -> Path:
        """Returns the file of one of the record's sounds. Raises AudioError if the file has another SHA-256."""
        path = self.path.parent / audio.path
        if audio.sha256 and is_regular(path) and sha256_of(path) != audio.sha256:
            raise AudioError(f"{path} is not the sound that {self.path.name} describes: {ADVICE}")
        return path


def write_record(path: Path, content: Content) -> None:
    """Writes a record atomically."""
    fields = {name: value for name, value in dataclasses.asdict(content).items() if name not in content.absent}
    with atomic_write(path) as temporary:
        temporary.write_bytes(format_json(fields))


def read_records(folder: Path) -> tuple[list[Record], list[Record], list[ReportError]]:
    """Reads all records below a folder, sorted by name. Returns those of image sounds, those of control sounds, and an
    error for each unreadable record.

    Raises ReportError if the folder is missing or has no records.
    """
    if not folder.is_dir():
        raise ReportError(
            f"expected a folder of sounds at {folder}, found {describe_path(folder)}: pass the --out folder of "
            "c2c infer, with its .sound.json records"
        )
    paths = sorted(folder.rglob("*.sound.json"))
    if not paths:
        raise ReportError(f"{folder} contains no .sound.json record: pass the --out folder of c2c infer")
    records, errors = [], []
    for path in paths:
        try:
            records.append(_read(path))
        except ReportError as error:
            errors.append(error)
    controls = [record for record in records if record.content.control is not None]
    return [record for record in records if record.content.control is None], controls, errors


def _read(path: Path) -> Record:
    content = read_json_as(Content, path, ReportError, ADVICE, forbid_unknown=True)
    raw = read_json(path, ReportError, ADVICE)
    for audio in content.sounds:
        if audio.path.name != str(audio.path):
            raise ReportError(f"{path} names {audio.file}, which is not in the same folder; {ADVICE}")
    if content.control is None and not (content.translator and content.pictures):
        raise ReportError(f"{path} names neither a control text nor a translator and images; {ADVICE}")
    if (count := len(content.clap_vector)) != content.clap.dim:
        raise ReportError(f"{path}: clap_vector has {count} dimensions, the recorded CLAP {content.clap.dim}; {ADVICE}")
    if not any(content.clap_vector):
        raise ReportError(f"{path}: its clap_vector is zero; {ADVICE}")
    # Old records have no output_mean.
    report_missing_fields(Content, raw, path, (*content.absent, "output_mean"))
    return Record(path=path, content=content, raw=raw)

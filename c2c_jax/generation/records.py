"""Records of generated sounds, `NAME.sound.json`."""

import dataclasses
import glob
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from c2c_jax.errors import ReportError, SoundError
from c2c_jax.generation.sampling import Sampling, Versions
from c2c_jax.io.files import found_at, is_regular, matching, path_of, sha256_of
from c2c_jax.io.json import read_json, read_json_as, report_missing_fields
from c2c_jax.spaces.space import SpaceId

OF_PICTURES = (  # fields that records of control sounds leave out
    "pictures", "mixed_in", "averaged", "gap_statistics", "output_mean", "caption_memory",
)  # fmt: skip


NEEDLESS = ("control", "output_mean")  # fields that records of pictures may leave out, as older ones do


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
    report_missing_fields(Content, raw, path, OF_PICTURES if content.control else NEEDLESS)
    return Record(path=path, content=content, raw=raw)

"""The paper's Table 1, as it should have been: pictures, their sounds and control sounds, to be seen and heard."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from c2c_jax.errors import C2CError, ImageError, ReportError, SoundError
from c2c_jax.evaluation.report.inputs import Run
from c2c_jax.evaluation.report.media import Player, find_picture, picture_address, player
from c2c_jax.generation.plan import control_file
from c2c_jax.generation.records import Record, read_records
from c2c_jax.io.console import printable
from c2c_jax.io.files import path_of, sha256_of

MOST_OF_AVERAGE = 4  # pictures of one sound that are shown


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heard:
    """One sound of a row. score: cosine of its CLAP vector to the vector that it was made of, where it was measured."""

    file: str
    player: Player
    score: float | None
    seed: int
    defects: list[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture. address: None where the file is not at hand. width, height: in pixels."""

    name: str
    address: str | None = None
    width: int = 0
    height: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A picture, or several that make one sound; what it sounds like; and the control, a text's own sound.

    count: of the pictures, of which some are shown. candidates: that `sound` is the first of. agreement: cosine of the
    picture's vector to the control text's, both in CLAP space. mixed_in: what else the vector is of.
    """

    pictures: list[Picture]
    count: int
    sound: Heard
    candidates: int
    translator: str
    mixed_in: list[str]
    control: Heard | None
    text: str | None
    agreement: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gallery:
    """rows: those shown, of `count` in all. left_out: what could not be shown, and why."""

    rows: list[Row]
    count: int
    left_out: list[C2CError]


def build_gallery(folder: Path, run: Run, most: int) -> Gallery:
    """The first `most` records of a folder of sounds, by name, with their pictures and controls. What cannot be read is
    left out and told of. Raises ReportError where there is no record."""
    records, controls, damaged = read_records(folder)
    left_out: list[C2CError] = [*damaged]
    by_path = {control.path: control for control in controls}
    weights = sha256_of(run.bundle_folder / "model.safetensors")
    rows: list[Row] = []
    for record in records:
        control = by_path.pop(control_file(record.sound).with_suffix(".sound.json"), None)
        if len(rows) == most:
            continue
        try:
            sound = _heard(record)
        except SoundError as error:
            left_out.append(error)
            continue
        pictures, missing = _pictures(record)
        left_out += missing
        rows.append(_row(record, sound, pictures, control, _translator(record, run, weights), left_out))
    for path in by_path:
        left_out.append(ReportError(f"{path} is a control sound without its picture's: make that one again"))
    return Gallery(rows=rows, count=len(records), left_out=left_out)


def _row(
    record: Record,
    sound: Heard,
    pictures: list[Picture],
    control: Record | None,
    translator: str,
    left_out: list[C2CError],
) -> Row:
    heard = agreement = None
    if control:
        if record.content.clap == control.content.clap:  # else cosines between the two mean nothing
            agreement = _cosine(record.content.clap_vector, control.content.clap_vector)
        try:
            heard = _heard(control)
        except SoundError as error:
            left_out.append(error)
    return Row(
        pictures=pictures,
        count=len(record.content.pictures),
        sound=sound,
        candidates=len(record.content.sounds),
        translator=translator,
        mixed_in=[*_mixed_in(record)],
        control=heard,
        text=control.content.control if control else None,
        agreement=agreement,
    )


def _heard(record: Record) -> Heard:
    first = record.content.sounds[0]
    return Heard(
        file=printable(first.path),
        player=player(record.require_file(first), record.content.sample_rate),
        score=first.clap_score,
        seed=first.seed,
        defects=first.defects,
    )


def _pictures(record: Record) -> tuple[list[Picture], list[ImageError]]:
    shown, errors = [], []
    for one in record.content.pictures[:MOST_OF_AVERAGE]:
        path = path_of(one.path)
        name = printable(path.name)
        try:
            beside = record.path.parent, record.path.parent.parent
            address, width, height = picture_address(find_picture(path, one.sha256, beside))
            shown.append(Picture(name=name, address=address, width=width, height=height))
        except ImageError as error:
            errors.append(error)
            shown.append(Picture(name=name))
    return shown, errors


def _translator(record: Record, run: Run, weights: str) -> str:
    """This page's own by its name and kind; another one by its folder."""
    file = record.content.translator
    if file is None or file.sha256 == weights:
        return f"{run.name}, {run.bundle.spec.kind}"
    path = path_of(file.path)
    return f"{printable(path.parent.name if path.name == 'bundle' else path.name)}, not the one of this page"


def _mixed_in(record: Record) -> Iterator[str]:
    for one in record.content.mixed_in:
        name = f"“{one.what}”" if isinstance(one.what, str) else printable(path_of(one.what.path).name)
        yield f"{one.weight:g} × {name}"


def _cosine(one: Sequence[float], other: Sequence[float]) -> float | None:
    """None for vectors of two widths, which are not of one space."""
    a, b = np.asarray(one), np.asarray(other)
    if a.shape != b.shape:
        return None
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))

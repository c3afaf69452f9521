"""The gallery of a page: images, the sounds generated from them, and control sounds, as in the paper's Table 1."""

import dataclasses
from pathlib import Path

import numpy as np

from c2c_jax.errors import C2CError, ImageError, ReportError, SoundError
from c2c_jax.evaluation.report.inputs import Run
from c2c_jax.evaluation.report.media import find_picture, mel_address, picture_address, sound_address
from c2c_jax.generation.plan import control_file
from c2c_jax.generation.records import MixedIn, Record, read_records
from c2c_jax.io.console import printable
from c2c_jax.io.files import path_of, sha256_of
from c2c_jax.io.sounds import read_sound

MAX_PICTURES = 4  # shown of those that one sound was generated from


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sound:
    """One sound of a row.

    address, mel: the sound and its mel-spectrogram as `data:` addresses. seconds: its length. hertz: the spectrogram's
    upper edge. score: cosine of its CLAP vector to the vector that it was generated from; None: not measured.
    """

    file: str
    address: str
    mel: str
    seconds: float
    hertz: float
    score: float | None
    seed: int
    defects: list[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """One image. address: None if the file is missing. width, height: in pixels."""

    name: str
    address: str | None = None
    width: int = 0
    height: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """An image, or several that one sound was generated from, with that sound and a control, the sound of a text.

    count: number of images, of which some are shown. candidates: number of sounds, of which the first is shown.
    agreement: cosine of the image's vector to the control text's, both in CLAP space. mixed_in: what else the vector
    was mixed from.
    """

    pictures: list[Picture]
    count: int
    sound: Sound
    candidates: int
    translator: str
    mixed_in: list[str]
    control: Sound | None
    text: str | None
    agreement: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gallery:
    """rows: those shown, of `count` in all. left_out: what could not be shown, and why."""

    rows: list[Row]
    count: int
    left_out: list[C2CError]


def build_gallery(folder: Path, run: Run, max_rows: int) -> Gallery:
    """The first records of a folder of sounds, by name, with their images and controls. What cannot be read is skipped
    and reported. Raises ReportError if there is no record."""
    records, controls, damaged = read_records(folder)
    left_out: list[C2CError] = [*damaged]
    by_path = {control.path: control for control in controls}
    weights = sha256_of(run.bundle_folder / "model.safetensors")
    rows: list[Row] = []
    for record in records:
        control = by_path.pop(control_file(record.sound).with_suffix(".sound.json"), None)
        if len(rows) < max_rows and (sound := _sound(record, left_out)):
            rows.append(
                Row(
                    pictures=_pictures(record, left_out),
                    count=len(record.content.pictures),
                    sound=sound,
                    candidates=len(record.content.sounds),
                    translator=_translator(record, run, weights),
                    mixed_in=[_mixed_in(one) for one in record.content.mixed_in],
                    control=_sound(control, left_out) if control else None,
                    text=control.content.control if control else None,
                    agreement=_agreement(record, control) if control else None,
                )
            )
    for path in by_path:
        left_out.append(ReportError(f"{path} is a control sound without its picture's: make that one again"))
    return Gallery(rows=rows, count=len(records), left_out=left_out)


def _sound(record: Record, left_out: list[C2CError]) -> Sound | None:
    """The first sound of a record; None, and an error in left_out, if it cannot be read."""
    first, rate = record.content.sounds[0], record.content.sample_rate
    try:
        samples = read_sound(record.require_file(first), rate)
    except SoundError as error:
        left_out.append(error)
        return None
    return Sound(
        file=printable(first.path),
        address=sound_address(samples, rate),
        mel=mel_address(samples, rate),
        seconds=len(samples) / rate,
        hertz=rate / 2,
        score=first.clap_score,
        seed=first.seed,
        defects=first.defects,
    )


def _pictures(record: Record, left_out: list[C2CError]) -> list[Picture]:
    pictures = []
    for one in record.content.pictures[:MAX_PICTURES]:
        path, folder = path_of(one.path), record.path.parent
        try:
            address, width, height = picture_address(find_picture(path, one.sha256, (folder, folder.parent)))
            pictures.append(Picture(name=printable(path.name), address=address, width=width, height=height))
        except ImageError as error:
            left_out.append(error)
            pictures.append(Picture(name=printable(path.name)))
    return pictures


def _translator(record: Record, run: Run, weights: str) -> str:
    """The name and kind of this page's translator, or the folder of another one."""
    file = record.content.translator
    if file is None or file.sha256 == weights:
        return f"{run.name}, {run.bundle.spec.kind}"
    path = path_of(file.path)
    return f"{printable(path.parent.name if path.name == 'bundle' else path.name)}, not the one of this page"


def _mixed_in(one: MixedIn) -> str:
    name = f"“{one.what}”" if isinstance(one.what, str) else printable(path_of(one.what.path).name)
    return f"{one.weight:g} × {name}"


def _agreement(record: Record, control: Record) -> float | None:
    """The cosine of two records' vectors; None if they are not of one space."""
    a, b = (np.asarray(one.content.clap_vector) for one in (record, control))
    if record.content.clap != control.content.clap or a.shape != b.shape:
        return None
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))

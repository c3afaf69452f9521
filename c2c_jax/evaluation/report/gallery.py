"""The gallery of a page: images, the sounds generated from them, and control sounds, as in the paper's Table 1, all as
`data:` addresses, so that the page needs no other file."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from jaxtyping import Float
from PIL import Image

from c2c_jax.errors import AudioError, C2CError, ImageError, ReportError
from c2c_jax.evaluation.report.inputs import Run
from c2c_jax.generation.plan import control_file
from c2c_jax.generation.records import Record, read_records
from c2c_jax.io.audio import read_audio
from c2c_jax.io.audio_output import DYNAMIC_RANGE_DB, mel_spectrogram
from c2c_jax.io.console import printable
from c2c_jax.io.files import is_regular, sha256_of, text_to_path
from c2c_jax.io.images import read_image

MAX_PICTURES = 4  # shown of those that one sound was generated from
MAX_EDGE, SMALL = 640, 200  # pixels of the longer edge: maximum, and below which the image is kept exactly
JPEG_QUALITY = 80
MEL_SIZE = (640, 256)  # pixels
# Every browser plays MP3 from a data: address, Safari on old iPhones included, but not FLAC and Ogg; at the best
# variable rate it takes a fifth of a wav's bytes. It has these sample rates alone: other sounds are embedded as wav.
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


def build_gallery(folder: Path, run: Run, max_rows: int) -> tuple[dict[str, Any], list[C2CError]]:
    """The gallery as the template takes it, of the first records of a folder of sounds, by name, with their images and
    controls; and what could not be read. Raises ReportError if there is no record.

    rows: each with pictures: some of the images, `count` in all; sound: the first of `candidates`; translator: its
    name; mixed_in: what else its vector was mixed from; control: the sound of a text, None without, and text;
    agreement: cosine of the vectors of both, None if they are of two spaces. count: number of records.
    """
    records, controls, damaged = read_records(folder)
    errors: list[C2CError] = [*damaged]
    control_at = {control.path: control for control in controls}
    weights = sha256_of(run.bundle_folder / "model.safetensors")
    rows: list[dict[str, Any]] = []
    for record in records:
        content = record.content
        control = control_at.pop(control_file(record.audio_path).with_suffix(".sound.json"), None)
        if len(rows) == max_rows or not (sound := _audio(record, errors)):
            continue
        row: dict[str, Any] = {"sound": sound, "candidates": len(content.sounds), "count": len(content.pictures)}
        row |= {"control": None, "text": None, "agreement": None, "mixed_in": [], "pictures": _images(record, errors)}
        row["translator"] = f"{run.name}, {run.bundle.spec.kind}"
        if content.translator and content.translator.sha256 != weights:
            path = text_to_path(content.translator.path)
            name = printable(path.parent.name if path.name == "bundle" else path.name)
            row["translator"] = f"{name}, not the one of this page"
        for one in content.mixed_in:
            name = f"“{one.what}”" if isinstance(one.what, str) else printable(text_to_path(one.what.path).name)
            row["mixed_in"].append(f"{one.weight:g} × {name}")
        if control:
            row |= {"control": _audio(control, errors), "text": control.content.control}
            a, b = np.asarray(content.clap_vector), np.asarray(control.content.clap_vector)
            if content.clap == control.content.clap and a.shape == b.shape:
                row["agreement"] = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
        rows.append(row)
    for path in control_at:
        errors.append(ReportError(f"{path} is a control sound without its picture's: make that one again"))
    return {"rows": rows, "count": len(records), "left_out": errors}, errors


def _audio(record: Record, errors: list[C2CError]) -> dict[str, Any] | None:
    """The first sound of a record, with its mel-spectrogram, whose upper edge is at `hertz`, and its CLAP score; None,
    and one error more, if it cannot be read."""
    first, rate = record.content.sounds[0], record.content.sample_rate
    try:
        samples = read_audio(record.require_file(first), rate)
    except AudioError as error:
        errors.append(error)
        return None
    return {
        "file": printable(first.path),
        "address": audio_address(samples, rate),
        "mel": mel_address(samples, rate),
        "seconds": len(samples) / rate,
        "hertz": rate / 2,
        "score": first.clap_score,
        "seed": first.seed,
        "defects": first.defects,
    }


def _images(record: Record, errors: list[C2CError]) -> list[dict[str, Any]]:
    """The first images of a record; those that cannot be read have an error, and no address."""
    pictures = []
    for one in record.content.pictures[:MAX_PICTURES]:
        path, folder = text_to_path(one.path), record.path.parent
        picture: dict[str, Any] = {"name": printable(path.name), "address": None}
        try:
            address, width, height = image_address(find_image(path, one.sha256, (folder, folder.parent)))
            picture |= {"address": address, "width": width, "height": height}
        except ImageError as error:
            errors.append(error)
        pictures.append(picture)
    return pictures


def audio_address(samples: Float[np.ndarray, "samples"], rate: int) -> str:
    """Mono samples in -1..1 as MP3 of the best variable rate or, at a sample rate that MP3 lacks, as 16-bit wav."""
    file = io.BytesIO()
    if rate in MP3_RATES:
        soundfile.write(file, samples, rate, format="MP3", bitrate_mode="VARIABLE", compression_level=0.0)
        return _address("audio/mpeg", file)
    soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")
    return _address("audio/wav", file)


def mel_address(samples: Float[np.ndarray, "samples"], rate: int) -> str:
    """The mel-spectrogram of `io.audio_output`, low notes at the bottom, without axes."""
    from matplotlib import colormaps  # takes a while

    mels_MT = mel_spectrogram(samples, rate)[::-1]
    colours_MT3 = colormaps["magma"](1 + mels_MT / DYNAMIC_RANGE_DB, bytes=True)[..., :3]
    return _image_address(Image.fromarray(colours_MT3).resize(MEL_SIZE, Image.Resampling.BILINEAR), "JPEG")


def image_address(path: Path) -> tuple[str, int, int]:
    """An image file, upright, scaled down if it is large, with its width and height in pixels. Raises ImageError."""
    image = read_image(path)
    image.thumbnail((MAX_EDGE, MAX_EDGE), Image.Resampling.LANCZOS)
    return _image_address(image, "PNG" if max(image.size) < SMALL else "JPEG"), *image.size


def find_image(recorded: Path, checksum: str, folders: Sequence[Path]) -> Path:
    """The image that a record names: at its recorded place, or in one of the folders under the same name. Raises
    ImageError unless one of these is the very same file."""
    there = [place for place in (recorded, *(folder / recorded.name for folder in folders)) if is_regular(place)]
    for place in there:
        if sha256_of(place) == checksum:
            return place
    if there:
        raise ImageError(f"{there[0]} is another picture than the one that the sound was made of: bring that one back")
    raise ImageError(f"expected the picture at {recorded} or beside its sound, found none: bring it back")


def _image_address(image: Image.Image, kind: str) -> str:
    file = io.BytesIO()
    image.save(file, kind, quality=JPEG_QUALITY)
    return _address(f"image/{kind.lower()}", file)


def _address(kind: str, file: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode()}"

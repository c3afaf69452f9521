"""The gallery of a page: images, the sounds generated from them, and control sounds, as in the paper's Table 1.

Images and sounds are embedded as `data:` addresses, so that the page needs no other file.
"""

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
from c2c_jax.generation.plan import control_file
from c2c_jax.generation.records import Record, read_records
from c2c_jax.io.audio import read_audio
from c2c_jax.io.audio_output import DYNAMIC_RANGE_DB, mel_spectrogram
from c2c_jax.io.console import printable
from c2c_jax.io.files import is_regular, sha256_of, text_to_path
from c2c_jax.io.images import read_image

MAX_IMAGES = 4  # of those that one sound was generated from
MAX_EDGE, MIN_JPEG_EDGE = 640, 200  # pixels of the longer edge; smaller images are embedded losslessly
JPEG_QUALITY = 80
MEL_PIXELS = (640, 256)  # pixels
# All browsers play MP3 from a data: address, including Safari on old iPhones, which does not play FLAC and Ogg. At the
# best variable bit rate, MP3 takes a fifth of a wav's bytes. Sounds of other sample rates are embedded as wav.
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


def build_gallery(
    folder: Path, translator: str, weights_sha256: str, max_rows: int
) -> tuple[dict[str, Any], list[C2CError]]:
    """Builds the template's gallery from the first records in a folder, by name. Also returns the errors of what could
    not be read.

    translator: name of the page's translator. weights_sha256: checksum of its weights. Raises ReportError if there is
    no record. Each of the gallery's rows has: images: the first images that the sound was generated from, `count` in
    all. audio: the first of `candidates` sounds. translator: its name. mixed_in: other inputs that were mixed into its
    vector. control: the sound generated from a text, or None; text: that text; agreement: cosine of the vectors of
    both, None if they are of different spaces.
    """
    records, controls, damaged = read_records(folder)
    errors: list[C2CError] = [*damaged]
    control_at = {control.path: control for control in controls}
    rows: list[dict[str, Any]] = []
    for record in records:
        content = record.content
        control = control_at.pop(control_file(record.audio_path).with_suffix(".sound.json"), None)
        if len(rows) == max_rows or not (audio := _audio(record, errors)):
            continue
        row: dict[str, Any] = {"audio": audio, "candidates": len(content.sounds), "count": len(content.pictures)}
        row |= {"control": None, "text": None, "agreement": None, "mixed_in": [], "images": _images(record, errors)}
        row["translator"] = translator
        if content.translator and content.translator.sha256 != weights_sha256:
            path = text_to_path(content.translator.path)
            name = printable(path.parent.name if path.name == "bundle" else path.name)
            row["translator"] = f"{name}, not the translator of this page"
        for entry in content.mixed_in:
            name = f"“{entry.what}”" if isinstance(entry.what, str) else printable(text_to_path(entry.what.path).name)
            row["mixed_in"].append(f"{entry.weight:g} × {name}")
        if control:
            row |= {"control": _audio(control, errors), "text": control.content.control}
            a, b = np.asarray(content.clap_vector), np.asarray(control.content.clap_vector)
            if content.clap == control.content.clap and a.shape == b.shape:
                row["agreement"] = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
        rows.append(row)
    for path in control_at:
        errors.append(ReportError(f"{path}: the sound that this control belongs to is missing; generate it again"))
    return {"rows": rows, "count": len(records), "left_out": errors}, errors


def _audio(record: Record, errors: list[C2CError]) -> dict[str, Any] | None:
    """Reads the first sound of a record, with its mel-spectrogram up to `hertz`, and its CLAP score. If it cannot be
    read, adds an error to `errors` and returns None."""
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
    """Reads the first images of a record. Adds an error for each that cannot be read; that image has no address."""
    images = []
    for entry in record.content.pictures[:MAX_IMAGES]:
        path, folder = text_to_path(entry.path), record.path.parent
        image: dict[str, Any] = {"name": printable(path.name), "address": None}
        try:
            address, width, height = image_address(find_image(path, entry.sha256, (folder, folder.parent)))
            image |= {"address": address, "width": width, "height": height}
        except ImageError as error:
            errors.append(error)
        images.append(image)
    return images


def audio_address(samples: Float[np.ndarray, "samples"], rate: int) -> str:
    """Embeds mono samples in -1..1 as an address: MP3 of the best variable bit rate or, at sample rates that MP3
    lacks, 16-bit wav."""
    file = io.BytesIO()
    if rate in MP3_RATES:
        soundfile.write(file, samples, rate, format="MP3", bitrate_mode="VARIABLE", compression_level=0.0)
        return _address("audio/mpeg", file)
    soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")
    return _address("audio/wav", file)


def mel_address(samples: Float[np.ndarray, "samples"], rate: int) -> str:
    """Embeds the mel-spectrogram of `io.audio_output` as an address, low frequencies at the bottom, without axes."""
    from matplotlib import colormaps  # slow to import

    mels_MT = mel_spectrogram(samples, rate)[::-1]
    colours_MT3 = colormaps["magma"](1 + mels_MT / DYNAMIC_RANGE_DB, bytes=True)[..., :3]
    return _image_address(Image.fromarray(colours_MT3).resize(MEL_PIXELS, Image.Resampling.BILINEAR), "JPEG")


def image_address(path: Path) -> tuple[str, int, int]:
    """Embeds an image file, upright and scaled down if it is large. Returns its address, width and height in pixels.
    Raises ImageError."""
    image = read_image(path)
    image.thumbnail((MAX_EDGE, MAX_EDGE), Image.Resampling.LANCZOS)
    return _image_address(image, "PNG" if max(image.size) < MIN_JPEG_EDGE else "JPEG"), *image.size


def find_image(recorded: Path, checksum: str, folders: Sequence[Path]) -> Path:
    """Finds the image of a record: at its recorded path or, with the same name, in one of the folders. Raises
    ImageError unless the checksum of one of these matches."""
    existing = [path for path in (recorded, *(folder / recorded.name for folder in folders)) if is_regular(path)]
    for path in existing:
        if sha256_of(path) == checksum:
            return path
    if existing:
        raise ImageError(f"{existing[0]} is not the image that the sound was generated from: restore that image")
    raise ImageError(f"expected the image at {recorded} or next to its sound, found none: restore it")


def _image_address(image: Image.Image, kind: str) -> str:
    file = io.BytesIO()
    image.save(file, kind, quality=JPEG_QUALITY)
    return _address(f"image/{kind.lower()}", file)


def _address(kind: str, file: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode()}"

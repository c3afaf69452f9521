"""Writes previews of the mini world (a contact sheet and a page with audio players) and exports images and sounds."""

import base64
import csv
import dataclasses
import io
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import jinja2
import numpy as np
import soundfile
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from c2c_jax.io.atomic import atomic_write
from c2c_jax.io.audio import INDEX
from c2c_jax.io.audio_output import DYNAMIC_RANGE_DB, mel_spectrogram, write_audio
from c2c_jax.io.files import is_regular
from c2c_jax.io.progress import phase
from c2c_jax.miniworld.captions import STYLES
from c2c_jax.miniworld.event import SAMPLE_RATE
from c2c_jax.miniworld.pairs import audio_at, caption_at, image_at
from c2c_jax.miniworld.world import CELLS, SOURCES, Scene, is_held_out, scene_at

STRIDE = 85  # step between candidate scenes; coprime to 288
SCALE = 2  # of images on the contact sheet
TILE, MEL_HEIGHT, LABEL, GAP, COLUMNS = 64 * SCALE, 64, 18, 12, 8  # in pixels, except COLUMNS
MANIFEST = "manifest.csv"
EXPORTED = re.compile(r"\d{5}\.(png|wav)")  # names of exported images and sounds
COLUMN_NAMES = ("image", "audio", "label", "caption")  # as expected by `c2c evaluate --pairs`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preview:
    """Scene `index` of a split with its image, sound, mel-spectrogram (time from left to right, low frequencies at the
    bottom) and a caption in each style."""

    index: int
    scene: Scene
    image: Image.Image
    samples: Float[np.ndarray, "40960"]
    mel: Image.Image
    captions: dict[str, str]

    @property
    def held_out(self) -> bool:
        """Whether the scene's cell is excluded from training; see `world.is_held_out`."""
        return is_held_out(self.scene.cell)

    @property
    def label(self) -> str:
        """Text with count, size and place, such as `2 small, field`."""
        return f"{self.scene.count} {self.scene.size}, {self.scene.place}"

    def data_urls(self) -> dict[str, str]:
        """Returns `data:` URLs of the image, the mel-spectrogram and the audio."""
        image, mel, audio = io.BytesIO(), io.BytesIO(), io.BytesIO()
        self.image.save(image, "PNG", optimize=True)
        self.mel.save(mel, "PNG", optimize=True)
        soundfile.write(audio, self.samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
        files = {"image": ("image/png", image), "mel": ("image/png", mel), "audio": ("audio/wav", audio)}
        return {
            name: f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
            for name, (kind, file) in files.items()
        }


def show(out: Path, split: str, count: int, seed: int) -> list[Path]:
    """Writes `miniworld.png` and `miniworld.html` into a folder and returns their paths."""
    previews = [preview_scene(split, index, seed) for index in choose_scenes(split, count, seed)]
    sheet, page = out / "miniworld.png", out / "miniworld.html"
    with atomic_write(sheet) as temp:
        contact_sheet(previews).save(temp)
    with atomic_write(page) as temp:
        temp.write_text(render_page(previews, split, seed), encoding="utf-8", newline="\n")
    return [sheet, page]


def choose_scenes(split: str, count: int, seed: int) -> list[int]:
    """Chooses `count` scenes of a split, as evenly from all sources as possible; returns indices sorted by source."""
    quota = {source: len(range(number, count, len(SOURCES))) for number, source in enumerate(SOURCES)}
    chosen: dict[str, list[int]] = {source: [] for source in SOURCES}
    steps = itertools.count()
    while sum(map(len, chosen.values())) < count:
        rounds, step = divmod(next(steps), CELLS)
        index = rounds * CELLS + step * STRIDE % CELLS
        source = scene_at(split, index, seed)[0].source
        if len(chosen[source]) < quota[source]:
            chosen[source].append(index)
    return list(itertools.chain(*chosen.values()))


def preview_scene(split: str, index: int, seed: int) -> Preview:
    """Builds the preview of a scene."""
    from matplotlib import colormaps  # slow to import

    samples = audio_at(split, index, seed)
    mels_MT = mel_spectrogram(samples, SAMPLE_RATE)[::-1]
    return Preview(
        index=index,
        scene=scene_at(split, index, seed)[0],
        image=image_at(split, index, seed),
        samples=samples,
        mel=Image.fromarray(colormaps["magma"](1 + mels_MT / DYNAMIC_RANGE_DB, bytes=True)[..., :3]),
        captions={style: caption_at(split, index, style, seed) for style in STYLES},
    )


def contact_sheet(previews: Sequence[Preview]) -> Image.Image:
    """Draws images with their mel-spectrograms below, in rows of `COLUMNS`."""
    rows = -(-len(previews) // COLUMNS)
    width, height = TILE + GAP, TILE + MEL_HEIGHT + 2 * LABEL + GAP
    sheet = Image.new("RGB", (COLUMNS * width + GAP, rows * height + GAP), "#fbfaf6")
    pen = ImageDraw.Draw(sheet)
    bold, plain = ImageFont.load_default(15), ImageFont.load_default(12)
    for number, preview in enumerate(previews):
        left, top = GAP + number % COLUMNS * width, GAP + number // COLUMNS * height
        pen.text((left, top), preview.scene.source, "#22252b", bold)
        pen.text((left + TILE, top + 2), "held out" if preview.held_out else "", "#b0530f", plain, anchor="ra")
        sheet.paste(preview.image.resize((TILE, TILE), Image.Resampling.LANCZOS), (left, top + LABEL))
        sheet.paste(preview.mel.resize((TILE, MEL_HEIGHT), Image.Resampling.LANCZOS), (left, top + LABEL + TILE))
        pen.text((left, top + LABEL + TILE + MEL_HEIGHT + 2), preview.label, "#62666f", plain)
    return sheet


def render_page(previews: Sequence[Preview], split: str, seed: int) -> str:
    """Renders a self-contained HTML page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    by_source = itertools.groupby(previews, key=lambda preview: preview.scene.source)
    groups = [(source, list(group)) for source, group in by_source]
    return environment.get_template("page.html.j2").render(groups=groups, split=split, seed=seed, styles=STYLES)


def export(out: Path, split: str, count: int, seed: int, style: str) -> Path:
    """Exports the first `count` scenes of a split as images (png), sounds (wav) and a manifest with sources as labels.

    Replaces the folder `out` atomically. Returns the manifest's path.
    """
    with atomic_write(out) as temp:
        for folder in ("pictures", "sounds"):
            (temp / folder).mkdir(parents=True)
        rows = []
        with phase(f"{split} split") as bar:
            for index in bar.counted(range(count)):
                image, audio = f"pictures/{index:05}.png", f"sounds/{index:05}.wav"
                image_at(split, index, seed).save(temp / image)
                write_audio(temp / audio, audio_at(split, index, seed), SAMPLE_RATE)
                source, caption = scene_at(split, index, seed)[0].source, caption_at(split, index, style, seed)
                rows.append((image, audio, source, caption))
        with open(temp / MANIFEST, "w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMN_NAMES, *rows])
    return out / MANIFEST


def is_export(folder: Path) -> bool:
    """Whether a folder contains only files that `export` writes, apart from a search index."""
    if {path.name for path in folder.iterdir()} - {INDEX} != {"pictures", "sounds", MANIFEST}:
        return False
    sides = [folder / "pictures", folder / "sounds"]
    if not (is_regular(folder / MANIFEST) and all(side.is_dir() for side in sides)):
        return False
    inside = [path for side in sides for path in side.iterdir() if path.name != INDEX]
    return all(EXPORTED.fullmatch(path.name) and is_regular(path) for path in inside)

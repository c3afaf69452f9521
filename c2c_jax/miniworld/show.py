"""Output of the mini world: a contact sheet, a page with players, and exported pictures and sounds."""

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
from c2c_jax.io.console import stderr_console
from c2c_jax.io.files import is_regular
from c2c_jax.io.progress import phase
from c2c_jax.miniworld.captions import STYLES
from c2c_jax.miniworld.event import SAMPLE_RATE
from c2c_jax.miniworld.pairs import caption_at, picture_at, sound_at
from c2c_jax.miniworld.world import CELLS, SOURCES, Scene, is_held_out, scene_at

STRIDE = 85  # step between scenes that are tried; it has no factor in common with 288
SCALE = 2  # of the pictures on the contact sheet
TILE, MEL_HEIGHT, LABEL, GAP, COLUMNS = 64 * SCALE, 64, 18, 12, 8  # pixels, and tiles side by side
MANIFEST = "manifest.csv"
EXPORTED = re.compile(r"\d{5}\.(png|wav)")  # names of pictures and sounds
COLUMN_NAMES = ("image", "audio", "label", "caption")  # as `c2c evaluate --pairs` reads them


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shown:
    """Scene number `index` of a split: its picture, sound, mel-spectrogram (time from left to right, low frequencies at
    the bottom) and a caption in each style."""

    index: int
    scene: Scene
    picture: Image.Image
    samples: Float[np.ndarray, "40960"]
    mel: Image.Image
    captions: dict[str, str]

    @property
    def held_out(self) -> bool:
        """Whether no training uses the scene's combination of source, count, size and place."""
        return is_held_out(self.scene.cell)

    @property
    def label(self) -> str:
        """Count, size and place of the scene as text, such as `2 small, field`."""
        return f"{self.scene.count} {self.scene.size}, {self.scene.place}"

    def addresses(self) -> dict[str, str]:
        """`data:` URLs of the picture, the mel-spectrogram and the sound."""
        picture, mel, sound = io.BytesIO(), io.BytesIO(), io.BytesIO()
        self.picture.save(picture, "PNG", optimize=True)
        self.mel.save(mel, "PNG", optimize=True)
        soundfile.write(sound, self.samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
        files = {"picture": ("image/png", picture), "mel": ("image/png", mel), "sound": ("audio/wav", sound)}
        return {
            name: f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
            for name, (kind, file) in files.items()
        }


def show(out: Path, split: str, count: int, seed: int) -> list[Path]:
    """Writes `miniworld.png` and `miniworld.html` into a folder and returns their paths."""
    shown = [shown_at(split, index, seed) for index in chosen(split, count, seed)]
    sheet, page = out / "miniworld.png", out / "miniworld.html"
    with atomic_write(sheet) as temp:
        contact_sheet(shown).save(temp)
    with atomic_write(page) as temp:
        temp.write_text(render_page(shown, split, seed), encoding="utf-8")
    return [sheet, page]


def chosen(split: str, count: int, seed: int) -> list[int]:
    """Numbers of `count` scenes of a split, sorted by source, with equally many of each source as far as possible."""
    wanted = {source: len(range(number, count, len(SOURCES))) for number, source in enumerate(SOURCES)}
    found: dict[str, list[int]] = {source: [] for source in SOURCES}
    steps = itertools.count()
    while sum(map(len, found.values())) < count:
        rounds, step = divmod(next(steps), CELLS)
        index = rounds * CELLS + step * STRIDE % CELLS
        source = scene_at(split, index, seed)[0].source
        if len(found[source]) < wanted[source]:
            found[source].append(index)
    return list(itertools.chain(*found.values()))


def shown_at(split: str, index: int, seed: int) -> Shown:
    """Everything that the sheet and the page show of a scene."""
    from matplotlib import colormaps  # slow to import

    samples = sound_at(split, index, seed)
    mels_MT = mel_spectrogram(samples, SAMPLE_RATE)[::-1]
    return Shown(
        index=index,
        scene=scene_at(split, index, seed)[0],
        picture=picture_at(split, index, seed),
        samples=samples,
        mel=Image.fromarray(colormaps["magma"](1 + mels_MT / DYNAMIC_RANGE_DB, bytes=True)[..., :3]),
        captions={style: caption_at(split, index, style, seed) for style in STYLES},
    )


def contact_sheet(shown: Sequence[Shown]) -> Image.Image:
    """Pictures with their mel-spectrograms below, in rows of `COLUMNS`."""
    rows = -(-len(shown) // COLUMNS)
    width, height = TILE + GAP, TILE + MEL_HEIGHT + 2 * LABEL + GAP
    sheet = Image.new("RGB", (COLUMNS * width + GAP, rows * height + GAP), "#fbfaf6")
    pen = ImageDraw.Draw(sheet)
    bold, plain = ImageFont.load_default(15), ImageFont.load_default(12)
    for number, one in enumerate(shown):
        left, top = GAP + number % COLUMNS * width, GAP + number // COLUMNS * height
        pen.text((left, top), one.scene.source, "#22252b", bold)
        pen.text((left + TILE, top + 2), "held out" if one.held_out else "", "#b0530f", plain, anchor="ra")
        sheet.paste(one.picture.resize((TILE, TILE), Image.Resampling.LANCZOS), (left, top + LABEL))
        sheet.paste(one.mel.resize((TILE, MEL_HEIGHT), Image.Resampling.LANCZOS), (left, top + LABEL + TILE))
        pen.text((left, top + LABEL + TILE + MEL_HEIGHT + 2), one.label, "#62666f", plain)
    return sheet


def render_page(shown: Sequence[Shown], split: str, seed: int) -> str:
    """One self-contained HTML page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    groups = [(source, list(of)) for source, of in itertools.groupby(shown, key=lambda one: one.scene.source)]
    return environment.get_template("page.html.j2").render(groups=groups, split=split, seed=seed, styles=STYLES)


def export(out: Path, split: str, count: int, seed: int, style: str) -> Path:
    """Writes the first `count` scenes of a split as pictures (png), sounds (wav) and a manifest, whose labels are the
    sources. Replaces the folder `out` atomically and returns the manifest's path."""
    with atomic_write(out) as temp:
        for folder in ("pictures", "sounds"):
            (temp / folder).mkdir(parents=True)
        rows = []
        with phase(stderr_console(), f"{split} split") as bar:
            for index in bar.counted(range(count)):
                picture, sound = f"pictures/{index:05}.png", f"sounds/{index:05}.wav"
                picture_at(split, index, seed).save(temp / picture)
                write_audio(temp / sound, sound_at(split, index, seed), SAMPLE_RATE)
                source, caption = scene_at(split, index, seed)[0].source, caption_at(split, index, style, seed)
                rows.append((picture, sound, source, caption))
        with open(temp / MANIFEST, "w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMN_NAMES, *rows])
    return out / MANIFEST


def is_export(folder: Path) -> bool:
    """Whether a folder contains exactly what `export` writes, apart from the index of a search."""
    if {path.name for path in folder.iterdir()} - {INDEX} != {"pictures", "sounds", MANIFEST}:
        return False
    sides = [folder / "pictures", folder / "sounds"]
    if not (is_regular(folder / MANIFEST) and all(side.is_dir() for side in sides)):
        return False
    inside = [path for side in sides for path in side.iterdir() if path.name != INDEX]
    return all(EXPORTED.fullmatch(path.name) and is_regular(path) for path in inside)

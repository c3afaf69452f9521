"""Draws the images of the mini world: 64 by 64 pixels, the outlined things of a scene on a background.

Everything is drawn at four times the size and averaged down. An image is the sum of three layers (the background, the
things, and their outlines) and noise.
"""

import functools

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageChops, ImageDraw

from c2c_jax.miniworld.drawing import nature, things
from c2c_jax.miniworld.drawing.background import CANVAS, FINE, GROUND, SIDE, background
from c2c_jax.miniworld.drawing.sketch import ACCENTS, RGB, Placed, Sketch, palette, rgb
from c2c_jax.miniworld.world import SOURCES, Scene

RIM = 1.25  # pixels around a thing, for its outline and for rounding
# The outline is the area that the things cover when shifted by these offsets, in half pixels.
NEAR = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
OUTLINE = {"small": NEAR, "large": (*NEAR, (2, 0), (-2, 0), (0, 2), (0, -2))}
MARGIN, GAP = 1.0, 2.0  # free pixels at the border, and between things
WIDE = 0.58 * SIDE  # a wider lowest row is placed higher, to leave the ground visible
# For each number of things, the possible numbers of things per row, from the top.
ROWS: dict[int, tuple[tuple[int, ...], ...]] = {1: ((1,),), 2: ((2,), (1, 1)), 3: ((3,), (2, 1), (1, 2), (1, 1, 1))}
POSES = 8  # for each source

# Ranges of the longer side of a thing's box, with outline, in pixels. They do not overlap.
SMALL, LARGE, LARGE_ALONE = (17.0, 20.0), (26.0, 30.0), (32.0, 42.0)

COLOURS: dict[str, RGB] = {
    "red": (214, 44, 44),
    "green": (52, 172, 70),
    "blue": (56, 104, 232),
    "yellow": (246, 212, 44),
    "purple": (150, 62, 200),
    "orange": (244, 136, 30),
    "white": (242, 242, 238),
    "black": (50, 50, 56),
}
DRAWINGS = {source: getattr(nature if hasattr(nature, source) else things, source) for source in SOURCES}


@functools.cache
def _sketch(source: str, pose: int) -> Sketch:
    sketch = Sketch()
    DRAWINGS[source](sketch, pose / (POSES - 1))
    return sketch


def draw(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """Draws a scene as a 64 by 64 RGB image; `rng` decides what the scene does not specify."""
    return draw_with_mask(scene, rng)[0]


def draw_with_mask(scene: Scene, rng: np.random.Generator) -> tuple[Image.Image, Float[np.ndarray, "64 64"]]:
    """Draws a scene; returns the image, and the fraction of each pixel covered by things and their outlines."""
    pixels = background(scene.place, scene.sky, rng)
    foreground, inside, covered = _things(scene, rng)
    tone = "paper" if scene.colour == "black" else "halo" if scene.sky == "dark" else "ink"  # of the outline
    pixels *= 1 - covered
    pixels += foreground
    pixels += (covered - inside) * np.asarray(ACCENTS[tone], np.float32)
    pixels *= np.float32(rng.uniform(0.92, 1.08))
    pixels += rng.integers(-128, 128, pixels.shape, np.int8) * np.float32(rng.uniform(0.02, 0.07))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), covered[..., 0]


def _things(
    scene: Scene, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "64 64 3"], Float[np.ndarray, "64 64 1"], Float[np.ndarray, "64 64 1"]]:
    """Draws the things on black; also returns the fraction of each pixel covered, without and with outlines."""
    canvas = Image.new("RGBX", (CANVAS, CANVAS))  # the fourth channel: whether a thing covers the pixel
    pen = ImageDraw.Draw(canvas)
    low, high = SMALL if scene.size == "small" else LARGE if scene.count > 1 else LARGE_ALONE
    placed = [
        Placed(
            _sketch(scene.source, int(rng.integers(POSES))),
            side=(rng.uniform(low, high) - 2 * RIM) * FINE,
            degrees=rng.uniform(-10, 10),
            stretch=rng.uniform(0.94, 1.06),
            is_mirrored=bool(rng.integers(2)),
        )
        for _ in range(scene.count)
    ]
    tint = np.asarray(COLOURS[scene.colour]) + rng.uniform(-10, 10, 3)
    boxes = [(thing.width / FINE + 2 * RIM, thing.height / FINE + 2 * RIM) for thing in placed]
    for thing, (left, top) in zip(placed, corners(boxes, rng), strict=True):
        base = rgb(tint + rng.uniform(-8, 8))
        tones = palette(base, is_black=scene.colour == "black", is_white=scene.colour == "white")
        colours = {tone: (*colour, 255) for tone, colour in tones.items()}
        thing.draw(pen, (left + RIM) * FINE, (top + RIM) * FINE, colours)
    pixels = np.asarray(canvas.reduce(FINE), np.float32)
    inside = canvas.getchannel("X").reduce(2)
    covered = inside
    for shift in OUTLINE[scene.size]:
        covered = ImageChops.lighter(covered, ImageChops.offset(inside, *shift))
    return pixels[..., :3], pixels[..., 3:] / 255, np.asarray(covered.reduce(FINE // 2), np.float32)[..., None] / 255


def corners(boxes: list[tuple[float, float]], rng: np.random.Generator) -> list[tuple[float, float]]:
    """Places up to three boxes (width, height) at random; returns their upper left corners in pixels.

    The boxes are arranged in rows with random gaps, so that they touch neither each other nor the border.
    """
    order = rng.permutation(len(boxes)).tolist()
    layouts = []
    for split in ROWS[len(boxes)]:
        ends = np.cumsum((0, *split)).tolist()
        rows = [order[start:end] for start, end in zip(ends[:-1], ends[1:], strict=True)]
        width = max(sum(boxes[i][0] for i in row) + GAP * (len(row) - 1) for row in rows)
        height = sum(max(boxes[i][1] for i in row) for row in rows) + GAP * (len(rows) - 1)
        is_wide = sum(boxes[i][0] for i in rows[-1]) > WIDE
        room = (GROUND + 5 if is_wide else SIDE - MARGIN) - MARGIN
        if width <= SIDE - 2 * MARGIN and height <= room:
            layouts.append((rows, room))
    rows, room = layouts[rng.integers(len(layouts))]
    heights = [max(boxes[i][1] for i in row) for row in rows]
    places = {}
    for row, height, top in zip(rows, heights, _spread(heights, room, rng), strict=True):
        lefts = _spread([boxes[i][0] for i in row], SIDE - 2 * MARGIN, rng)
        for i, left in zip(row, lefts, strict=True):
            places[i] = (MARGIN + left, MARGIN + top + rng.uniform(0, height - boxes[i][1]))
    return [places[i] for i in range(len(boxes))]


def _spread(lengths: list[float], room: float, rng: np.random.Generator) -> list[float]:
    """Places consecutive lengths within `room`, with random gaps of at least GAP; returns their starts."""
    free = room - sum(lengths) - GAP * (len(lengths) - 1)
    before = np.sort(rng.uniform(0, free, len(lengths)))
    return (before + np.cumsum([0.0, *lengths[:-1]]) + GAP * np.arange(len(lengths))).tolist()

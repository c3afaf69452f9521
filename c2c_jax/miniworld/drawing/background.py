"""Draws the background of images: sky and ground."""

import math

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from c2c_jax.miniworld.drawing.sketch import RGB, rgb

SIDE, FINE = 64, 4  # image side in pixels, and canvas pixels per image pixel
CANVAS = SIDE * FINE
GROUND = 50  # approximate top of the ground, in pixels from the top of the image

SKIES: dict[str, RGB] = {
    "grey": (130, 131, 137),
    "sandy": (210, 190, 146),
    "dark": (46, 46, 64),
    "pale": (214, 226, 238),
    "pink": (234, 172, 188),
    "teal": (70, 146, 146),
}
PETALS: tuple[RGB, ...] = ((250, 250, 245), (255, 220, 90), (245, 170, 200))


def background(place: str, sky: str, rng: np.random.Generator) -> Float[np.ndarray, "64 64 3"]:
    """Draws sky with some clutter above a strip of grass, or of water and sand; values 0 to 255, without noise."""
    tint = np.asarray(SKIES[sky]) * rng.uniform(0.94, 1.06) + rng.uniform(-6, 6, 3)
    canvas = Image.new("RGB", (CANVAS, CANVAS), rgb(tint))
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(5)):  # slightly brighter or darker than the sky
        _clutter(draw, rgb(tint + rng.uniform(14, 30) * rng.choice((-1, 1))), rng)
    (_field if place == "field" else _shore)(draw, rng)
    pixels = np.asarray(canvas.reduce(FINE), np.float32)
    slope = np.linspace(-1, 1, SIDE, dtype=np.float32) * np.float32(rng.uniform(-14, 14))
    return pixels + slope[:, None, None]


def _fill_below(draw: ImageDraw.ImageDraw, x: np.ndarray, y: np.ndarray, colour: RGB) -> None:
    """Fills the canvas below a line of points."""
    edge = np.stack([x, y], 1).ravel().tolist()
    draw.polygon([-8, CANVAS + 8, *edge, CANVAS + 8, CANVAS + 8], colour)


def _clutter(draw: ImageDraw.ImageDraw, colour: RGB, rng: np.random.Generator) -> None:
    """Draws streaks of haze, a ring, specks or slanting lines, none of which looks like a source."""
    x, y = rng.uniform(0, CANVAS), rng.uniform(0, 180)
    kind = rng.integers(4)
    if kind == 0:
        for i in range(3):
            half, shift = rng.uniform(20, 45), rng.uniform(-15, 15)
            draw.line((x + shift - half, y + 9 * i, x + shift + half, y + 9 * i), colour, 4)
    elif kind == 1:
        radius = rng.uniform(12, 26)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=4)
    elif kind == 2:
        for shift_x, shift_y in rng.uniform(-40, 40, (5, 2)).tolist():
            draw.ellipse((x + shift_x, y + shift_y, x + shift_x + 7, y + shift_y + 7), colour)
    else:
        lean, length = rng.uniform(-40, 40), rng.uniform(30, 60)
        for shift in (0, 14):
            draw.line((x + shift, y, x + shift + lean, y + length), colour, 3)


def _field(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Draws two rolling rows of grass with upright blades, and some flowers."""
    green = np.asarray((92, 168, 62)) + rng.uniform(-12, 12, 3)
    for height, tone in ((0, 0.78), (22, 1.0)):
        x = np.arange(-8, CANVAS + 16, 5.0)
        roots = FINE * GROUND + height + 6 * np.sin(x / 40 + rng.uniform(0, 6)) + 4
        blades = rng.uniform(8, 22, len(x)) * (np.arange(len(x)) % 2)
        x = x + rng.uniform(-3, 3, len(x))
        _fill_below(draw, x, roots - blades, rgb(green * tone))
    for _ in range(rng.integers(2, 6)):
        x0, y0 = rng.uniform(8, CANVAS - 8), rng.uniform(FINE * GROUND + 18, CANVAS - 10)
        petal = PETALS[rng.integers(len(PETALS))]
        for shift_x, shift_y in ((-5, 0), (5, 0), (0, -5), (0, 5)):
            draw.ellipse((x0 + shift_x - 4, y0 + shift_y - 4, x0 + shift_x + 4, y0 + shift_y + 4), petal)
        draw.ellipse((x0 - 3, y0 - 3, x0 + 3, y0 + 3), (236, 150, 40))


def _shore(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Draws water with two rows of white crests, and sand in front of it."""
    water = np.asarray((48, 128, 204)) + rng.uniform(-12, 12, 3)
    sand = np.asarray((226, 198, 138)) + rng.uniform(-10, 10, 3)
    x = np.arange(-8, CANVAS + 16, 4.0)
    for height, tone in ((0, 1.0), (15, 1.14)):
        wave, phase = rng.uniform(26, 38), rng.uniform(0, 3)
        crest = FINE * GROUND + height - 9 * np.abs(np.sin(math.pi * x / wave + phase)) + 4
        for shift, colour in ((0, (246, 250, 252)), (7, rgb(water * tone))):
            _fill_below(draw, x, crest + shift, colour)
    beach = FINE * GROUND + 34 + 5 * np.sin(x / rng.uniform(28, 60) + rng.uniform(0, 6))
    for shift, colour in ((0, (246, 250, 252)), (6, rgb(sand))):
        _fill_below(draw, x, beach + shift, colour)
    for _ in range(6):
        x0, y0 = rng.uniform(0, CANVAS), rng.uniform(FINE * GROUND + 44, CANVAS - 4)
        draw.ellipse((x0, y0, x0 + 5, y0 + 4), rgb(sand * 0.8))

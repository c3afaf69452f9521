"""Vector drawings of things: shapes in named tones, which get their size and colours when they are placed."""

import functools
import itertools
import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from PIL import ImageDraw

Point = tuple[float, float]
RGB = tuple[int, int, int]

# Tones with fixed colours. `palette` adds tones that depend on the colour of the thing.
ACCENTS: dict[str, RGB] = {
    "ink": (28, 26, 36),
    "paper": (250, 247, 238),
    "tyre": (44, 42, 50),
    "metal": (196, 202, 212),
    "steel": (122, 130, 144),
    "wood": (140, 88, 46),
    "pale wood": (205, 156, 96),
    "beak": (250, 160, 30),
    "gold": (246, 200, 60),
    "glow": (255, 236, 120),
    "pink": (244, 150, 160),
    "glass": (176, 222, 244),
    "drop": (70, 150, 245),
    "cloud": (92, 96, 116),
    "steam": (236, 238, 244),
    "halo": (164, 170, 184),
}


def palette(base: RGB, is_black: bool, is_white: bool) -> dict[str, RGB]:
    """Returns the colour of every tone for a thing of colour `base`.

    The tone mark contrasts with base (eyes, stripes), patch is for large spots, trim for bright parts.
    """
    colour = np.asarray(base, float)
    shade = colour * (0.45 if is_black else 0.64)
    light = colour + (255 - colour) * (0.3 if is_black else 0.45)
    return ACCENTS | {
        "base": base,
        "shade": rgb(shade),
        "light": rgb(light),
        "mark": ACCENTS["paper" if is_black else "ink"],
        "patch": ACCENTS["ink" if is_white else "paper"],
        "trim": ACCENTS["wood" if is_white else "paper"],
    }


def rgb(colour: np.ndarray) -> RGB:
    """Converts a colour array [3] to a tuple of integers, clipped to 0–255 and rounded down."""
    red, green, blue = (int(channel) for channel in colour.clip(0, 255))
    return red, green, blue


def around(x: float, y: float, radius: float, degrees: float) -> Point:
    """Returns the point at an angle on a circle; 0 degrees is right, 90 is down."""
    return x + radius * math.cos(math.radians(degrees)), y + radius * math.sin(math.radians(degrees))


def both_sides(*right: Point) -> tuple[Point, ...]:
    """Returns a symmetric outline: the given points, from top to bottom, and their mirror images back to the top."""
    return (*right, *((-x, y) for x, y in reversed(right)))


def _smooth(points: tuple[Point, ...], is_closed: bool) -> tuple[Point, ...]:
    """Returns a Catmull-Rom spline through the points, with six steps between neighbours."""
    knots = np.asarray(points)
    padded = np.concatenate([knots[-1:], knots, knots[:2]] if is_closed else [knots[:1], knots, knots[-1:]])
    t = np.arange(6) / 6
    weights = np.stack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2], 1) / 2
    segments = np.stack([padded[i : len(padded) - 3 + i] for i in range(4)], 1)
    smooth = np.einsum("tk,skd->std", weights, segments).reshape(-1, 2)
    return tuple(map(tuple, smooth if is_closed else np.concatenate([smooth, knots[-1:]])))


class Sketch:
    """A list of filled and stroked shapes, back to front; x points right, y down."""

    def __init__(self) -> None:
        # For each shape: tone, stroke width (0: filled) and points.
        self.shapes: list[tuple[str, float, tuple[Point, ...]]] = []

    def polygon(self, tone: str, *points: Point) -> None:
        """Adds a filled polygon with the given corners."""
        self.shapes.append((tone, 0.0, points))

    def box(self, tone: str, left: float, top: float, right: float, bottom: float) -> None:
        """Adds a filled rectangle with the given edges."""
        self.polygon(tone, (left, top), (right, top), (right, bottom), (left, bottom))

    def blob(self, tone: str, *points: Point) -> None:
        """Adds a filled shape with a smooth outline through the points."""
        self.polygon(tone, *_smooth(points, True))

    def disc(self, tone: str, x: float, y: float, radius: float) -> None:
        """Adds a filled circle centred at (x, y)."""
        self.ellipse(tone, x, y, radius, radius)

    def ellipse(self, tone: str, x: float, y: float, wide: float, high: float, turn: float = 0.0) -> None:
        """Adds a filled ellipse. wide, high: half axes. turn: degrees clockwise."""
        angles = np.linspace(0, 2 * math.pi, 24, endpoint=False)
        cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
        across, down = wide * np.cos(angles), high * np.sin(angles)
        xs, ys = x + cos * across - sin * down, y + sin * across + cos * down
        self.polygon(tone, *zip(xs.tolist(), ys.tolist(), strict=True))

    def dome(self, tone: str, x: float, y: float, wide: float, high: float) -> None:
        """Adds the filled upper half of an ellipse centred at (x, y)."""
        angles = np.linspace(math.pi, 2 * math.pi, 17)
        self.polygon(tone, *((x + wide * math.cos(a), y + high * math.sin(a)) for a in angles))

    def line(self, tone: str, width: float, *points: Point) -> None:
        """Adds straight strokes from point to point, with round ends and joints."""
        self.shapes.append((tone, width, points))

    def curve(self, tone: str, width: float, *points: Point) -> None:
        """Adds a smooth stroke through the points."""
        self.line(tone, width, *_smooth(points, False))

    def arc(self, tone: str, width: float, x: float, y: float, radius: float, start: float, end: float) -> None:
        """Adds a stroke along a circle; start and end in degrees, as in `around`."""
        self.line(tone, width, *(around(x, y, radius, a) for a in np.linspace(start, end, 13)))

    @functools.cached_property
    def outline(self) -> tuple[Float[np.ndarray, "points 2"], Float[np.ndarray, "points 1"]]:
        """The points of all shapes, and half of the stroke width at each point."""
        reach = [np.full((len(points), 1), width / 2) for _, width, points in self.shapes]
        return np.concatenate([np.asarray(points) for _, _, points in self.shapes]), np.concatenate(reach)


class Placed:
    """A sketch that is rotated, mirrored and scaled to canvas pixels."""

    def __init__(self, sketch: Sketch, *, side: float, degrees: float, stretch: float, is_mirrored: bool):
        """side: the longer side of the bounding box, after rotation. stretch: factor of the width, before rotation."""
        points, reach = sketch.outline
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        across = -stretch if is_mirrored else stretch
        rotated = points @ np.array([[across * cos, across * sin], [-sin, cos]])
        low, high = (rotated - reach).min(0), (rotated + reach).max(0)
        self._scale = side / (high - low).max()
        self._shapes, self._points = sketch.shapes, (rotated - low) * self._scale
        self.width, self.height = ((high - low) * self._scale).tolist()

    def draw(self, draw: ImageDraw.ImageDraw, left: float, top: float, colours: Mapping[str, tuple[int, ...]]) -> None:
        """Draws the sketch with the upper left corner of its bounding box at (left, top)."""
        coordinates = iter((self._points + (left, top)).ravel().tolist())
        for tone, width, shape in self._shapes:
            points, fill = list(itertools.islice(coordinates, 2 * len(shape))), colours[tone]
            if width == 0:
                draw.polygon(points, fill)
                continue
            pixels = max(width * self._scale, 2.0)
            draw.line(points, fill, round(pixels))
            radius = pixels / 2 - 0.5
            for x, y in zip(points[::2], points[1::2], strict=True):
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill)

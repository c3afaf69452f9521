"""Invented picture captions and a drawn picture, so that a demo runs on a machine with no data.

    python -m bench.demo_captions --count 4000 --out demo

writes `demo/captions.txt`, one caption a line, and `demo/picture.png`, a lighthouse by the sea.
"""

import argparse
import itertools
import math
import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from c2c_jax.errors import CaptionError
from c2c_jax.io.atomic import atomic_write

# Every family is a product of its columns, read from left to right.
FAMILIES = (
    (
        ("a brown dog", "a grey cat", "a black horse", "two sheep", "an old rooster", "a small owl", "a flock of geese")
        + ("a seagull", "a green frog", "a lion", "a herd of cows", "a wolf", "a bee", "an elephant", "a crow"),
        ("resting", "running", "calling out", "looking for food", "playing", "drinking", "waiting", "shaking its head"),
        ("in a field", "beside a river", "on the beach", "in the snow", "under a tree", "near a barn", "at sunrise")
        + ("on a dusty road", "behind a wooden fence", "in tall grass", "at the edge of a forest", "by a pond")
        + ("in a city park", "on a rooftop", "in front of a farmhouse", "in the rain", "on a hill", "in a garden"),
    ),
    (
        ("a red", "a blue", "an old", "a shiny new", "a muddy", "a yellow"),
        (
            "train",
            "tractor",
            "motorcycle",
            "fire engine",
            "sports car",
            "bus",
            "police car",
            "lorry",
            "tram",
            "bicycle",
        ),
        ("passing", "parked", "slowing down", "speeding along", "turning round", "standing still"),
        ("on a country road", "in a busy street", "by the harbour", "in a tunnel", "near the station", "in heavy rain")
        + ("at a crossing", "on a bridge", "on a mountain pass", "in the fog", "in front of a hotel", "at night"),
    ),
    (
        ("a young woman", "an old man", "a boy", "a girl with a hat", "a street musician", "a bearded man")
        + ("a teacher", "a group of friends", "a famous artist", "a student"),
        ("playing the", "tuning the", "learning the", "smiling with the", "performing on the"),
        ("violin", "piano", "acoustic guitar", "trumpet", "drums", "flute", "cello", "accordion", "saxophone", "harp"),
        ("on stage", "in a living room", "at a wedding", "in the subway", "at a festival", "in a church", "by a fire")
        + ("in front of a crowd", "on a balcony", "in a small club"),
    ),
    (
        ("heavy rain", "a thunderstorm", "strong wind", "thick fog", "soft snow", "lightning", "a hail shower")
        + ("a golden sunset", "a rainbow", "morning mist"),
        ("over", "moving towards", "seen from", "hanging above", "passing across"),
        ("the harbour", "a mountain lake", "the old town", "a wheat field", "the desert", "a pine forest", "the coast")
        + ("a waterfall", "the skyline", "a quiet village", "the river valley", "a lighthouse", "the airport"),
        ("in spring", "in summer", "in autumn", "in winter", "at dawn", "at dusk"),
    ),
    (
        ("a crowd", "children", "a football team", "two workers", "tourists", "a family", "soldiers", "dancers")
        + ("a couple", "firefighters"),
        ("cheering", "laughing", "walking", "singing", "talking", "clapping", "digging", "cooking", "swimming"),
        (
            "in a stadium",
            "at the market",
            "on a playground",
            "near a fountain",
            "on a construction site",
            "in a kitchen",
        )
        + ("in a swimming pool", "on a boat", "at a railway station", "in a shopping mall"),
        ("on a sunny day", "in the evening", "on a cold day", "during a festival"),
    ),
)


def captions(count: int, seed: int = 0) -> list[str]:
    """`count` distinct picture captions in an order drawn from `seed`. Raises CaptionError beyond what can be made."""
    sentences = [" ".join(words) for columns in FAMILIES for words in itertools.product(*columns)]
    if count > len(sentences):
        raise CaptionError(f"{count} demo captions asked for: the grammar makes {len(sentences)}, ask for no more")
    return random.Random(seed).sample(sentences, count)


def picture() -> Image.Image:
    """A lighthouse on a cliff above the sea at sunset, 512 x 384 pixels, the same at every call."""
    width, height, horizon = 1024, 768, 470  # drawn at twice the size, so that edges come out smooth
    random_state = random.Random(7)
    scene = gradient(width, horizon, [(38, 52, 110), (122, 92, 148), (236, 140, 110), (255, 206, 140)])
    scene = stacked(scene, gradient(width, height - horizon, [(232, 150, 120), (70, 92, 138), (16, 34, 74)]))

    glow = Image.new("L", scene.size)
    ImageDraw.Draw(glow).ellipse((150, horizon - 170, 490, horizon + 170), fill=150)
    scene.paste((255, 228, 170), mask=above(glow.filter(ImageFilter.GaussianBlur(60)), horizon))
    sun = Image.new("L", scene.size)
    ImageDraw.Draw(sun).ellipse((262, horizon - 88, 378, horizon + 28), fill=255)
    scene.paste((255, 244, 205), mask=above(sun, horizon))

    clouds = Image.new("L", scene.size)
    draw = ImageDraw.Draw(clouds)
    for x, y, size in ((150, 120, 46), (560, 70, 38), (430, 245, 30), (900, 210, 40), (70, 300, 24)):
        for puff in range(9):
            left, top = x + (puff - 4) * size * 0.72, y + random_state.uniform(-0.3, 0.1) * size
            reach = size * (1 - abs(puff - 4) / 6)
            draw.ellipse((left - reach, top - reach * 0.5, left + reach, top + reach * 0.42), fill=150)
    scene.paste((255, 214, 196), mask=clouds.filter(ImageFilter.GaussianBlur(7)))

    draw = ImageDraw.Draw(scene)
    for _ in range(340):  # ripples: wider and further apart near the viewer, golden under the sun
        depth = random_state.random() ** 1.6
        y, x = horizon + 3 + depth * (height - horizon), random_state.uniform(0, width)
        golden = abs(x - 320) < 50 + 130 * depth
        colour = (255, 224, 160) if golden else (118, 134, 172)
        length = (6 + 46 * depth) * random_state.uniform(0.5, 1)
        draw.line((x - length, y, x + length, y), fill=colour, width=1 + int(3 * depth))

    draw.polygon(((96, 494), (182, 494), (166, 512), (110, 512)), fill=(58, 36, 44))  # a sailing boat
    draw.polygon(((136, 394), (136, 488), (88, 488)), fill=(250, 238, 222))
    draw.polygon(((142, 410), (142, 488), (184, 488)), fill=(236, 206, 190))

    cliff = [(590, 768), (612, 700), (600, 650), (640, 600), (632, 566), (676, 530), (730, 516), (800, 506), (900, 512)]
    draw.polygon([*cliff, (1024, 498), (1024, 768)], fill=(62, 50, 62))
    draw.polygon([(632, 566), *cliff[5:], (1024, 498), (1024, 540), (860, 548), (740, 552)], fill=(84, 106, 72))
    for x, y in ((660, 640), (720, 690), (790, 620), (880, 660), (960, 610), (690, 730), (850, 730), (980, 710)):
        draw.polygon(((x, y), (x + 46, y - 16), (x + 84, y + 8), (x + 50, y + 30)), fill=(82, 66, 78))
    for x in range(560, 700, 14):  # foam at the foot of the cliff
        y = 748 + 10 * math.sin(x)
        draw.ellipse((x - 18, y - 8, x + 18, y + 10), fill=(226, 226, 236))

    beams = Image.new("L", scene.size)
    ImageDraw.Draw(beams).polygon(((800, 176), (0, 40), (0, 190), (800, 190)), fill=110)
    scene.paste((255, 240, 190), mask=beams.filter(ImageFilter.GaussianBlur(9)))
    draw_lighthouse(scene)

    draw = ImageDraw.Draw(scene)
    for x, y, span in ((520, 190, 26), (590, 232, 20), (470, 150, 16), (640, 140, 14)):  # gulls
        for side in (-1, 1):
            tip, middle = (x + side * span, y - span * 0.25), (x + side * span * 0.45, y - span * 0.5)
            draw.line(((x, y), middle, tip), fill=(48, 42, 62), width=4, joint="curve")
    return scene.resize((width // 2, height // 2), Image.Resampling.LANCZOS)


def draw_lighthouse(scene: Image.Image) -> None:
    """Draws the tower, its lamp and the keeper's house onto the large scene; light falls from the left."""
    draw = ImageDraw.Draw(scene)
    draw.rectangle((868, 452, 972, 520), fill=(232, 214, 202))
    draw.polygon(((856, 456), (884, 412), (956, 412), (984, 456)), fill=(150, 62, 56))
    for left in (884, 934):
        draw.rectangle((left, 470, left + 22, 496), fill=(255, 214, 120))
    top, bottom = 210, 524
    tower = Image.new("L", scene.size)
    ImageDraw.Draw(tower).polygon(((772, top), (828, top), (850, bottom), (750, bottom)), fill=255)
    bands = Image.new("RGB", scene.size)
    for band in range(6):
        colour = (200, 58, 52) if band % 2 else (250, 242, 232)
        edge = top + band * (bottom - top) / 6
        ImageDraw.Draw(bands).rectangle((740, edge, 860, edge + (bottom - top) / 6), fill=colour)
    shade = Image.new("L", scene.size, 255)
    for x in range(740, 860):
        ImageDraw.Draw(shade).line((x, top, x, bottom), fill=255 - int(1.15 * max(x - 770, 0)))
    scene.paste(ImageChops.multiply(bands, Image.merge("RGB", (shade,) * 3)), mask=tower)
    for y in (292, 396):
        draw.rounded_rectangle((793, y, 807, y + 26), radius=7, fill=(60, 48, 60))
    draw.rounded_rectangle((788, 484, 814, 524), radius=10, fill=(70, 48, 48))
    draw.rectangle((758, 200, 842, 212), fill=(52, 44, 56))
    draw.rectangle((778, 154, 822, 200), fill=(255, 236, 150))
    for x in (778, 793, 807, 822):
        draw.line((x, 154, x, 200), fill=(52, 44, 56), width=4)
    draw.polygon(((768, 156), (800, 116), (832, 156)), fill=(160, 52, 48))
    draw.ellipse((795, 106, 805, 118), fill=(52, 44, 56))
    halo = Image.new("L", scene.size)
    ImageDraw.Draw(halo).ellipse((756, 132, 844, 222), fill=170)
    scene.paste((255, 244, 190), mask=halo.filter(ImageFilter.GaussianBlur(22)))


def gradient(width: int, height: int, colours: Sequence[tuple[int, int, int]]) -> Image.Image:
    """A picture running smoothly through `colours` from top to bottom."""
    column = Image.new("RGB", (1, len(colours)))
    column.putdata(colours)
    # The middle of the first pixel to the middle of the last, so that the ends have the colours named.
    return column.resize((width, height), Image.Resampling.BILINEAR, box=(0, 0.5, 1, len(colours) - 0.5))


def stacked(upper: Image.Image, lower: Image.Image) -> Image.Image:
    """`upper` on top of `lower`, both of one width."""
    whole = Image.new("RGB", (upper.width, upper.height + lower.height))
    whole.paste(upper, (0, 0))
    whole.paste(lower, (0, upper.height))
    return whole


def above(mask: Image.Image, horizon: int) -> Image.Image:
    """`mask` with everything below the horizon cleared."""
    mask.paste(0, (0, horizon, mask.width, mask.height))
    return mask


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.demo_captions", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=4000, help="how many captions (default: 4000)")
    parser.add_argument("--seed", type=int, default=0, help="draws which captions, in which order (default: 0)")
    parser.add_argument("--out", type=Path, required=True, help="folder that gets captions.txt and picture.png")
    flags = parser.parse_args(arguments)
    try:
        lines = captions(flags.count, flags.seed)
    except CaptionError as error:
        parser.error(str(error))
    with atomic_write(flags.out / "captions.txt") as beside:
        beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with atomic_write(flags.out / "picture.png") as beside:
        picture().save(beside)


if __name__ == "__main__":
    main()

"""Drawings of instruments, vehicles, machines and tools. pose: 0 to 1, varies between things of one source."""

from c2c_jax.miniworld.drawing.sketch import Sketch, around, both_sides


def bell(pen: Sketch, pose: float) -> None:
    """A hanging bell with a wide rim and a clapper."""
    swing = 0.24 * (pose - 0.5)
    pen.arc("steel", 0.15, 0.0, -0.84, 0.17, 0.0, 360.0)
    pen.disc("gold", swing, 0.8, 0.22)
    pen.blob("base", *both_sides((0.3, -0.66), (0.52, -0.2), (0.62, 0.26), (0.9, 0.6), (0.5, 0.68)))
    pen.blob("shade", (0.16, -0.64), (0.34, -0.6), (0.54, -0.18), (0.64, 0.26), (0.82, 0.52), (0.34, 0.52), (0.3, 0.0))
    pen.curve("light", 0.13, (-0.26, -0.42), (-0.36, -0.05), (-0.42, 0.28))
    pen.line("gold", 0.14, (-0.82, 0.62), (0.82, 0.62))


def drum(pen: Sketch, pose: float) -> None:
    """A corded snare drum from slightly above, with two sticks."""
    pen.blob("base", (-0.8, -0.2), (0.8, -0.2), (0.8, 0.5), (0.5, 0.78), (0.0, 0.84), (-0.5, 0.78), (-0.8, 0.5))
    pen.polygon("base", (-0.84, -0.2), (0.84, -0.2), (0.84, 0.56), (-0.84, 0.56))
    cords = (-0.8, 0.0), (-0.55, 0.66), (-0.28, 0.14), (0.0, 0.76), (0.28, 0.14), (0.55, 0.66), (0.8, 0.0)
    pen.line("trim", 0.08, *cords)
    pen.curve("gold", 0.12, (-0.84, 0.54), (-0.45, 0.76), (0.0, 0.82), (0.45, 0.76), (0.84, 0.54))
    pen.ellipse("gold", 0.0, -0.2, 0.88, 0.34)
    pen.ellipse("paper", 0.0, -0.22, 0.76, 0.25)
    for side in (-1.0, 1.0):
        tip = side * (0.1 + 0.12 * pose)
        pen.line("wood", 0.12, (tip, -0.24), (side * 0.8, -0.92))
        pen.disc("wood", tip, -0.24, 0.12)


def trumpet(pen: Sketch, pose: float) -> None:
    """A horizontal trumpet with its bell on the right, a loop of tube and three valves."""
    low = 0.56 + 0.08 * pose
    pen.curve("shade", 0.13, (0.3, 0.02), (0.46, 0.26), (0.3, low), (-0.5, low), (-0.66, 0.26), (-0.5, 0.02))
    for i, x in enumerate((-0.3, -0.07, 0.16)):
        top = -0.46 + 0.12 * ((i + round(7 * pose)) % 3 == 0)
        pen.line("metal", 0.08, (x, top), (x, -0.1))
        pen.line("metal", 0.15, (x - 0.03, top), (x + 0.03, top))
        pen.box("base", x - 0.09, -0.22, x + 0.09, 0.36)
    pen.line("base", 0.15, (-1.0, 0.0), (0.4, 0.0))
    pen.line("metal", 0.2, (-1.16, -0.08), (-1.16, 0.08))
    pen.blob(
        "base", (0.2, -0.08), (0.6, -0.14), (0.9, -0.36), (1.08, -0.64), (1.14, 0.0), (1.08, 0.64), (0.9, 0.36),
        (0.6, 0.14), (0.2, 0.08),
    )  # fmt: skip
    pen.ellipse("shade", 1.06, 0.0, 0.14, 0.6)
    pen.line("light", 0.06, (-0.8, -0.03), (0.5, -0.03))


def piano(pen: Sketch, pose: float) -> None:
    """An upright piano from the front, with large keys."""
    for x in (-0.82, 0.82):
        pen.box("shade", x - 0.12, 0.2, x + 0.12, 0.95)
    pen.box("shade", -0.78, 0.3, 0.78, 0.8)
    pen.box("base", -0.95, -0.85, 0.95, -0.1)
    pen.box("light", -1.0, -0.95, 1.0, -0.78)
    pen.polygon("paper", (-0.34, -0.26), (-0.28, -0.68), (0.28 - 0.1 * pose, -0.68), (0.34, -0.26))
    pen.box("shade", -1.05, -0.16, 1.05, 0.46)
    pen.box("paper", -0.94, -0.1, 0.94, 0.34)
    for i in range(1, 7):
        x = -0.94 + i * 1.88 / 7
        pen.line("steel", 0.03, (x, -0.08), (x, 0.32))
        if i != 3:
            pen.box("ink", x - 0.08, -0.1, x + 0.08, 0.14)
    pen.disc("gold", -0.1, 0.72, 0.07)
    pen.disc("gold", 0.12, 0.72, 0.07)


def guitar(pen: Sketch, pose: float) -> None:
    """A leaning guitar with its body at the lower left."""
    pen.line("wood", 0.17, (-0.1, 0.1), (0.7, -0.7))
    pen.polygon("shade", (0.54, -0.72), (0.82, -1.04), (1.04, -0.84), (0.72, -0.54))
    for along in (0.0, 0.14):
        pen.disc("metal", 0.58 + along, -0.86 - along, 0.06)
        pen.disc("metal", 0.84 + along, -0.58 - along, 0.06)
    pen.disc("base", -0.5, 0.5, 0.56)
    pen.disc("base", 0.04, -0.04, 0.42)
    pen.polygon("base", (-0.46, 0.02), (-0.1, -0.24), (0.24, 0.1), (-0.02, 0.46))
    pen.arc("light", 0.08, -0.5, 0.5, 0.4, 110.0, 200.0)
    pen.disc("ink", -0.14, 0.14, 0.21)
    pen.line("wood", 0.2, (-0.7, 0.48), (-0.48, 0.7))
    pen.line("paper", 0.06, (-0.56, 0.56), (0.7, -0.7))


def car(pen: Sketch, pose: float) -> None:
    """A car from the side."""
    back = 0.2 * pose
    pen.blob("base", (-0.66 - back, -0.02), (-0.4 - back, -0.5), (0.0, -0.6), (0.34, -0.5), (0.62, -0.06), (0.0, 0.1))
    pen.polygon("glass", (-0.52 - back, -0.04), (-0.34 - back, -0.4), (-0.06, -0.46), (-0.06, -0.04))
    pen.polygon("glass", (0.04, -0.04), (0.04, -0.46), (0.28, -0.4), (0.48, -0.04))
    pen.blob(
        "base", (-1.0, -0.08), (-0.4, -0.08), (0.6, -0.08), (1.02, 0.1), (1.08, 0.4), (0.6, 0.44), (-0.6, 0.44),
        (-1.08, 0.4),
    )  # fmt: skip
    pen.line("shade", 0.12, (-1.0, 0.36), (1.02, 0.36))
    pen.line("light", 0.07, (-0.86, 0.04), (0.6, 0.04))
    pen.disc("glow", 0.95, 0.16, 0.11)
    pen.line("steel", 0.05, (-0.02, 0.06), (-0.02, 0.32))
    for x in (-0.56, 0.58):
        pen.disc("tyre", x, 0.44, 0.3)
        pen.disc("metal", x, 0.44, 0.14)


def train(pen: Sketch, pose: float) -> None:
    """A steam locomotive from the side: cab, boiler, chimney with steam, cow-catcher."""
    puff = 0.08 * pose
    pen.disc("steam", 0.5, -1.12, 0.13 + puff)
    pen.disc("steam", 0.24, -1.24, 0.15 + puff)
    pen.disc("steam", -0.06, -1.3, 0.11 + puff)
    pen.polygon("tyre", (0.46, -0.3), (0.46, -0.7), (0.36, -0.92), (0.84, -0.92), (0.74, -0.7), (0.74, -0.3))
    pen.dome("gold", 0.1, -0.34, 0.16, 0.2)
    pen.box("base", -0.3, -0.36, 0.86, 0.24)
    pen.ellipse("base", 0.86, -0.06, 0.12, 0.3)
    for x in (-0.02, 0.34, 0.7):
        pen.line("shade", 0.07, (x, -0.33), (x, 0.22))
    pen.box("base", -0.96, -0.66, -0.28, 0.24)
    pen.box("glass", -0.8, -0.5, -0.42, -0.14)
    pen.box("shade", -1.06, -0.8, -0.18, -0.62)
    pen.box("tyre", -1.0, 0.2, 0.98, 0.38)
    pen.polygon("steel", (0.84, 0.24), (1.2, 0.68), (0.78, 0.68))
    pen.disc("tyre", -0.6, 0.42, 0.32)
    pen.disc("metal", -0.6, 0.42, 0.15)
    for x in (0.08, 0.56):
        pen.disc("tyre", x, 0.5, 0.23)
        pen.disc("metal", x, 0.5, 0.1)
    pen.line("gold", 0.09, (-0.6, 0.46), (0.56, 0.5))
    pen.disc("glow", 0.96, -0.1, 0.1)


def siren(pen: Sketch, pose: float) -> None:
    """A warning light on a base, with rays."""
    for degrees in (-162.0, -126.0, -90.0, -54.0, -18.0):
        pen.line("glow", 0.13, around(0.0, 0.0, 0.72, degrees), around(0.0, 0.0, 1.12, degrees))
    pen.box("base", -0.52, -0.06, 0.52, 0.5)
    pen.dome("base", 0.0, 0.0, 0.52, 0.56)
    pen.curve("light", 0.12, (-0.3, 0.36), (-0.32, 0.0), (-0.18, -0.32))
    turn = 0.24 * (pose - 0.5)
    pen.polygon("glow", (turn - 0.14, 0.4), (turn + 0.14, 0.4), (turn + 0.22, -0.1), (turn - 0.22, -0.1))
    pen.disc("paper", turn, -0.06, 0.2)
    pen.polygon("tyre", (-0.66, 0.44), (0.66, 0.44), (0.84, 0.84), (-0.84, 0.84))
    pen.line("steel", 0.1, (-0.6, 0.5), (0.6, 0.5))


def clock(pen: Sketch, pose: float) -> None:
    """An alarm clock with two gongs and two feet."""
    for side in (-1.0, 1.0):
        pen.line("steel", 0.18, (side * 0.4, 0.5), (side * 0.66, 0.96))
        pen.ellipse("gold", side * 0.56, -0.74, 0.36, 0.24, side * 38)
    pen.line("steel", 0.12, (0.0, -0.7), (0.0, -1.0))
    pen.line("steel", 0.14, (-0.14, -1.0), (0.14, -1.0))
    pen.disc("base", 0.0, 0.1, 0.82)
    pen.disc("paper", 0.0, 0.1, 0.58)
    for degrees in (0.0, 90.0, 180.0, 270.0):
        pen.line("ink", 0.07, around(0.0, 0.1, 0.46, degrees), around(0.0, 0.1, 0.5, degrees))
    pen.line("ink", 0.13, (0.0, 0.1), around(0.0, 0.1, 0.27, 360 * pose + 75))
    pen.line("ink", 0.1, (0.0, 0.1), around(0.0, 0.1, 0.45, 1080 * pose - 60))


def windmill(pen: Sketch, pose: float) -> None:
    """A tower mill with four sails."""
    pen.polygon("base", (-0.36, -0.3), (0.36, -0.3), (0.6, 0.95), (-0.6, 0.95))
    pen.polygon("shade", (0.1, -0.3), (0.36, -0.3), (0.6, 0.95), (0.22, 0.95))
    pen.dome("shade", 0.0, -0.26, 0.46, 0.38)
    pen.dome("ink", 0.0, 0.95, 0.18, 0.42)
    for quarter in range(4):
        degrees = 90 * quarter + 20 + 50 * pose
        pen.line("wood", 0.09, (0.0, -0.28), around(0.0, -0.28, 1.08, degrees))
        near, far = around(0.0, -0.28, 0.3, degrees), around(0.0, -0.28, 1.1, degrees)
        middle, (across, down) = around(0.0, -0.28, 0.7, degrees), around(0.0, 0.0, 0.3, degrees + 90)
        pen.polygon("trim", near, far, (far[0] + across, far[1] + down), (near[0] + across, near[1] + down))
        pen.line("steel", 0.04, middle, (middle[0] + across, middle[1] + down))
    pen.disc("ink", 0.0, -0.28, 0.12)


def phone(pen: Sketch, pose: float) -> None:
    """A telephone with a dial and the receiver on top."""
    pen.blob("base", *both_sides((0.34, -0.3), (0.56, 0.1), (0.9, 0.7), (0.7, 0.84)))
    for x in (-0.34, 0.34):
        pen.line("shade", 0.16, (x, -0.2), (x, -0.5))
    receiver = (0.5, -0.82), (0.96, -0.62), (1.08, -0.36), (0.98, -0.16), (0.6, -0.2), (0.5, -0.46)
    pen.blob("base", *both_sides(*receiver))
    pen.curve("light", 0.08, (-0.86, -0.56), (-0.44, -0.7), (0.44, -0.7))
    pen.disc("paper", 0.0, 0.28, 0.4)
    for i in range(8):
        x, y = around(0.0, 0.28, 0.27, 45 * i + 40 * pose)
        pen.disc("ink", x, y, 0.07)
    pen.disc("shade", 0.0, 0.28, 0.13)


def saw(pen: Sketch, pose: float) -> None:
    """A hand saw: a coloured blade with teeth below and a wooden handle on the left."""
    slope = 0.1 * pose
    top, tip = (-0.5, -0.46), (1.15, -0.14 - slope)
    teeth = ((1.15 - 1.65 * (i / 12), 0.2 - slope + (0.16 + slope) * (i / 12) + 0.24 * (i % 2)) for i in range(13))
    pen.polygon("base", top, tip, *teeth)
    pen.polygon("light", top, tip, (1.15, -0.04 - slope), (-0.5, -0.28))
    pen.blob(
        "wood", (-1.1, -0.5), (-0.66, -0.6), (-0.4, -0.44), (-0.4, 0.34), (-0.56, 0.6), (-1.0, 0.58), (-1.16, 0.36),
        (-0.98, 0.0),
    )  # fmt: skip
    pen.ellipse("ink", -0.74, 0.02, 0.13, 0.29)
    pen.disc("gold", -0.5, -0.38, 0.06)


def kettle(pen: Sketch, pose: float) -> None:
    """A kettle with spout, lid and a high handle, steaming."""
    pen.arc("tyre", 0.13, 0.0, -0.42, 0.62, 165.0, 375.0)
    pen.polygon("shade", (0.4, 0.1), (0.86, -0.28), (0.82, -0.44), (1.12, -0.42), (1.06, -0.2), (0.6, 0.56))
    lift = 0.08 * pose
    for x, y, radius in ((1.02, -0.6, 0.08), (0.94, -0.84, 0.14), (1.2, -0.8, 0.14), (1.04, -0.98, 0.15)):
        pen.disc("steam", x, y - lift, radius + 0.2 * lift)
    pen.blob("base", *both_sides((0.5, -0.3), (0.78, 0.2), (0.76, 0.74), (0.4, 0.88)))
    pen.ellipse("shade", 0.0, -0.3, 0.5, 0.1)
    pen.disc("tyre", 0.0, -0.42, 0.1)
    pen.curve("light", 0.14, (-0.42, -0.06), (-0.56, 0.24), (-0.54, 0.54))
    pen.line("shade", 0.1, (-0.66, 0.8), (0.66, 0.8))


def robot(pen: Sketch, pose: float) -> None:
    """A square robot with an aerial and lit eyes."""
    pen.line("steel", 0.08, (0.0, -0.8), (0.0, -1.06))
    pen.disc("glow", 0.0, -1.08, 0.12)
    for side in (-1.0, 1.0):
        hand = 0.56 - 0.7 * pose if side > 0 else 0.56
        pen.line("steel", 0.14, (side * 0.46, 0.06), (side * 0.78, 0.2), (side * 0.84, hand))
        pen.disc("shade", side * 0.84, hand, 0.14)
        pen.line("steel", 0.18, (side * 0.24, 0.6), (side * 0.24, 0.92))
        pen.box("shade", side * 0.28 - 0.2, 0.86, side * 0.28 + 0.2, 1.04)
    pen.box("base", -0.5, -0.1, 0.5, 0.68)
    pen.box("light", -0.32, 0.1, 0.32, 0.46)
    for x, tone in ((-0.17, "drop"), (0.0, "gold"), (0.17, "ink")):
        pen.disc(tone, x, 0.28, 0.075)
    pen.box("steel", -0.14, -0.2, 0.14, -0.08)
    pen.box("base", -0.6, -0.84, 0.6, -0.18)
    pen.box("ink", -0.46, -0.72, 0.46, -0.3)
    for x in (-0.22, 0.22):
        pen.disc("glow", x, -0.56, 0.13)
    pen.line("paper", 0.06, (-0.2, -0.38), (0.2, -0.38))

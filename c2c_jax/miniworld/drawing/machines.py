"""Vehicles, machines and tools. pose: 0 to 1, what may differ from one to the next."""

from c2c_jax.miniworld.drawing.sketch import Sketch, around


def car(pen: Sketch, pose: float) -> None:
    """A car from the side."""
    back = 0.2 * pose
    pen.blob("base", (-0.66 - back, -0.02), (-0.4 - back, -0.5), (0.0, -0.6), (0.34, -0.5), (0.62, -0.06), (0.0, 0.1))
    pen.polygon("glass", (-0.52 - back, -0.04), (-0.34 - back, -0.4), (-0.06, -0.46), (-0.06, -0.04))
    pen.polygon("glass", (0.04, -0.04), (0.04, -0.46), (0.28, -0.4), (0.48, -0.04))
    pen.blob(
        "base",
        (-1.0, -0.08),
        (-0.4, -0.08),
        (0.6, -0.08),
        (1.02, 0.1),
        (1.08, 0.4),
        (0.6, 0.44),
        (-0.6, 0.44),
        (-1.08, 0.4),
    )
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
    """A warning light on its base, sending rays."""
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
    """A telephone with a dial, its receiver on top."""
    pen.blob(
        "base",
        (-0.34, -0.3),
        (0.34, -0.3),
        (0.56, 0.1),
        (0.9, 0.7),
        (0.7, 0.84),
        (-0.7, 0.84),
        (-0.9, 0.7),
        (-0.56, 0.1),
    )
    for x in (-0.34, 0.34):
        pen.line("shade", 0.16, (x, -0.2), (x, -0.5))
    pen.blob(
        "base",
        (-1.08, -0.36),
        (-0.96, -0.62),
        (-0.5, -0.82),
        (0.5, -0.82),
        (0.96, -0.62),
        (1.08, -0.36),
        (0.98, -0.16),
        (0.6, -0.2),
        (0.5, -0.46),
        (-0.5, -0.46),
        (-0.6, -0.2),
        (-0.98, -0.16),
    )
    pen.curve("light", 0.08, (-0.86, -0.56), (-0.44, -0.7), (0.44, -0.7))
    pen.disc("paper", 0.0, 0.28, 0.4)
    for i in range(8):
        x, y = around(0.0, 0.28, 0.27, 45 * i + 40 * pose)
        pen.disc("ink", x, y, 0.07)
    pen.disc("shade", 0.0, 0.28, 0.13)


def saw(pen: Sketch, pose: float) -> None:
    """A hand saw: a coloured blade with teeth below and a wooden handle on the left."""
    slope = 0.1 * pose
    top, tip, teeth = (-0.5, -0.46), (1.15, -0.14 - slope), 6
    lower = []
    for i in range(2 * teeth + 1):
        along = i / (2 * teeth)
        lower.append((1.15 - 1.65 * along, 0.2 - slope + (0.16 + slope) * along + (0.24 if i % 2 else 0.0)))
    pen.polygon("base", top, tip, *lower)
    pen.polygon("light", top, tip, (1.15, -0.04 - slope), (-0.5, -0.28))
    pen.blob(
        "wood",
        (-1.1, -0.5),
        (-0.66, -0.6),
        (-0.4, -0.44),
        (-0.4, 0.34),
        (-0.56, 0.6),
        (-1.0, 0.58),
        (-1.16, 0.36),
        (-0.98, 0.0),
    )
    pen.ellipse("ink", -0.74, 0.02, 0.13, 0.29)
    pen.disc("gold", -0.5, -0.38, 0.06)


def kettle(pen: Sketch, pose: float) -> None:
    """A kettle with spout, lid and a high handle, steaming."""
    pen.arc("tyre", 0.13, 0.0, -0.42, 0.62, 165.0, 375.0)
    pen.polygon("shade", (0.4, 0.1), (0.86, -0.28), (0.82, -0.44), (1.12, -0.42), (1.06, -0.2), (0.6, 0.56))
    lift = 0.08 * pose
    for x, y, radius in ((1.02, -0.6, 0.08), (0.94, -0.84, 0.14), (1.2, -0.8, 0.14), (1.04, -0.98, 0.15)):
        pen.disc("steam", x, y - lift, radius + 0.2 * lift)
    pen.blob(
        "base",
        (-0.5, -0.3),
        (0.5, -0.3),
        (0.78, 0.2),
        (0.76, 0.74),
        (0.4, 0.88),
        (-0.4, 0.88),
        (-0.76, 0.74),
        (-0.78, 0.2),
    )
    pen.ellipse("shade", 0.0, -0.3, 0.5, 0.1)
    pen.disc("tyre", 0.0, -0.42, 0.1)
    pen.curve("light", 0.14, (-0.42, -0.06), (-0.56, 0.24), (-0.54, 0.54))
    pen.line("shade", 0.1, (-0.66, 0.8), (0.66, 0.8))


def robot(pen: Sketch, pose: float) -> None:
    """Standing, square, with an aerial and lit eyes."""
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

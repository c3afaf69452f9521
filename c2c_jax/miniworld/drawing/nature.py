"""Drawings of animals, weather and fire. pose: 0 to 1, varies between things of one source."""

from c2c_jax.miniworld.drawing.sketch import Sketch


def bird(pen: Sketch, pose: float) -> None:
    """A standing songbird from the side."""
    lift = 0.35 * pose
    for x in (-0.12, 0.16):
        pen.line("beak", 0.09, (x, 0.5), (x, 0.86), (x + 0.16, 0.88))
    pen.polygon("shade", (-0.45, 0.0), (-1.15, -0.1 - lift), (-1.08, 0.18 - lift), (-0.4, 0.35))
    pen.blob("base", (0.3, -0.62), (0.62, -0.3), (0.55, 0.2), (0.1, 0.58), (-0.4, 0.42), (-0.55, 0.1), (-0.1, -0.25))
    pen.disc("base", 0.38, -0.42, 0.38)
    pen.polygon("beak", (0.68, -0.58), (1.12, -0.36), (0.66, -0.24))
    pen.blob("light", (0.5, -0.12), (0.5, 0.2), (0.15, 0.5), (-0.05, 0.42), (0.25, 0.15))
    pen.blob("shade", (0.1, -0.12), (0.2, 0.2), (-0.25, 0.42 - lift), (-0.75, 0.3 - 2 * lift), (-0.3, -0.1))
    pen.disc("paper", 0.47, -0.5, 0.14)
    pen.disc("ink", 0.5, -0.5, 0.085)


def bee(pen: Sketch, pose: float) -> None:
    """A bee: a striped body and two wings."""
    beat = 18 * pose
    pen.ellipse("glass", -0.28, -0.58, 0.25, 0.52, -22 - beat)
    pen.ellipse("paper", 0.14, -0.6, 0.27, 0.56, 10 + beat)
    pen.polygon("mark", (-0.8, 0.1), (-1.12, 0.26), (-0.8, 0.34))
    pen.ellipse("base", -0.12, 0.2, 0.8, 0.47)
    for x, high in ((-0.6, 0.36), (-0.22, 0.46), (0.16, 0.44)):
        sides = (x + 0.09, 0.2 - high), (x + 0.12, 0.2), (x + 0.09, 0.2 + high)
        pen.blob("mark", (x - 0.09, 0.2 - high), *sides, (x - 0.09, 0.2 + high), (x - 0.06, 0.2))
    pen.curve("ink", 0.08, (0.72, 0.0), (0.8, -0.36), (1.0, -0.48))
    pen.curve("ink", 0.08, (0.84, 0.0), (1.0, -0.2), (1.2, -0.22))
    pen.disc("base", 0.68, 0.14, 0.33)
    pen.disc("paper", 0.78, 0.08, 0.13)
    pen.disc("ink", 0.81, 0.08, 0.08)


def dog(pen: Sketch, pose: float) -> None:
    """A standing dog with a hanging ear, a long snout and a raised tail."""
    pen.curve("base", 0.17, (-0.72, 0.0), (-0.98, -0.22), (-1.05 + 0.3 * pose, -0.62))
    pen.line("shade", 0.2, (-0.42, 0.3), (-0.4, 0.86))
    pen.line("shade", 0.2, (0.08, 0.3), (0.05, 0.86))
    pen.blob("base", (-0.82, -0.06), (-0.3, -0.16), (0.2, -0.25), (0.5, 0.0), (0.34, 0.42), (-0.3, 0.36), (-0.76, 0.44))
    pen.line("base", 0.23, (-0.68, 0.3), (-0.7, 0.87), (-0.6, 0.87))
    pen.line("base", 0.23, (0.3, 0.3), (0.32, 0.87), (0.42, 0.87))
    pen.blob("base", (0.18, -0.82), (0.55, -0.92), (0.78, -0.66), (0.74, -0.24), (0.4, -0.06), (0.1, -0.3))
    pen.ellipse("light", 0.84, -0.42, 0.31, 0.2, 6.0)
    pen.disc("ink", 1.08, -0.52, 0.11)
    pen.line("ink", 0.05, (0.72, -0.3), (1.02, -0.3))
    pen.line("glow", 0.12, (0.2, -0.14), (0.56, 0.02))
    pen.disc("paper", 0.6, -0.64, 0.14)
    pen.disc("ink", 0.63, -0.64, 0.09)
    pen.blob("shade", (0.12, -0.86), (0.32, -0.74), (0.32, -0.36), (0.16, -0.08), (-0.06, -0.24), (0.0, -0.64))


def cat(pen: Sketch, pose: float) -> None:
    """A sitting cat from the front, with pointed ears, whiskers and a curled tail."""
    pen.curve("shade", 0.17, (0.3, 0.84), (0.82, 0.8), (0.9, 0.4), (0.68 + 0.3 * pose, 0.08))
    pen.blob("base", (0.0, -0.1), (0.4, 0.2), (0.54, 0.75), (0.3, 0.95), (-0.3, 0.95), (-0.54, 0.75), (-0.4, 0.2))
    pen.blob("light", (0.0, 0.1), (0.2, 0.35), (0.16, 0.7), (-0.16, 0.7), (-0.2, 0.35))
    pen.line("shade", 0.06, (-0.12, 0.6), (-0.12, 0.92))
    pen.line("shade", 0.06, (0.12, 0.6), (0.12, 0.92))
    for side in (-1.0, 1.0):
        pen.polygon("base", (side * 0.6, -0.4), (side * 0.6, -1.16), (side * 0.08, -0.7))
        pen.polygon("pink", (side * 0.5, -0.66), (side * 0.5, -0.97), (side * 0.26, -0.74))
    pen.ellipse("base", 0.0, -0.42, 0.64, 0.47)
    for side in (-1.0, 1.0):
        pen.ellipse("glow", side * 0.27, -0.5, 0.15, 0.15)
        pen.ellipse("ink", side * 0.27, -0.5, 0.06, 0.14)
        for tilt in (-0.1, 0.1):
            pen.line("mark", 0.045, (side * 0.22, -0.24), (side * 0.86, -0.26 + tilt))
    pen.polygon("pink", (-0.11, -0.34), (0.11, -0.34), (0.0, -0.2))


def cow(pen: Sketch, pose: float) -> None:
    """A cow with patches, horns, a pink muzzle and an udder."""
    pen.line("shade", 0.08, (-0.86, -0.3), (-1.06, 0.0), (-1.02 - 0.06 * pose, 0.36))
    pen.disc("mark", -1.02 - 0.06 * pose, 0.42, 0.1)
    pen.line("shade", 0.19, (-0.5, 0.3), (-0.5, 0.86))
    pen.line("shade", 0.19, (0.22, 0.3), (0.22, 0.86))
    pen.ellipse("pink", -0.28, 0.42, 0.2, 0.2)
    pen.blob(
        "base", (-0.9, -0.36), (-0.4, -0.42), (0.2, -0.42), (0.5, -0.3), (0.5, 0.25), (0.0, 0.4), (-0.5, 0.36),
        (-0.86, 0.4),
    )  # fmt: skip
    for x in (-0.74, 0.42):
        pen.line("base", 0.2, (x, 0.2), (x, 0.84))
        pen.line("ink", 0.2, (x, 0.83), (x, 0.87))
    pen.blob("patch", (-0.62, -0.4), (-0.2, -0.4), (-0.16, -0.1), (-0.42, 0.06), (-0.66, -0.1))
    pen.blob("patch", (0.06, 0.0), (0.3, -0.06), (0.34, 0.2), (0.1, 0.3), (-0.06, 0.16))
    drop = 0.14 * pose
    for x, lean in ((0.5, -0.1), (0.86, 0.12)):
        pen.curve("paper", 0.1, (x, -0.6 + drop), (x + lean, -0.8 + drop), (x + 0.6 * lean, -0.98 + drop))
    pen.ellipse("shade", 0.36, -0.5 + drop, 0.2, 0.1, 15.0)
    pen.ellipse("shade", 1.02, -0.5 + drop, 0.18, 0.1, -15.0)
    head = (0.46, -0.68), (0.9, -0.68), (0.94, -0.3), (0.86, 0.05), (0.52, 0.05), (0.44, -0.3)
    pen.blob("base", *((x, y + drop) for x, y in head))
    pen.ellipse("pink", 0.69, 0.0 + drop, 0.28, 0.19)
    for x in (0.58, 0.8):
        pen.disc("ink", x, 0.0 + drop, 0.055)
        pen.disc("paper", x, -0.4 + drop, 0.1)
        pen.disc("ink", x, -0.39 + drop, 0.065)


def frog(pen: Sketch, pose: float) -> None:
    """A sitting frog from the front, with eyes above a wide mouth, and knees at the sides."""
    out = 0.1 * pose
    for side in (-1.0, 1.0):
        pen.ellipse("shade", side * (0.74 + out), 0.42, 0.28, 0.42, side * 24)
        pen.ellipse("shade", side * (0.8 + out), 0.8, 0.32, 0.11)
    pen.blob("base", (0.0, -0.3), (0.55, 0.0), (0.6, 0.5), (0.3, 0.84), (-0.3, 0.84), (-0.6, 0.5), (-0.55, 0.0))
    pen.ellipse("light", 0.0, 0.5, 0.4, 0.32)
    for side in (-1.0, 1.0):
        pen.line("base", 0.15, (side * 0.38, 0.4), (side * 0.3, 0.84), (side * 0.46, 0.86))
        pen.disc("base", side * 0.42, -0.54, 0.3)
    pen.ellipse("base", 0.0, -0.16, 0.84, 0.42)
    for side in (-1.0, 1.0):
        pen.disc("paper", side * 0.42, -0.58, 0.21)
        pen.disc("ink", side * 0.42, -0.56, 0.12)
        pen.disc("mark", side * 0.1, -0.22, 0.04)
    pen.curve("mark", 0.08, (-0.62, -0.08), (-0.3, 0.1), (0.3, 0.1), (0.62, -0.08))


def cricket(pen: Sketch, pose: float) -> None:
    """A cricket: a long body, a folded hind leg, and feelers swept back."""
    knee = -1.0 + 0.2 * pose
    pen.curve("shade", 0.07, (0.86, -0.1), (1.14, -0.56), (1.56, -0.8))
    pen.curve("shade", 0.07, (0.94, -0.04), (1.26, -0.26), (1.68, -0.34))
    for x in (0.12, 0.52):
        pen.line("shade", 0.1, (x, 0.18), (x + 0.24, 0.44), (x + 0.12, 0.7))
    pen.blob("base", (-1.15, 0.24), (-0.4, -0.08), (0.4, -0.2), (0.74, -0.04), (0.6, 0.24), (0.0, 0.36), (-0.6, 0.34))
    pen.blob("light", (-0.95, 0.18), (-0.3, -0.04), (0.34, -0.12), (0.2, 0.04), (-0.3, 0.16))
    pen.ellipse("base", 0.82, 0.02, 0.24, 0.27)
    pen.disc("mark", 0.88, -0.04, 0.1)
    pen.line("shade", 0.11, (-0.54, knee), (-1.04, 0.68), (-0.84, 0.72))
    pen.polygon("shade", (0.3, 0.04), (-0.46, knee - 0.08), (-0.62, knee + 0.04), (-0.06, 0.36))


def rain(pen: Sketch, pose: float) -> None:
    """A cloud with drops falling from it."""
    for i, x in enumerate((-0.62, -0.2, 0.22, 0.64)):
        y = 0.34 + 0.2 * ((i + round(7 * pose)) % 2)
        drop = (-0.02, -0.26), (0.08, 0.06), (0.02, 0.24), (-0.12, 0.24), (-0.17, 0.08)
        pen.blob("drop", *((x + across, y + down) for across, down in drop))
    pen.disc("shade", 0.56, -0.2, 0.4)
    pen.disc("base", -0.58, -0.18, 0.38)
    pen.disc("base", -0.08, -0.46, 0.5)
    pen.disc("base", 0.46, -0.26, 0.38)
    pen.blob("base", (-0.7, -0.2), (0.7, -0.2), (0.86, 0.0), (0.7, 0.2), (-0.7, 0.2), (-0.9, 0.0))
    pen.line("shade", 0.12, (-0.66, 0.14), (0.68, 0.14))
    pen.curve("light", 0.1, (-0.4, -0.5), (-0.2, -0.76), (0.08, -0.8))


def lightning(pen: Sketch, pose: float) -> None:
    """A coloured bolt of lightning under a thin dark cloud."""
    kink = 0.12 * (pose - 0.5)
    left, right = ((-0.08, 0.16), (-0.66 + kink, 0.16)), ((0.18 + kink, -0.2), (0.72 + kink, -0.2))
    pen.polygon("base", (-0.2, -0.8), (0.5, -0.8), *right, (-0.42, 1.1), *left)
    pen.polygon("light", (-0.06, -0.8), (0.16, -0.8), (-0.3 + kink, 0.04), (-0.5 + kink, 0.04))
    for x in (-0.38, 0.44):
        pen.ellipse("cloud", x, -0.84, 0.36, 0.17)
    pen.disc("cloud", -0.14, -0.98, 0.24)
    pen.disc("cloud", 0.24, -0.94, 0.2)


def fire(pen: Sketch, pose: float) -> None:
    """Flames with a bright core over crossed logs."""
    sway = 0.2 * (pose - 0.5)
    pen.blob(
        "base", (0.05 + sway, -1.1), (0.2, -0.66), (0.4, -0.4), (0.56 - sway, -0.62), (0.74, -0.1), (0.66, 0.4),
        (0.3, 0.66), (-0.3, 0.66), (-0.68, 0.4), (-0.74, -0.06), (-0.54 - sway, -0.5), (-0.36, -0.3), (-0.16, -0.62),
    )  # fmt: skip
    pen.blob(
        "gold", (0.04 + sway, -0.5), (0.26, -0.1), (0.42, 0.2), (0.26, 0.6), (-0.26, 0.6), (-0.42, 0.2), (-0.2, -0.1),
    )  # fmt: skip
    pen.blob("paper", (0.0, 0.0), (0.2, 0.34), (0.1, 0.58), (-0.1, 0.58), (-0.2, 0.34))
    pen.line("wood", 0.24, (-0.74, 0.9), (0.7, 0.62))
    pen.line("wood", 0.24, (-0.7, 0.62), (0.74, 0.9))
    pen.disc("pale wood", 0.74, 0.9, 0.1)
    pen.disc("pale wood", -0.74, 0.9, 0.1)

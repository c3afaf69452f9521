"""Musical instruments and the bell. pose: 0 to 1, what may differ from one to the next."""

from c2c_jax.miniworld.drawing.sketch import Sketch


def bell(pen: Sketch, pose: float) -> None:
    """Hanging by a loop, with a wide rim and its clapper below."""
    swing = 0.24 * (pose - 0.5)
    pen.arc("steel", 0.15, 0.0, -0.84, 0.17, 0.0, 360.0)
    pen.disc("gold", swing, 0.8, 0.22)
    pen.blob(
        "base",
        (-0.3, -0.66),
        (0.3, -0.66),
        (0.52, -0.2),
        (0.62, 0.26),
        (0.9, 0.6),
        (0.5, 0.68),
        (-0.5, 0.68),
        (-0.9, 0.6),
        (-0.62, 0.26),
        (-0.52, -0.2),
    )
    pen.blob("shade", (0.16, -0.64), (0.34, -0.6), (0.54, -0.18), (0.64, 0.26), (0.82, 0.52), (0.34, 0.52), (0.3, 0.0))
    pen.curve("light", 0.13, (-0.26, -0.42), (-0.36, -0.05), (-0.42, 0.28))
    pen.line("gold", 0.14, (-0.82, 0.62), (0.82, 0.62))


def drum(pen: Sketch, pose: float) -> None:
    """A snare drum from slightly above, corded, with two sticks."""
    pen.blob("base", (-0.8, -0.2), (0.8, -0.2), (0.8, 0.5), (0.5, 0.78), (0.0, 0.84), (-0.5, 0.78), (-0.8, 0.5))
    pen.polygon("base", (-0.84, -0.2), (0.84, -0.2), (0.84, 0.56), (-0.84, 0.56))
    zigzag = [(-0.8, 0.0), (-0.55, 0.66), (-0.28, 0.14), (0.0, 0.76), (0.28, 0.14), (0.55, 0.66), (0.8, 0.0)]
    pen.line("trim", 0.08, *zigzag)
    pen.curve("gold", 0.12, (-0.84, 0.54), (-0.45, 0.76), (0.0, 0.82), (0.45, 0.76), (0.84, 0.54))
    pen.ellipse("gold", 0.0, -0.2, 0.88, 0.34)
    pen.ellipse("paper", 0.0, -0.22, 0.76, 0.25)
    for side in (-1.0, 1.0):
        tip = side * (0.1 + 0.12 * pose)
        pen.line("wood", 0.12, (tip, -0.24), (side * 0.8, -0.92))
        pen.disc("wood", tip, -0.24, 0.12)


def trumpet(pen: Sketch, pose: float) -> None:
    """Lying, its bell to the right, with a loop of tube and three valves."""
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
        "base",
        (0.2, -0.08),
        (0.6, -0.14),
        (0.9, -0.36),
        (1.08, -0.64),
        (1.14, 0.0),
        (1.08, 0.64),
        (0.9, 0.36),
        (0.6, 0.14),
        (0.2, 0.08),
    )
    pen.ellipse("shade", 1.06, 0.0, 0.14, 0.6)
    pen.line("light", 0.06, (-0.8, -0.03), (0.5, -0.03))


def piano(pen: Sketch, pose: float) -> None:
    """An upright piano from the front, its keys large."""
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
    """Leaning, its body below on the left."""
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

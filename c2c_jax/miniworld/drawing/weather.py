"""Rain, lightning and fire. pose: 0 to 1, what may differ from one to the next."""

from c2c_jax.miniworld.drawing.sketch import Sketch


def rain(pen: Sketch, pose: float) -> None:
    """A cloud with drops falling from it."""
    for i, x in enumerate((-0.62, -0.2, 0.22, 0.64)):
        y = 0.34 + 0.2 * ((i + round(7 * pose)) % 2)
        pen.blob(
            "drop",
            (x - 0.02, y - 0.26),
            (x + 0.08, y + 0.06),
            (x + 0.02, y + 0.24),
            (x - 0.12, y + 0.24),
            (x - 0.17, y + 0.08),
        )
    pen.disc("shade", 0.56, -0.2, 0.4)
    pen.disc("base", -0.58, -0.18, 0.38)
    pen.disc("base", -0.08, -0.46, 0.5)
    pen.disc("base", 0.46, -0.26, 0.38)
    pen.blob("base", (-0.7, -0.2), (0.7, -0.2), (0.86, 0.0), (0.7, 0.2), (-0.7, 0.2), (-0.9, 0.0))
    pen.line("shade", 0.12, (-0.66, 0.14), (0.68, 0.14))
    pen.curve("light", 0.1, (-0.4, -0.5), (-0.2, -0.76), (0.08, -0.8))


def lightning(pen: Sketch, pose: float) -> None:
    """A bolt, coloured, out of a thin dark cloud."""
    kink = 0.12 * (pose - 0.5)
    pen.polygon(
        "base",
        (-0.2, -0.8),
        (0.5, -0.8),
        (0.18 + kink, -0.2),
        (0.72 + kink, -0.2),
        (-0.42, 1.1),
        (-0.08, 0.16),
        (-0.66 + kink, 0.16),
    )
    pen.polygon("light", (-0.06, -0.8), (0.16, -0.8), (-0.3 + kink, 0.04), (-0.5 + kink, 0.04))
    for x, wide, high in ((-0.38, 0.36, 0.17), (0.44, 0.36, 0.17)):
        pen.ellipse("cloud", x, -0.84, wide, high)
    pen.disc("cloud", -0.14, -0.98, 0.24)
    pen.disc("cloud", 0.24, -0.94, 0.2)


def fire(pen: Sketch, pose: float) -> None:
    """Flames with a bright core over crossed logs."""
    sway = 0.2 * (pose - 0.5)
    pen.blob(
        "base",
        (0.05 + sway, -1.1),
        (0.2, -0.66),
        (0.4, -0.4),
        (0.56 - sway, -0.62),
        (0.74, -0.1),
        (0.66, 0.4),
        (0.3, 0.66),
        (-0.3, 0.66),
        (-0.68, 0.4),
        (-0.74, -0.06),
        (-0.54 - sway, -0.5),
        (-0.36, -0.3),
        (-0.16, -0.62),
    )
    pen.blob(
        "gold", (0.04 + sway, -0.5), (0.26, -0.1), (0.42, 0.2), (0.26, 0.6), (-0.26, 0.6), (-0.42, 0.2), (-0.2, -0.1)
    )
    pen.blob("paper", (0.0, 0.0), (0.2, 0.34), (0.1, 0.58), (-0.1, 0.58), (-0.2, 0.34))
    pen.line("wood", 0.24, (-0.74, 0.9), (0.7, 0.62))
    pen.line("wood", 0.24, (-0.7, 0.62), (0.74, 0.9))
    pen.disc("pale wood", 0.74, 0.9, 0.1)
    pen.disc("pale wood", -0.74, 0.9, 0.1)

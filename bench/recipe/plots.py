"""The study's two pictures: captions against pictures along training, and the frontier of seen and unseen cells."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.recipe.scores import Summary

Figures = Mapping[str, Mapping[str, Summary]]  # a row's name → its figures
Look = tuple[str, str, str]  # words, colour, marker

CURVES: dict[str, Look] = {
    "plain": ("plain", "tab:red", "o"),
    "plain_memory": ("plain, caption memory", "tab:orange", "s"),
    "noise": ("noise", "tab:blue", "o"),
    "noise_memory": ("noise, caption memory", "tab:cyan", "s"),
    "cosine": ("noise, cosine distance", "tab:olive", "o"),
    "cosine_memory": ("noise, cosine distance, caption memory", "tab:green", "s"),
}
PATHS: dict[str, Look] = {
    "shipped": ("recommended recipe, by its memory's share", "tab:green", "o"),
    "nearest_caption": ("nearest captions, by temperature", "tab:purple", "s"),
}
POINTS: dict[str, Look] = {
    "paper": ("the paper's recipe", "black", "X"),
    "plain": ("plain translator", "tab:red", "D"),
    "noise": ("noise", "tab:blue", "D"),
    "cosine": ("noise, cosine distance", "tab:olive", "D"),
    "label_prompts": ("label prompts (knows the cells)", "tab:brown", "^"),
    "oracle_ridge": ("oracle of pairs, ridge", "dimgray", "v"),
    "oracle_residual": ("oracle of pairs, translator", "darkgray", "v"),
}


def draw_curves(path: Path, figures: Figures) -> None:
    """Captions' recall@1 against pictures' cells, a line a recipe, along its epochs (rows `NAME@EPOCHS`)."""
    plot = _Plot("captions: recall@1", "pictures whose nearest sound is of their cell")
    for name, look in CURVES.items():
        plot.line(name, look, figures, ("caption_recall@1", "cell"), ends_alone=False)
    plot.save(path, "Trained longer: captions and pictures (numbers: epochs)")


def draw_frontier(path: Path, figures: Figures) -> None:
    """Cells that training has seen against cells held out: lines of rows `NAME@VALUE`, and single rows."""
    plot = _Plot("pictures of cells that captions tell of", "pictures of held-out cells")
    for name, look in PATHS.items():
        plot.line(name, look, figures, ("cell_seen", "cell_held_out"), ends_alone=True)
    for name, look in POINTS.items():
        x, y = (figures[name][measure] for measure in ("cell_seen", "cell_held_out"))
        plot.points([x], [y], look, markersize=8, linestyle="none")
    plot.save(path, "Pictures whose nearest sound is of their cell (numbers: share, temperature)")


def along(figures: Figures, name: str) -> list[str]:
    """The values of a line's rows, in their order."""
    return sorted((row.partition("@")[2] for row in figures if row.startswith(f"{name}@")), key=float)


class _Plot:
    """Lines and points with bars of a standard deviation, a legend beside them, and values where there is room."""

    def __init__(self, x: str, y: str):
        from matplotlib.figure import Figure  # takes a while

        self.figure = Figure(figsize=(10, 5.5), layout="constrained")
        self.axes = self.figure.subplots()
        self.axes.set(xlabel=x, ylabel=y)
        self.drawn: list[np.ndarray] = []  # [points, 2] of each line
        self.told: list[tuple[str, np.ndarray, str]] = []  # a value, where it belongs, its colour

    def points(self, x: Sequence[Summary], y: Sequence[Summary], look: Look, **style: Any) -> None:
        words, colour, marker = look
        self.drawn.append(np.array([[one.mean for one in side] for side in (x, y)]).T)
        bars = {"xerr": [one.spread for one in x], "yerr": [one.spread for one in y], "elinewidth": 0.6}
        self.axes.errorbar(*self.drawn[-1].T, **bars, color=colour, marker=marker, label=words, **style)

    def line(self, name: str, look: Look, figures: Figures, measures: tuple[str, str], *, ends_alone: bool) -> None:
        """Through rows `NAME@VALUE` by their values."""
        values = along(figures, name)
        x, y = ([figures[f"{name}@{value}"][measure] for value in values] for measure in measures)
        self.points(x, y, look, markersize=5, linewidth=1.5)
        ends = {0, len(values) - 1}
        told = [(value, at, look[1]) for value, at in zip(values, self.drawn[-1], strict=True)]
        self.told += [one for number, one in enumerate(told) if number in ends]
        if not ends_alone:
            self.told += [one for number, one in enumerate(told) if number not in ends]

    def save(self, path: Path, title: str) -> None:
        most_x, most_y = np.concatenate(self.drawn).max(axis=0)
        self.axes.set(xlim=(0, 1.08 * most_x), ylim=(0, 1.08 * most_y))
        self.axes.set_title(f"{title}\nbars: ± standard deviation over seeds × drawings", fontsize=11)
        self.axes.grid(alpha=0.3)
        self.axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9, frameon=False)
        self.figure.draw_without_rendering()  # so that places in pixels are known
        self._tell()
        self.figure.savefig(path, dpi=self.figure.dpi * 1.2, format="png")

    def _tell(self) -> None:
        """Writes each value beside its point, where nothing else is; one that has no such place is left out."""
        taken = np.concatenate([self._dense(line) for line in self.drawn])
        for value, at, colour in self.told:
            width, height = 7.0 * len(value), 10.0
            for right, up in itertools.product((9, -9 - width), (6, -6 - height)):
                corner = self.axes.transData.transform(at) + (right, up)
                box = (taken > corner - 3) & (taken < corner + (width, height) + np.array(3))
                if not box.all(axis=1).any():
                    self.axes.annotate(
                        value, at, xytext=(right, up), textcoords="offset pixels", color=colour, fontsize=8
                    )  # fmt: skip
                    inside = np.linspace(corner, corner + (width, height), 5)
                    taken = np.concatenate(
                        [taken, *(np.column_stack([inside[:, 0], y * np.ones(5)]) for y in inside[:, 1])]
                    )
                    break

    def _dense(self, line_P2: np.ndarray) -> np.ndarray:
        """Points along a line in pixels, close to each other."""
        corners = self.axes.transData.transform(line_P2)
        parts = [np.linspace(*ends, 60) for ends in itertools.pairwise(corners)]
        return np.concatenate([corners, *parts])

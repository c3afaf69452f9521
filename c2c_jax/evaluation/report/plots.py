"""Plots as inline SVG with the colours and fonts of the page, in light and dark mode.

matplotlib draws in the light page's colours. Each colour is then replaced by a variable of the page's style sheet, with
the colour itself as fallback.
"""

import contextlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from c2c_jax.config import PERTURBED_COSINE, PERTURBED_MRR
from c2c_jax.evaluation.results import Row

# Colours of the page in light mode by variable, from the first block of its style sheet.
STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
COLOURS = dict(re.findall(r"--([\w-]+): (#\w{6});", STYLE.partition("}")[0]))
del COLOURS["paper"], COLOURS["card"]  # backgrounds are the page's
KINDS = {  # of vectors: their colour and label
    "source_image": ("images", "images, CLIP"),
    "source_text": ("captions", "captions, CLIP"),
    "target_audio": ("audio", "sounds, CLAP"),
    "target_text": ("texts", "captions, CLAP"),
    "translated_text": ("translated", "captions, translated"),
    "translated_image": ("translated-images", "images, translated"),
}
BEFORE = ("source_text", "source_image", "target_text", "target_audio")
AFTER = ("target_text", "target_audio", "translated_text", "translated_image")
PAIRS = (  # row i of both is the same caption, or the same pair
    ("source_text", "target_text"),
    ("source_image", "target_audio"),
    ("translated_text", "target_text"),
    ("translated_image", "target_audio"),
)
VALIDATION_RECALLS = ("recall@10", "recall@5", "recall@1")
OURS = "translator"  # the highlighted method
MAX_DRAWN, MAX_LINKED, MAX_BATCH = 250, 24, 32  # points of each kind; pairs joined by a line; rows of the matrix
MAX_POINTS = 400  # of a curve
WIDTH_INCHES = 4.7  # of 72 points, narrow enough that phones show the font in its real size
FONT_SIZE = 11.0  # points

ElementTree.register_namespace("", "http://www.w3.org/2000/svg")
ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")


def plane(name: str, vectors: Mapping[str, Float[np.ndarray, "_ _"]], kinds: Sequence[str]) -> str:
    """Draws vectors on their two principal axes, with lines between some pairs. kinds: those to draw, if available.
    name: unique on the page."""
    present = [kind for kind in kinds if kind in vectors]
    groups, fractions = principal_plane([vectors[kind] for kind in present])
    points = dict(zip(present, groups, strict=True))
    with _figure(name, 3.6) as (figure, axes):
        for first, second in PAIRS:
            if first in points and second in points:
                for a, b in zip(points[first][:MAX_LINKED], points[second][:MAX_LINKED], strict=False):
                    axes.plot(*zip(a, b, strict=True), color=COLOURS["quiet"], linewidth=0.5, alpha=0.5)
        for kind in present:
            x, y = points[kind][:MAX_DRAWN].T
            axes.plot(x, y, "o", color=COLOURS[KINDS[kind][0]], markersize=3.2, markeredgewidth=0, alpha=0.75)
        axes.set(xlabel=f"first axis, {fractions[0]:.0%} of variance", ylabel=f"second axis, {fractions[1]:.0%}")
        axes.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
        counts = ", ".join(f"{len(vectors[kind])} {KINDS[kind][1]}" for kind in present)
        return _svg(name, figure, f"Scatter of vectors on two principal axes: {counts}.")


def principal_plane(
    groups: Sequence[Float[np.ndarray, "_ _"]],
) -> tuple[list[Float[np.ndarray, "_ 2"]], tuple[float, float]]:
    """Projects groups of vectors on their first two principal axes. Also returns the fraction of variance on each axis.

    Vectors of a narrower space are padded with zeros, which preserves lengths, distances and angles. The largest
    coordinate of each axis is positive. Source: Pearson 1901; by SVD of the centred vectors.
    """
    width = max(group.shape[1] for group in groups)
    all_ND = np.concatenate([np.pad(group, ((0, 0), (0, width - group.shape[1]))) for group in groups])
    centred_ND = (all_ND - all_ND.mean(axis=0, keepdims=True)).astype(np.float64)
    _, lengths, axes_AD = np.linalg.svd(centred_ND, full_matrices=False)
    axes_2D = axes_AD[:2] * np.sign(np.take_along_axis(axes_AD[:2], np.abs(axes_AD[:2]).argmax(1)[:, None], 1))
    points_N2 = centred_ND @ axes_2D.T
    fractions = lengths[:2] ** 2 / max(np.sum(lengths**2), np.finfo(float).tiny)
    ends = np.cumsum([len(group) for group in groups])[:-1]
    return np.split(points_N2, ends), (float(fractions[0]), float(fractions[1]))


def similarity(name: str, query_NE: Float[np.ndarray, "N E"], candidates_NE: Float[np.ndarray, "N E"]) -> str:
    """Draws the cosines of a batch: rows are translations, columns their targets, in the same order."""
    scores_BB = query_NE[:MAX_BATCH] @ candidates_NE[:MAX_BATCH].T
    rows = len(scores_BB)
    with _figure(name, 3.6) as (figure, axes):
        shown = axes.imshow(scores_BB, cmap="viridis", interpolation="none")
        axes.set(xticks=[0, rows - 1], yticks=[0, rows - 1], xticklabels=[1, rows], yticklabels=[1, rows])
        axes.set(xlabel="in CLAP space", ylabel="translated")
        bar = figure.colorbar(shown, label="cosine", shrink=0.9)
        bar.outline.set_visible(False)
        matching = np.diagonal(scores_BB)
        others = (scores_BB.sum() - matching.sum()) / max(rows * (rows - 1), 1)
        description = (
            f"Cosines, {rows} by {rows}: {matching.mean():.2f} on average on the diagonal, {others:.2f} off it."
        )
        return _svg(name, figure, description)


def recall(name: str, rows: Sequence[Row]) -> str:
    """Draws bars of recall@k for each method of one task, with 95 % intervals, the translator first."""
    methods = sorted(dict.fromkeys(row.method for row in rows), key=lambda method: method != OURS)
    metrics = sorted({row.metric for row in rows}, key=lambda metric: int(metric.partition("@")[2]))
    bar_height = 0.8 / len(metrics)
    with _figure(name, 0.55 + 0.2 * len(methods) * len(metrics)) as (figure, axes):
        for row in rows:
            colour = COLOURS["translated" if row.method == OURS else "quiet"]
            place = metrics.index(row.metric)
            y = methods.index(row.method) + (place - (len(metrics) - 1) / 2) * bar_height
            axes.barh(y, row.value, bar_height * 0.86, color=colour, alpha=0.9 - 0.25 * place, linewidth=0)
            if row.low is not None and row.high is not None:
                axes.plot([row.low, row.high], [y, y], color=COLOURS["ink"], linewidth=1.1, solid_capstyle="butt")
            end = max(row.value, row.high or 0) + 0.012
            axes.text(end, y, f"{row.value:.3f}", va="center", fontsize=FONT_SIZE - 2.5, color=COLOURS["ink"])
        axes.set(yticks=range(len(methods)), yticklabels=[method.replace("_", " ") for method in methods])
        axes.set(xlim=(0, 1), ylim=(len(methods) - 0.5, -0.5), xlabel=", ".join(metrics))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color=COLOURS["line"], linewidth=0.7)
        axes.set_axisbelow(True)
        bars = "; ".join(f"{row.method.replace('_', ' ')} {row.metric} {row.value:.3f}" for row in rows)
        return _svg(name, figure, f"Bars of recall: {bars}.")


def loss_curve(name: str, history: Sequence[dict[str, Any]]) -> str:
    """Draws the training loss over steps. In long runs, each point is the mean of several steps."""
    entries = [entry for entry in history if entry["phase"] == "train"]
    parts = min(MAX_POINTS, len(entries))
    steps, losses = (
        [float(np.mean(part)) for part in np.array_split(np.array([entry[key] for entry in entries]), parts)]
        for key in ("step", "loss")
    )
    with _figure(name, 2.9) as (figure, axes):
        axes.plot(steps, losses, color=COLOURS["translated"], linewidth=1.6, marker="o" if len(steps) == 1 else "")
        _label_steps(axes, "training loss")
        description = f"Training loss over {entries[-1]['step']:,} steps, from {losses[0]:.3g} to {losses[-1]:.3g}."
        return _svg(name, figure, description)


def score_curve(name: str, history: Sequence[dict[str, Any]]) -> str:
    """Draws validation recall@1, 5 and 10 over steps, and the scores without pairs if every validation has them."""
    entries = [entry for entry in history if entry["phase"] == "validation"]
    colours = dict(zip(VALIDATION_RECALLS, ("audio", "texts", "captions"), strict=True))
    colours |= {PERTURBED_MRR: "translated", PERTURBED_COSINE: "images"}
    shown = {metric: colour for metric, colour in colours.items() if all(metric in entry for entry in entries)}
    label = {metric: metric.replace("_", " ").replace("mrr", "MRR") for metric in shown}
    with _figure(name, 2.9) as (figure, axes):
        for metric, colour in shown.items():
            values = [entry[metric] for entry in entries]
            axes.plot(
                [entry["step"] for entry in entries], values, color=COLOURS[colour], linewidth=1.6, marker="o",
                markersize=2.5,
            )  # fmt: skip
            axes.annotate(
                label[metric], (entries[-1]["step"], values[-1]), (5, 0), textcoords="offset points",
                va="center", color=COLOURS["ink"], fontsize=FONT_SIZE - 1.5, annotation_clip=False,
            )  # fmt: skip
        _label_steps(axes, "validation score")
        axes.set_ylim(0, 1)
        last = ", ".join(f"{label[metric]} {entries[-1][metric]:.3f}" for metric in shown)
        return _svg(name, figure, f"Validation scores over steps; at the last validation {last}.")


def _label_steps(axes: Axes, label: str) -> None:
    axes.set(xlabel="step", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.grid(color=COLOURS["line"], linewidth=0.7)
    axes.set_axisbelow(True)


@contextlib.contextmanager
def _figure(name: str, height: float) -> Iterator[tuple[Figure, Axes]]:
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": name,  # the same plot gives the same bytes
        "text.parse_math": False,
        "font.size": FONT_SIZE,
        "text.color": COLOURS["ink"],
        "axes.labelcolor": COLOURS["quiet"],
        "axes.edgecolor": COLOURS["line"],
        "xtick.color": COLOURS["line"],
        "ytick.color": COLOURS["line"],
        "xtick.labelcolor": COLOURS["ink"],
        "ytick.labelcolor": COLOURS["ink"],
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
        yield figure, figure.subplots()


def _svg(name: str, figure: Figure, description: str) -> str:
    """Converts a figure to an SVG element for the page: its ids are unique, it uses the page's colours and fonts, and
    `description` is its text for screen readers."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", transparent=True)
    root = ElementTree.fromstring(file.getvalue())
    for parent in [*root.iter()]:  # a style element would apply to the whole page, and metadata have links
        for child in [child for child in parent if child.tag.endswith(("}style", "}metadata"))]:
            parent.remove(child)
    referenced = set(re.findall(r'(?:href="#|url\(#)([\w-]+)', ElementTree.tostring(root, encoding="unicode")))
    for element in root.iter():
        if (old_id := element.get("id")) is not None:
            del element.attrib["id"]
            if old_id in referenced:
                element.set("id", f"{name}-{old_id}")
        for key, value in element.attrib.items():
            if key.endswith("href") and value.startswith("#"):
                value = f"#{name}-{value[1:]}"
            value = value.replace("url(#", f"url(#{name}-")
            if key == "style":
                value = re.sub(r"font-family: [^;]*;? ?", "", value)
                for variable, colour in COLOURS.items():
                    value = value.replace(colour, f"var(--{variable}, {colour})")
            element.set(key, value)
    for key in ("width", "height"):
        del root.attrib[key]
    root.set("role", "img")
    root.set("aria-label", description)
    return re.sub(r">\s+<", "><", ElementTree.tostring(root, encoding="unicode"))

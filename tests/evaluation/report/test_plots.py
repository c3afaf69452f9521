"""Plots read back from their SVG: what they draw, and that their ids do not clash."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from c2c_jax.evaluation.report import plots
from c2c_jax.evaluation.results import Row

VECTORS = {
    kind: np.random.default_rng(seed).normal(size=(20 + seed, 8 + 4 * kind.startswith("source"))).astype(np.float32)
    for seed, kind in enumerate(plots.KINDS)
}


def row(method: str, metric: str, value: float, low: float | None = None, high: float | None = None) -> Row:
    return Row(task="captions", method=method, metric=metric, value=value, low=low, high=high, n=9)


def spans(svg: str, variable: str) -> list[float]:
    """Widths of the shapes of one colour, from left to right end."""
    found = []
    for path in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}path"):
        if re.search(rf"(fill|stroke): var\(--{variable},", path.get("style", "")):
            across = [float(x) for x in re.findall(r"[ML] ([-\d.]+)", path.get("d", ""))]
            found.append(max(across) - min(across))
    return found


def test_lengths_of_bars_and_interval_lines():
    rows = [row("chance", "recall@1", 0.1), row("chance", "recall@5", 0.4)]
    rows += [row("translator", "recall@1", 0.2, 0.15, 0.3), row("translator", "recall@5", 0.8, 0.7, 0.9)]
    svg = plots.recall("bars", rows)
    ours, theirs = spans(svg, "translated"), spans(svg, "quiet")
    assert len(ours) == len(theirs) == 2
    unit = ours[1] / 0.8
    np.testing.assert_allclose([*ours, *theirs], np.array([0.2, 0.8, 0.1, 0.4]) * unit, rtol=1e-4)
    np.testing.assert_allclose(spans(svg, "ink"), np.array([0.15, 0.2]) * unit, rtol=1e-4)
    names = [text.text for text in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert names.index("translator") < names.index("chance")  # though it came last
    assert 'aria-label="Bars of recall: chance recall@1 0.100; chance recall@5 0.400; translator' in svg


def test_the_matrix_reports_its_diagonal():
    query = np.array([[1.0, 0], [0, 1], [0.6, 0.8]])
    svg = plots.similarity("m", query, np.array([[1.0, 0], [0, 1], [1, 0]]))
    # Cosines 1 0 1 / 0 1 0 / .6 .8 .6: on the diagonal 2.6 / 3, off it 2.4 / 6.
    assert "Cosines, 3 by 3: 0.87 on average on the diagonal, 0.40 off it." in svg
    assert svg.count("data:image/png;base64") == 2  # the matrix and its scale


@pytest.mark.parametrize("steps", [1, 7, 1000])
def test_loss_curve_of_any_length(steps):
    """A straight line stays straight, and a long one has at most MAX_POINTS points."""
    history = [{"phase": "train", "step": step, "loss": 10.0 - step / 1000} for step in range(1, steps + 1)]
    svg = plots.loss_curve("loss", [*history, {"phase": "validation", "step": steps}])
    curve = max(re.findall(r'd="([^"]+)"[^>]*style="[^"]*stroke: var\(--translated,', svg), key=len)
    points = np.array(re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", curve), float)
    assert len(points) <= 400
    if steps == 1000:
        first, last = 10 - np.mean([1, 2, 3]) / 1000, 10 - np.mean([999, 1000]) / 1000
        assert f"over 1,000 steps, from {first:.3g} to {last:.3g}" in svg
        np.testing.assert_allclose(np.polyval(np.polyfit(*points.T, 1), points[:, 0]), points[:, 1], atol=0.01)


def test_validation_curves():
    """Noisy MRR is drawn only if every validation has it; runs of older versions do not."""
    entries = [
        {"phase": "validation", "step": step, "recall@1": 0.1, "recall@5": 0.2, "recall@10": step / 10}
        for step in (1, 5)
    ]
    svg = plots.score_curve("scores", entries)
    assert "at the last validation recall@10 0.500, recall@5 0.200, recall@1 0.100." in svg
    assert "var(--translated," not in svg
    svg = plots.score_curve("scores", [{**entry, "noisy_mrr": 0.25, "noisy_cosine": 0.75} for entry in entries])
    assert "recall@1 0.100, noisy MRR 0.250, noisy cosine 0.750." in svg and "stroke: var(--translated," in svg


def test_only_available_vectors_are_drawn():
    whole = plots.plane("before", VECTORS, plots.BEFORE)
    for kind in plots.BEFORE:
        assert f"{len(VECTORS[kind])} {plots.KINDS[kind][1]}" in whole
        assert f"fill: var(--{plots.KINDS[kind][0]}," in whole
    part = plots.plane("before", {kind: VECTORS[kind] for kind in ("source_text", "target_text")}, plots.BEFORE)
    assert "var(--captions," in part and "var(--texts," in part
    assert "var(--images," not in part and "sounds, CLAP" not in part


def test_plots_of_one_page_do_not_share_ids():
    drawn = [plots.plane(name, VECTORS, kinds) for name, kinds in (("before", plots.BEFORE), ("after", plots.AFTER))]
    ids = [re.findall(r' id="([^"]+)"', svg) for svg in drawn]
    assert ids[0] and not {*ids[0]} & {*ids[1]}
    for svg, own in zip(drawn, ids, strict=True):
        assert {*re.findall(r'(?:url\(#|href="#)([\w-]+)', svg)} == {*own}
        assert "<style" not in svg and "<metadata" not in svg
        # Letters are the page's, and so is every colour.
        assert "font-family" not in svg and not re.search(r"(?<!, )#[0-9a-f]{6}", svg)
    assert plots.plane("after", VECTORS, plots.AFTER) == drawn[1]


def test_axes_are_eigenvectors_of_the_covariance():
    rng = np.random.default_rng(0)
    groups = [rng.normal(size=(40, 6)) @ np.diag([5, 3, 1, 1, 0.5, 0.1]) + shift for shift in (0, 2)]
    (first, second), fractions = plots.principal_plane(groups)
    points = np.concatenate([first, second])
    values = np.linalg.eigvalsh(np.cov(np.concatenate(groups).T))[::-1]
    np.testing.assert_allclose(np.cov(points.T), np.diag(values[:2]), atol=1e-9)
    np.testing.assert_allclose(fractions, values[:2] / values.sum())
    assert len(first) == len(second) == 40


def test_a_narrower_space_keeps_its_distances():
    """Points of a plane keep their coordinates; a space of one dimension lies along the first axis of the other."""
    square = np.array([[0.0, 0, 0], [4, 0, 0], [4, 1, 0], [0, 1, 0]])
    (drawn, line), fractions = plots.principal_plane([square, np.array([[0.0], [4]])])
    np.testing.assert_allclose(np.ptp(drawn, axis=0), [4, 1], atol=1e-12)
    np.testing.assert_allclose(line[1] - line[0], [4, 0], atol=1e-12)
    np.testing.assert_allclose(sum(fractions), 1)
    assert drawn[1, 0] > drawn[0, 0] and drawn[2, 1] > drawn[1, 1]  # signs: coordinates grow to the right and upwards

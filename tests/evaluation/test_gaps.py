"""Gap measures by hand, and against their authors' code."""

import functools

import numpy as np
import pytest
import torch

from c2c_jax.evaluation import geometry
from c2c_jax.evaluation.bootstrap import Bootstrap


def vectors(seed, rows=40, dim=6):
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


def figure(name, x, y):
    rows = geometry.gap_rows(
        "m", "x", np.asarray(x), "y", np.asarray(y), Bootstrap(resamples=0), is_paired=len(x) == len(y)
    )
    return next(row.value for row in rows if row.metric.startswith(name))


direction_consistency, alignment, centred_frechet = (
    functools.partial(figure, name) for name in ("direction_consistency", "alignment", "frechet")
)


def uniformity(x):
    (row,) = geometry.uniformity_rows("m", "x", np.asarray(x), Bootstrap(resamples=0))
    return row.value


def test_length_by_hand():
    x, y = np.array([[2.0, 0], [0, 3]]), np.array([[-1.0, 0], [-4, 0], [0, 9]])
    # means (1/2, 1/2) and (−2/3, 1/3)
    assert geometry.gap_length(x, y) == pytest.approx(np.hypot(7 / 6, 1 / 6))


def test_direction_consistency_by_hand():
    x, y = np.array([[1.0, 0], [0, 1]]), np.array([[0.0, 1], [1, 0]])
    assert direction_consistency(x, y) == pytest.approx(0)  # differences (1, −1) and (−1, 1): no mean direction
    x, y = np.array([[1.0, 0], [1, 0]]), np.array([[0.0, 1], [0, -1]])
    assert direction_consistency(x, y) == pytest.approx(np.sqrt(0.5))  # (1, −1) and (1, 1): each 45° off (1, 0)


def test_a_constant_gap_is_one_direction():
    """Points of a circle, and the same points moved along an orthogonal axis: their lengths stay equal."""
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    up, down = (np.concatenate([circle, np.full((12, 1), h)], axis=1) for h in (1.0, -1.0))
    assert direction_consistency(up, down) == pytest.approx(1)
    assert geometry.gap_length(up, down) == pytest.approx(np.sqrt(2))  # unit vectors are at height ±√½


def test_alignment_and_uniformity_agree_with_the_authors_code():
    """`align_loss` and `uniform_loss` of Wang & Isola's released code."""
    x, y = (torch.nn.functional.normalize(torch.from_numpy(vectors(seed)).double()) for seed in (0, 1))
    align = (x - y).norm(dim=1).pow(2).mean()
    uniform = torch.pdist(x, p=2).pow(2).mul(-2).exp().mean().log()
    assert alignment(vectors(0), vectors(1)) == pytest.approx(float(align), abs=1e-9)
    assert uniformity(vectors(0)) == pytest.approx(float(uniform), abs=1e-9)


def test_uniformity_by_hand():
    assert uniformity(np.array([[1.0, 0], [2, 0], [3, 0]])) == pytest.approx(0)
    assert uniformity(np.array([[1.0, 0], [-1, 0]])) == pytest.approx(-8)  # exp(−2 · 2²)


def test_centred_frechet_by_hand():
    """Centring takes the length of the gap off: sets on two circles about different means have no distance. Of an
    ellipse the directions are drawn towards the long axis."""
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)

    def ring(height, width=1.0):
        return np.stack([width * np.cos(angles), np.sin(angles), np.full(40, height)], axis=1)

    assert geometry.gap_length(ring(0.5), ring(-2)) > 1
    assert centred_frechet(ring(0.5), ring(-2)) == pytest.approx(0, abs=1e-9)
    flat, round_ = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (ring(0, 3), ring(0)))
    # Covariances are diagonal: the distance is the sum of squared differences of standard deviations.
    expected = np.sum((flat.std(axis=0, ddof=1) - round_.std(axis=0, ddof=1)) ** 2)
    assert centred_frechet(ring(0, 3), ring(0)) == pytest.approx(expected) and expected > 0.03


def test_centred_frechet_of_fewer_rows_than_dimensions():
    """Two rows each: centred, ±u and ±v, with covariances 2uuᵀ and 2vvᵀ, whose product has the root |u·v|."""
    x, y = np.eye(6)[:2], np.eye(6)[1:3]
    cosine = abs(np.dot([1, -1, 0], [0, 1, -1])) / 2
    assert centred_frechet(x, y) == pytest.approx(2 + 2 - 4 * cosine)
    *_, row = geometry.gap_rows("m", "a", x, "b", y, Bootstrap())
    assert (row.metric, row.n, row.low) == ("frechet(a, b)", 2, None)
    assert geometry.gap_rows("m", "a", x[:1], "b", y[:1], Bootstrap()) == []
    (row,) = geometry.gap_rows("m", "a", x[:1], "b", y, Bootstrap(), is_paired=False)
    assert (row.metric, row.n) == ("length(a, b)", 1)


def test_cosines_of_different_captions_by_hand():
    """Cosines 1/2, 0 and 0. A duplicate row counts once."""
    x = np.array([[1.0, 0, 0], [0.5, np.sqrt(0.75), 0], [0, 0, 2]])
    assert geometry.unpaired_cosine(np.concatenate([x, x[:1]])) == pytest.approx((0.5 + 0 + 0) / 3)
    (row,) = geometry.unpaired_rows("spaces", "source_text", np.concatenate([x, x[:1]]))
    assert (row.metric, row.n) == ("strangers(source_text)", 3)
    assert geometry.unpaired_rows("spaces", "source_text", np.concatenate([x[:1], x[:1]])) == []


def test_warning_about_collapsed_towers():
    near, far = (geometry.unpaired_rows("spaces", "target_text", vectors(0) + shift) for shift in (50.0, 1.0))
    assert near[0].value > 0.95 > far[0].value
    (line,) = geometry.collapse_warnings(far + near)
    assert line.startswith(f"target text: different captions have a mean cosine of {near[0].value:.3f}, above 0.95")


def test_rows_have_values_within_their_intervals():
    x, y = vectors(0), vectors(1) + 1
    rows = {row.metric: row for row in geometry.gap_rows("translator", "a", x, "b", y, Bootstrap(resamples=300))}
    rows |= {row.metric: row for row in geometry.uniformity_rows("translator", "a", x, Bootstrap(resamples=300))}
    assert rows["length(a, b)"].value == geometry.gap_length(x, y)
    assert rows["direction_consistency(a, b)"].value == direction_consistency(x, y)
    assert rows["alignment(a, b)"].value == alignment(x, y)
    assert rows["uniformity(a)"].value == uniformity(x)
    for row in rows.values():
        assert row.task == "gaps" and row.n == 40 and row.method == "translator"
        if not row.metric.startswith("frechet"):
            assert row.low < row.value < row.high
            assert 0 < row.high - row.low < 1


def paired(gap, rows, bootstrap):
    """Rows of pairs 512 wide that share half of their variance, one side moved by this much before it is normalised."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(rows, 512))
    x, y = (geometry.unit_rows(shared + rng.normal(size=(rows, 512))) for _ in range(2))
    x += gap * np.eye(512)[0]
    rows = geometry.gap_rows("m", "a", x, "b", y, bootstrap)
    rows += geometry.gap_rows("m", "c", x, "d", y, bootstrap, is_paired=False)
    return {row.metric: row for row in rows if not row.metric.startswith("frechet")}


def test_intervals_at_full_width():
    """Of 200 pairs with a gap they hold the value and the truth, which is that of 10,000 pairs. Where there is no gap,
    length comes to 0.08 all the same, and no interval would be near the truth."""
    truth = paired(0.83, 10_000, Bootstrap(resamples=0))
    for metric, row in paired(0.83, 200, Bootstrap()).items():
        assert row.low < row.value < row.high and row.low < truth[metric].value < row.high
    for metric, row in paired(0.0, 200, Bootstrap()).items():
        if metric.startswith("alignment"):
            assert row.low < row.value < row.high
        else:
            assert row.value > 0.05 and (row.low, row.high) == (None, None)


def test_basic_intervals_by_hand():
    assert geometry.basic_interval(0.5, (0.4, 0.75), 0.0, 2.0) == (0.25, 0.6)
    assert geometry.basic_interval(0.1, (0.05, 0.3), 0.0, 2.0) == (0, pytest.approx(0.15))  # −0.1 is no length
    assert geometry.basic_interval(0.5, (0.6, 0.7), 0.0, 2.0) == (None, None)  # 0.3 to 0.4 does not hold it
    assert geometry.basic_interval(0.5, (None, None), 0.0, 2.0) == (None, None)


def test_resampled_figures_agree_with_the_drawn_rows():
    """The vectorised statistics of one resample against the figures of its rows."""
    x, y = vectors(0, rows=8), vectors(1, rows=8)
    drawn = []

    class Spy(Bootstrap):
        def _interval(self, statistic, *sizes):
            index = np.random.default_rng(3).integers(0, sizes[0], (1, sizes[0]))
            drawn.append((index[0], float(statistic(index)[0])))
            return None, None

    geometry.gap_rows("m", "a", x, "b", y, Spy())
    for (index, value), figure in zip(drawn, (geometry.gap_length, direction_consistency, alignment), strict=True):
        assert value == pytest.approx(figure(x[index], y[index]))


def test_resampled_uniformity_excludes_pairs_of_a_row_with_itself():
    x = geometry.unit_rows(vectors(0, rows=10))
    rows = [0, 0, 1, 3, 4, 5, 6, 7, 8, 9]
    drawn = []

    class Spy(Bootstrap):
        def _interval(self, statistic, *sizes):
            drawn.append(float(statistic(np.array([rows]))[0]))
            return None, None

    geometry.uniformity_rows("m", "x", x, Spy())
    pairs = [(i, j) for i in range(10) for j in range(10) if rows[i] != rows[j]]
    expected = np.log(np.mean([np.exp(-2 * np.sum((x[rows[i]] - x[rows[j]]) ** 2)) for i, j in pairs]))
    assert drawn == [pytest.approx(expected)]


def test_unpaired_length_has_its_own_interval():
    sets = "a", vectors(0, rows=200), "b", vectors(1, rows=50) + 1
    row, _ = geometry.gap_rows("spaces", *sets, Bootstrap(), is_paired=False)
    assert row.metric == "length(a, b)" and row.n == 50
    assert row.low < row.value < row.high
    assert geometry.uniformity_rows("spaces", "a", vectors(0, rows=1), Bootstrap()) == []
    (row,) = geometry.uniformity_rows("spaces", "a", vectors(0, rows=2), Bootstrap())
    assert np.isfinite(row.value) and row.low is None

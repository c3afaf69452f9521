"""Caption rows against ranks counted by hand."""

import numpy as np
import pytest

from c2c_jax.evaluation.bootstrap import Bootstrap
from c2c_jax.evaluation.retrieval import Scorer, chance_caption_rows
from c2c_jax.evaluation.scoring import Centring
from c2c_jax.training.metrics import retrieval_scores

NONE = Bootstrap(resamples=0)


def by_name(rows, direction):
    return {row.metric: row for row in rows if row.direction == direction}


def test_ranks_by_hand():
    rows = {row.metric: row for row in Scorer("translator", Bootstrap()).rank_rows("captions", np.array([1, 3, 7, 20]))}
    assert list(rows) == ["recall@1", "recall@5", "recall@10", "median_rank", "mrr"]
    values = {name: row.value for name, row in rows.items()}
    assert values == {
        "recall@1": 0.25, "recall@5": 0.5, "recall@10": 0.75, "median_rank": 5.0,
        "mrr": pytest.approx((1 + 1 / 3 + 1 / 7 + 1 / 20) / 4),
    }  # fmt: skip
    assert all(row.low <= row.value <= row.high and row.n == 4 for row in rows.values())


def test_both_directions_by_hand():
    """Translations 10°, 20°, 100°; targets 0°, 90°, 180°: cosines decrease with the angle."""

    def at(*degrees):
        angles = np.radians(np.array(degrees, np.float32))
        return np.stack([np.cos(angles), 2 * np.sin(angles) / 2], axis=1).astype(np.float32)

    translated, target = at(10, 20, 100), at(0, 90, 180)
    rows = Scorer("translator", NONE).caption_rows(translated, target)
    forth, back = by_name(rows, "source_to_target"), by_name(rows, "target_to_source")
    # Of 10° the own target, 0°, is first; of 20° 90° is second behind 0°; of 100° 180° is second behind 90°.
    assert forth["recall@1"].value == pytest.approx(1 / 3) and forth["median_rank"].value == 2
    # Of 0° the own, 10°, is first; of 90° 20° is second behind 100°; of 180° 100° is first.
    assert back["recall@1"].value == pytest.approx(2 / 3) and back["median_rank"].value == 1
    assert forth["mean_cosine"].value == pytest.approx(np.mean(np.cos(np.radians([10, 70, 80]))), abs=1e-6)
    assert "mean_cosine" not in back


def test_scores_are_those_that_training_logs():
    rng = np.random.default_rng(0)
    target = rng.normal(size=(70, 8)).astype(np.float32)
    translated = target + rng.normal(size=(70, 8)).astype(np.float32)
    logged = retrieval_scores(translated, target)
    found = by_name(Scorer("translator", NONE).caption_rows(translated, target), "source_to_target")
    for name in ("recall@1", "recall@5", "recall@10", "median_rank", "mean_cosine"):
        assert found[name].value == pytest.approx(logged[name], abs=1e-6)


def test_csls_avoids_a_hub():
    """One candidate is near all queries by cosine, 0.76, the own one 0.65; CSLS with n neighbours takes off what each
    is near to them on the mean: 0.76 and 0.65/n."""
    n = 6
    target = np.eye(n + 1, dtype=np.float32)[:n]
    translated = 0.6 * target + 0.7 * np.eye(n + 1, dtype=np.float32)[n]
    hub = np.concatenate([target, np.eye(n + 1, dtype=np.float32)[n:]])
    queries = np.concatenate([translated, -np.eye(n + 1, dtype=np.float32)[n:]])
    found = by_name(Scorer("translator", NONE, csls=n).caption_rows(queries, hub), "source_to_target")
    assert found["recall@1"].value == 0.0  # the hub comes first for all but its own query, for which it comes last
    assert found["csls_recall@1"].value == pytest.approx(n / (n + 1))


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def mrr(scores):
    return np.mean(1 / np.sum(scores >= np.diagonal(scores)[:, None], axis=1))


def test_centred_scores_by_hand():
    """Translations and targets each have a large mean that dominates their plain cosines."""
    rng = np.random.default_rng(0)
    target = rng.normal(size=(40, 8)) + 3 * np.eye(8)[0]
    translated = target + 0.7 * rng.normal(size=(40, 8)) + 2 * np.eye(8)[1]
    references = 3 * rng.normal(size=(50, 8))
    mean = np.array([0.5, 0.3, 0, 0, 0, 0, 0, 0])
    translated, target, references, mean = (x.astype(np.float32) for x in (translated, target, references, mean))
    centring = Centring(text_E=mean, image_E=None, reference_RE=references)
    rows = Scorer("translator", NONE, centring=centring).caption_rows(translated, target)
    forth, back = by_name(rows, "source_to_target"), by_name(rows, "target_to_source")
    query, candidates = unit(unit(translated) - mean), unit(unit(target) - unit(target).mean(axis=0))
    references = unit(unit(references) - mean)
    hubness = 0.5 * np.sort(candidates @ references.T, axis=1)[:, -2:].mean(axis=1)
    assert forth["mrr"].value == pytest.approx(mrr(unit(translated) @ unit(target).T))
    assert forth["centred_mrr"].value == pytest.approx(mrr(query @ candidates.T))
    assert forth["nnn_mrr"].value == pytest.approx(mrr(query @ candidates.T - hubness))
    # The other way about captions are centred by the same mean, and translations by their own; no references.
    query, candidates = unit(unit(target) - mean), unit(unit(translated) - unit(translated).mean(axis=0))
    assert back["centred_mrr"].value == pytest.approx(mrr(query @ candidates.T))
    assert "nnn_mrr" not in back and back["centred_recall@5"].n == 40
    plain = Scorer("translator", NONE).caption_rows(translated, target)
    assert [row for row in rows if not row.metric.startswith(("centred", "nnn"))] == plain


def test_few_captions_are_not_centred():
    x = np.random.default_rng(0).normal(size=(31, 8)).astype(np.float32)
    centring = Centring(text_E=x[0], image_E=None, reference_RE=x)
    rows = Scorer("translator", NONE, centring=centring).caption_rows(x, x)
    assert rows == Scorer("translator", NONE).caption_rows(x, x)


def test_chance_of_a_thousand():
    rows = chance_caption_rows(1000)
    assert {row.direction for row in rows} == {"source_to_target", "target_to_source"}
    assert by_name(rows, "target_to_source")["recall@5"].value == pytest.approx(0.005)

"""Retrieval scores against ranks counted by hand."""

import numpy as np

from c2c_jax.training.metrics import retrieval_scores


def test_by_hand():
    target = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.float32)
    # nearest targets, in order: 0, then 1 before 2 → own rank 1; own 1 is third; own 2 first; own 3 last
    predicted = np.array([[1, 0.1], [1, -0.1], [-3, 0.2], [0.1, 5]], np.float32)
    scores = retrieval_scores(predicted, target)
    # row 1: cosines with targets 0..3 are (+, −small, −, +small): 0 and 3 come before 1 → rank 3. Row 3: rank 4.
    assert scores["recall@1"] == 0.5 and scores["recall@5"] == 1.0 and scores["recall@10"] == 1.0
    assert scores["median_rank"] == 2.0  # ranks 1, 3, 1, 4
    cosines = [1 / np.hypot(1, 0.1), -0.1 / np.hypot(1, 0.1), 3 / np.hypot(3, 0.2), -5 / np.hypot(0.1, 5)]
    np.testing.assert_allclose(scores["mean_cosine"], np.mean(cosines), rtol=1e-5)


def test_tiles_give_the_ranks_of_sorting():
    rng = np.random.default_rng(0)
    target = rng.normal(size=(50, 8)).astype(np.float32)
    predicted = target + 2 * rng.normal(size=(50, 8)).astype(np.float32)
    cosine = (predicted / np.linalg.norm(predicted, axis=1)[:, None]) @ (
        target / np.linalg.norm(target, axis=1)[:, None]
    ).T
    ranks = np.array([list(np.argsort(-cosine[i])).index(i) + 1 for i in range(50)])
    for tile in (7, 50, 1024):
        scores = retrieval_scores(predicted, target, tile=tile)
        for k in (1, 5, 10):
            assert abs(scores[f"recall@{k}"] - np.mean(ranks <= k)) < 1e-6
        assert scores["median_rank"] == np.median(ranks)
        in_batch = [np.argmax(cosine[i, :32]) == i for i in range(32)]  # 50 rows hold one batch of 32
        assert abs(scores["in_batch_top1"] - np.mean(in_batch)) < 1e-6
    assert 1 < np.median(ranks) < 20


def test_collapsed_predictions_and_targets_score_zero():
    rng = np.random.default_rng(0)
    target = np.tile(rng.normal(size=(1, 8)), (40, 1)).astype(np.float32)
    assert retrieval_scores(target, target)["recall@10"] == 0.0


def test_nan_predictions_rank_last():
    rng = np.random.default_rng(0)
    target = rng.normal(size=(40, 8)).astype(np.float32)
    scores = retrieval_scores(np.full_like(target, np.nan), target)
    assert scores["recall@10"] == scores["in_batch_top1"] == 0.0 and scores["median_rank"] == 40
    half = np.where(np.arange(40)[:, None] < 20, target, np.nan)
    assert retrieval_scores(half, target)["recall@1"] == 0.5

"""Chance scores against an enumeration of all rankings."""

import itertools

import numpy as np
import pytest

from c2c_jax.evaluation.retrieval import chance_label_rows, chance_rank_rows


def values(rows):
    return {row.metric: row.value for row in rows}


@pytest.mark.parametrize(("relevant", "n"), [(1, 1), (1, 4), (1, 5), (2, 5), (3, 6), (4, 4)])
def test_chance_is_the_mean_over_all_rankings(relevant, n):
    firsts, precisions = [], []
    for ranking in itertools.permutations(range(n)):
        ranks = [rank for rank, item in enumerate(ranking, start=1) if item < relevant]
        firsts.append(ranks[0])
        precisions.append(np.mean([place / rank for place, rank in enumerate(ranks, start=1)]))
    firsts = np.array(firsts)
    own, label = (values(rows(*args)) for rows, args in (
        (chance_rank_rows, ("captions", np.full(3, relevant), n)),
        (chance_label_rows, ("images_to_sounds", np.full(3, relevant), n)),
    ))  # fmt: skip
    for k in (1, 5, 10):
        assert own[f"recall@{k}"] == pytest.approx(np.mean(firsts <= k))
    assert own["median_rank"] == np.median(firsts)
    assert own["mrr"] == pytest.approx(np.mean(1 / firsts))
    assert label["map"] == pytest.approx(np.mean(precisions))
    assert label["neighbour_accuracy"] == pytest.approx(relevant / n)


def test_queries_with_different_numbers_of_relevant_candidates_are_averaged():
    mixed = values(chance_rank_rows("captions", np.array([1, 3]), 6))
    one, three = (values(chance_rank_rows("captions", np.array([relevant]), 6)) for relevant in (1, 3))
    for metric in ("recall@1", "recall@5", "mrr"):
        assert mixed[metric] == pytest.approx((one[metric] + three[metric]) / 2)


def test_chance_among_a_thousand():
    own = values(chance_rank_rows("captions", np.ones(1000, int), 1000))
    assert own["recall@10"] == pytest.approx(0.01) and own["median_rank"] == 500.5

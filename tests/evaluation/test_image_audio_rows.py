"""Images and sounds in the plane, where similarity is an angle: scores by hand."""

import dataclasses

import numpy as np
import pytest

from c2c_jax.evaluation.bootstrap import Bootstrap
from c2c_jax.evaluation.retrieval import Scorer, chance_image_audio_rows
from c2c_jax.evaluation.scoring import Centring, Comparison
from c2c_jax.evaluation.vectors import NONE
from tests.fixtures.evaluations import changed, pairs_of

QUIET = Bootstrap(resamples=0)
SCORER = Scorer("translator", QUIET)


def at(*degrees):
    """Vectors of lengths 1, 2, … at these angles."""
    angles = np.radians(np.array(degrees, np.float64))
    lengths = np.arange(1, len(degrees) + 1)[:, None]
    return (lengths * np.stack([np.cos(angles), np.sin(angles)], axis=1)).astype(np.float32)


def values(rows, task, method="translator"):
    return {row.metric: row.value for row in rows if row.task == task and row.method == method}


TRANSLATED = at(0, 50, 95)  # of images whose own sounds are at
PAIRED_AUDIO = at(10, 100, 60)
GIVEN = pairs_of(TRANSLATED, PAIRED_AUDIO, np.array([0, 1, 1]), at(20, 80))


def test_own_sounds_and_pictures():
    rows = SCORER.image_audio_rows(TRANSLATED, GIVEN)
    # 0°: 10° first. 50°: 60°, 10°, 100° (tied by angle? 40° and 50° apart) → own 100° third. 95°: 100°, 60° → second.
    forth = values(rows, "images_to_sounds")
    assert forth["recall@1"] == pytest.approx(1 / 3) and forth["recall@5"] == 1 and forth["median_rank"] == 2
    assert forth["mrr"] == pytest.approx((1 + 1 / 3 + 1 / 2) / 3)
    # Sounds: 10°: 0° first. 100°: 95°, then 50° → own second. 60°: 50°, then 95° → own second.
    back = values(rows, "sounds_to_images")
    assert back["recall@1"] == pytest.approx(1 / 3) and back["median_rank"] == 2


def test_classes():
    rows = SCORER.image_audio_rows(TRANSLATED, GIVEN)
    forth, back = values(rows, "images_to_sounds"), values(rows, "sounds_to_images")
    # Prompts at 20° and 80°, the border at 50°: 0° → class 0, right; 95° → class 1, right; 50° lies on the border.
    assert forth["class_accuracy"] in (pytest.approx(2 / 3), 1)
    # Nearest sounds 10° (class 0), 60° (1), 100° (1): all right. Nearest images of 10°, 100°, 60°: 0°, 95°, 50°: too.
    assert forth["neighbour_accuracy"] == back["neighbour_accuracy"] == 1
    # Of 0°: sounds in order 10°: precision 1. Of 50°: 60°, 10°, 100° → (1 + 2/3)/2. Of 95°: 100°, 60° → 1.
    assert forth["map"] == pytest.approx((1 + (1 + 2 / 3) / 2 + 1) / 3)
    # Of 10°: 0° first. Of 100° and of 60° both images of the class before 0°.
    assert back["map"] == 1
    assert "class_accuracy" not in back


def test_sounds_are_classified_by_the_translated_picture_prompts():
    """Prompts come to 40° and 130°, the border at 85°: 10° (class 0) and 100° (1) are right, 60° (1) is not."""
    rows = SCORER.image_audio_rows(TRANSLATED, GIVEN, at(40, 130))
    (row,) = [row for row in rows if (row.task, row.metric) == ("sounds_to_images", "class_accuracy")]
    assert row.value == pytest.approx(2 / 3) and row.n == 3
    assert [other for other in rows if other is not row] == SCORER.image_audio_rows(TRANSLATED, GIVEN)


def test_prompts_by_hand():
    against = Comparison(query_QE=at(0, 49, 95, 10), candidate_NE=at(20, 80))
    (row,) = SCORER.prompt_rows("x", against, np.array([0, 1, 1, NONE]))
    assert row.value == pytest.approx(2 / 3) and row.n == 3 and row.metric == "class_accuracy"
    assert SCORER.prompt_rows("x", Comparison(query_QE=at(0), candidate_NE=at(20, 80)), np.array([NONE])) == []


def test_a_picture_may_have_several_sounds_and_a_sound_several_pictures():
    """Group 7 has two images and two sounds; the first match counts."""
    none = np.full(3, NONE)
    given = changed(
        GIVEN,
        images={"groups_N": np.array([7, 7, 3]), "labels_N": none},
        audio={"groups_N": np.array([3, 7, 7]), "labels_N": none},
    )
    rows = Scorer("translator", QUIET, csls=2).image_audio_rows(TRANSLATED, given)
    # 0°: 10° (3), 60° (7) → 2. 50°: 60° (7) → 1. 95°, of group 3: 100°, 60°, 10° → 3.
    forth = values(rows, "images_to_sounds")
    assert forth["recall@1"] == pytest.approx(1 / 3) and forth["mrr"] == pytest.approx((1 / 2 + 1 + 1 / 3) / 3)
    assert {row.metric for row in rows} == {"recall@1", "recall@5", "recall@10", "median_rank", "mrr"}
    chances = values(chance_image_audio_rows(given), "images_to_sounds", "chance")
    assert chances["recall@1"] == pytest.approx((2 / 3 + 2 / 3 + 1 / 3) / 3)


def test_csls_follows_the_order_of_groups():
    """Shuffled sounds, with their groups, score as before."""
    rng = np.random.default_rng(0)
    audio = rng.normal(size=(30, 4)).astype(np.float32)
    translated = audio + rng.normal(size=(30, 4)).astype(np.float32)
    order = rng.permutation(30)
    given = pairs_of(translated, audio)
    shuffled = changed(given, audio={"vectors_NE": audio[order], "groups_N": order})
    first = Scorer("translator", QUIET, csls=3).image_audio_rows(translated, given)
    again = Scorer("translator", QUIET, csls=3).image_audio_rows(translated, shuffled)
    for task in ("images_to_sounds", "sounds_to_images"):
        assert values(again, task) == pytest.approx(values(first, task))
    assert {row.metric for row in first} >= {"recall@1", "csls_recall@1", "csls_mrr"}
    assert values(first, "images_to_sounds")["csls_mrr"] != values(first, "images_to_sounds")["mrr"]


def test_images_and_sounds_without_counterpart_are_neither_queries_nor_candidates():
    """A fourth image without sound and a fourth sound without image would be the nearest to all queries."""
    numbers = {"groups_N": np.array([0, 1, 2, NONE]), "labels_N": np.array([0, 1, 1, NONE])}
    given = changed(
        GIVEN,
        images={"vectors_NE": np.zeros((4, 2), np.float32), **numbers},
        audio={"vectors_NE": np.concatenate([PAIRED_AUDIO, at(0)]), **numbers},
    )
    rows = SCORER.image_audio_rows(np.concatenate([TRANSLATED, at(0)]), given)
    assert rows == SCORER.image_audio_rows(TRANSLATED, GIVEN)
    assert chance_image_audio_rows(given) == chance_image_audio_rows(GIVEN)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def centred(x, mean):
    return unit(unit(x) - mean)


def ranks(scores):
    return np.sum(scores >= np.diagonal(scores)[:, None], axis=1)


def average_precision(scores, is_relevant):
    """The mean over queries, by the definition."""
    found = []
    for row, relevant in zip(scores, is_relevant, strict=True):
        hits = relevant[np.argsort(-row)]
        found.append(np.mean((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits]))
    return np.mean(found)


N = 36
RNG = np.random.default_rng(5)
AUDIO = (RNG.normal(size=(N, 5)) + 2 * np.eye(5)[0]).astype(np.float32)
IMAGE = (AUDIO + RNG.normal(size=(N, 5)) + 2 * np.eye(5)[1]).astype(np.float32)
LABELS = np.arange(N) % 3
PROMPTS, IMAGE_PROMPTS = ((RNG.normal(size=(3, 5)) + 1).astype(np.float32) for _ in range(2))
TEXT_MEAN, IMAGE_MEAN = (0.5 * RNG.normal(size=5).astype(np.float32) for _ in range(2))
REFERENCES = 2 * RNG.normal(size=(40, 5)).astype(np.float32)
MANY = pairs_of(IMAGE, AUDIO, LABELS, PROMPTS)
CENTRING = Centring(text_E=TEXT_MEAN, image_E=IMAGE_MEAN, reference_RE=REFERENCES)


def test_centred_scores_by_hand():
    rows = Scorer("translator", QUIET, centring=CENTRING).image_audio_rows(IMAGE, MANY, IMAGE_PROMPTS)
    forth, back = values(rows, "images_to_sounds"), values(rows, "sounds_to_images")
    audio = centred(AUDIO, unit(AUDIO).mean(axis=0))
    scores = centred(IMAGE, IMAGE_MEAN) @ audio.T
    same = LABELS[:, None] == LABELS
    nnn = scores - 0.5 * np.sort(audio @ centred(REFERENCES, TEXT_MEAN).T, axis=1)[:, -2:].mean(axis=1)
    for prefix, found in (("centred_", scores), ("nnn_", nnn)):
        assert forth[f"{prefix}recall@5"] == pytest.approx(np.mean(ranks(found) <= 5))
        assert forth[f"{prefix}mrr"] == pytest.approx(np.mean(1 / ranks(found)))
        assert forth[f"{prefix}map"] == pytest.approx(average_precision(found, same))
        nearest = np.argmax(found, axis=1)
        assert forth[f"{prefix}neighbour_accuracy"] == pytest.approx(np.mean(LABELS[nearest] == LABELS))
    assert len({forth["mrr"], forth["centred_mrr"], forth["nnn_mrr"]}) == 3
    # Three prompts are centred by the captions' mean.
    nearest = np.argmax(centred(IMAGE, IMAGE_MEAN) @ centred(PROMPTS, TEXT_MEAN).T, axis=1)
    assert forth["centred_class_accuracy"] == pytest.approx(np.mean(nearest == LABELS))
    assert "nnn_class_accuracy" not in forth
    # Sounds as queries have no references: captions are another kind of query.
    scores = audio @ centred(IMAGE, unit(IMAGE).mean(axis=0)).T
    assert back["centred_mrr"] == pytest.approx(np.mean(1 / ranks(scores)))
    assert back["centred_map"] == pytest.approx(average_precision(scores, same))
    nearest = np.argmax(audio @ centred(IMAGE_PROMPTS, TEXT_MEAN).T, axis=1)
    assert back["centred_class_accuracy"] == pytest.approx(np.mean(nearest == LABELS))
    assert not any(metric.startswith("nnn_") for metric in back)


def test_many_prompts_are_centred_by_their_own_mean():
    prompts = (RNG.normal(size=(33, 5)) + 1).astype(np.float32)
    given = changed(MANY, audio={"prompts_CE": prompts})
    rows = Scorer("translator", QUIET, centring=CENTRING).image_audio_rows(IMAGE, given)
    nearest = np.argmax(centred(IMAGE, IMAGE_MEAN) @ centred(prompts, unit(prompts).mean(axis=0)).T, axis=1)
    found = values(rows, "images_to_sounds")["centred_class_accuracy"]
    assert found == pytest.approx(np.mean(nearest == LABELS))


def test_means_include_unpaired_sounds_and_pictures():
    """Sounds without counterpart and class are not candidates, but count in the mean of sounds."""
    rng = np.random.default_rng(8)
    other = (rng.normal(size=(20, 5)) - 1).astype(np.float32)
    none = np.full(20, NONE)
    given = changed(
        MANY,
        audio={
            "vectors_NE": np.concatenate([AUDIO, other]),
            "groups_N": np.concatenate([MANY.audio.groups_N, none]),
            "labels_N": np.concatenate([LABELS, none]),
        },
    )
    found = values(Scorer("translator", QUIET, centring=CENTRING).image_audio_rows(IMAGE, given), "images_to_sounds")
    audio = centred(AUDIO, unit(given.audio.vectors_NE).mean(axis=0))
    scores = centred(IMAGE, IMAGE_MEAN) @ audio.T
    assert found["centred_mrr"] == pytest.approx(np.mean(1 / ranks(scores)))
    nnn = scores - 0.5 * np.sort(audio @ centred(REFERENCES, TEXT_MEAN).T, axis=1)[:, -2:].mean(axis=1)
    assert found["nnn_map"] == pytest.approx(average_precision(nnn, LABELS[:, None] == LABELS))


def test_plain_rows_do_not_depend_on_centring():
    for rows_of in (
        lambda scorer: scorer.image_audio_rows(IMAGE, MANY, IMAGE_PROMPTS),
        lambda scorer: scorer.audio_rows(MANY.audio),
    ):
        plain = rows_of(Scorer("translator", QUIET, csls=3))
        found = rows_of(Scorer("translator", QUIET, csls=3, centring=CENTRING))
        assert [row for row in found if not row.metric.startswith(("centred_", "nnn_"))] == plain
        assert len(found) > len(plain)
    few = pairs_of(IMAGE[:31], AUDIO[:31], LABELS[:31])
    rows = Scorer("translator", QUIET, centring=CENTRING).image_audio_rows(IMAGE[:31], few)
    assert rows == SCORER.image_audio_rows(IMAGE[:31], few)
    nowhere = dataclasses.replace(CENTRING, image_E=None)
    rows = Scorer("translator", QUIET, centring=nowhere).image_audio_rows(IMAGE, MANY)
    assert {row.task for row in rows if row.metric.startswith("centred_")} == {"sounds_to_images"}


def test_sounds_in_place_of_images_are_centred_as_sounds():
    found = values(Scorer("sound", QUIET, centring=CENTRING).audio_rows(MANY.audio), "images_to_sounds", "sound")
    audio = centred(AUDIO, unit(AUDIO).mean(axis=0))
    scores = audio @ audio.T
    np.fill_diagonal(scores, -2)
    same = (LABELS[:, None] == LABELS) & ~np.eye(N, dtype=bool)
    assert found["centred_map"] == pytest.approx(average_precision(scores, same))
    nearest = np.argmax(audio @ centred(PROMPTS, TEXT_MEAN).T, axis=1)
    assert found["centred_class_accuracy"] == pytest.approx(np.mean(nearest == LABELS))
    assert not any(metric.startswith("nnn_") for metric in found)


def test_classes_without_candidates_give_no_queries():
    given = changed(GIVEN, images={"labels_N": np.array([0, 1, 5])})
    rows = [row for row in SCORER.image_audio_rows(TRANSLATED, given) if row.metric == "map"]
    assert [(row.task, row.n) for row in rows] == [("images_to_sounds", 2), ("sounds_to_images", 3)]
    chances = [row for row in chance_image_audio_rows(given) if row.metric == "map"]
    assert [(row.task, row.n) for row in chances] == [("images_to_sounds", 2), ("sounds_to_images", 3)]


def test_sounds_in_place_of_images():
    """10° is alone in its class; 100° and 60° are each other's nearest."""
    found = values(Scorer("sound", QUIET).audio_rows(GIVEN.audio), "images_to_sounds", "sound")
    assert found == {"class_accuracy": 1, "neighbour_accuracy": 1, "map": 1}
    by_class = changed(GIVEN, audio={"labels_N": np.array([0, 1, 0])})
    # 10°'s only other one of class 0, 60°, is its nearest (50° to 90°); 60°: 100° (40°) before 10° (50°).
    found = values(Scorer("sound", QUIET).audio_rows(by_class.audio), "images_to_sounds", "sound")
    assert found["neighbour_accuracy"] == 0.5 and found["map"] == pytest.approx((1 + 1 / 2) / 2)


def test_chance():
    assert values(chance_image_audio_rows(GIVEN), "sounds_to_images", "chance")["class_accuracy"] == 0.5
    found = values(chance_image_audio_rows(GIVEN), "images_to_sounds", "chance")
    assert found["recall@1"] == pytest.approx(1 / 3) and found["class_accuracy"] == 0.5
    assert found["neighbour_accuracy"] == pytest.approx((1 + 2 + 2) / 9)


def test_one_sided_sets():
    """ImageHear has only images, ESC-50 only sounds."""
    empty = np.zeros((0, 2), np.float32), np.zeros(0, int)
    nothing = {"vectors_NE": empty[0], "groups_N": empty[1], "labels_N": empty[1]}
    images_only = changed(GIVEN, audio=nothing)
    assert {row.metric for row in SCORER.image_audio_rows(TRANSLATED, images_only)} == {"class_accuracy"}
    assert {row.metric for row in chance_image_audio_rows(images_only)} == {"class_accuracy"}
    audio_only = changed(GIVEN, images=nothing)
    assert SCORER.image_audio_rows(empty[0], audio_only) == []
    (row,) = SCORER.image_audio_rows(empty[0], audio_only, at(40, 130))
    assert (row.task, row.metric) == ("sounds_to_images", "class_accuracy") and row.value == pytest.approx(2 / 3)
    (row,) = chance_image_audio_rows(audio_only)
    assert (row.task, row.metric, row.value, row.n) == ("sounds_to_images", "class_accuracy", 0.5, 3)
    rows = Scorer("sound", QUIET).audio_rows(audio_only.audio)
    assert {row.metric for row in rows} == {"class_accuracy", "neighbour_accuracy", "map"}

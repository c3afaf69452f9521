"""Which rows methods have for which inputs, and the rows of reference methods."""

import dataclasses

import numpy as np
import pytest

from c2c_jax.evaluation import geometry
from c2c_jax.evaluation.bootstrap import Bootstrap
from c2c_jax.evaluation.methods import Method, oracle
from c2c_jax.evaluation.results import Row
from c2c_jax.evaluation.scoring import ScoringMeans
from c2c_jax.evaluation.tasks import Tasks, in_order
from c2c_jax.evaluation.vectors import NONE, Captions
from tests.evaluation.test_gaps import alignment, centred_frechet, direction_consistency, uniformity
from tests.fixtures.evaluations import changed, pairs_of

QUIET = Bootstrap(resamples=0)
S, E, N = 5, 4, 20


def vectors(seed, rows, dim):
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


MAP = vectors(9, S, E)
METHOD = Method(name="mine", of_texts=lambda x: unit(x @ MAP), of_images=lambda x: unit(x @ MAP + 0.3))
CAPTIONS = Captions(source_NS=vectors(0, 30, S), target_NE=vectors(1, 30, E))
IMAGES, AUDIO = vectors(2, N, S), vectors(3, N, E)
CAPTIONED = np.array([3, 1])
PAIRS = changed(
    pairs_of(IMAGES, AUDIO, np.arange(N) % 2, vectors(4, 2, E), IMAGES[:2]),
    images={"captioned_A": CAPTIONED, "caption_AE": vectors(5, 2, S)},
    audio={"captioned_A": CAPTIONED, "caption_AE": vectors(6, 2, E)},
    image_caption_AE=AUDIO[CAPTIONED],
)


def tasks(captions, pairs, **fields):
    return Tasks(captions=captions, pairs=pairs, bootstrap=QUIET, **fields)


def method_rows(method, captions, pairs, **fields):
    return tasks(captions, pairs, **fields).method_rows(method)


def reference_rows(captions, pairs, **fields):
    return tasks(captions, pairs, **fields).reference_rows()


def values(rows):
    return {(row.task, row.method, row.metric, row.direction): row.value for row in rows}


def test_a_method_in_every_task():
    rows, found = method_rows(METHOD, CAPTIONS, PAIRS)
    scores = values(rows)
    text, image = unit(CAPTIONS.source_NS @ MAP), unit(IMAGES @ MAP + 0.3)
    expected = {
        "length(translated_text, target_text)": geometry.gap_length(text, CAPTIONS.target_NE),
        "alignment(translated_image, target_audio)": alignment(image, AUDIO),
        "direction_consistency(translated_image, target_audio)": direction_consistency(image, AUDIO),
        "uniformity(translated_text)": uniformity(text),
        "frechet(translated_text, target_text)": centred_frechet(text, CAPTIONS.target_NE),
        "frechet(translated_image, target_audio)": centred_frechet(image, AUDIO),
    }
    for metric, value in expected.items():
        assert scores["gaps", "mine", metric, None] == pytest.approx(value)
    assert ("captions", "mine", "mrr", "target_to_source") in scores
    assert ("sounds_to_images", "mine", "map", None) in scores
    np.testing.assert_array_equal(found["translated_text"], text)
    np.testing.assert_array_equal(found["translated_image"], image)


def test_captions_and_sounds_are_also_scored_with_pictures():
    rows, _ = reference_rows(None, PAIRS)
    ranks = [
        1 + np.sum(unit(AUDIO) @ c > unit(AUDIO)[own] @ c)
        for c, own in zip(unit(vectors(6, 2, E)), (3, 1), strict=True)
    ]
    assert values(rows)["texts_to_sounds", "caption", "mrr", None] == pytest.approx(np.mean(1 / np.array(ranks)))
    assert ("sounds_to_texts", "caption", "recall@1", None) in values(rows)


def accuracy(prompts):
    """The fraction of sounds whose nearest prompt is that of their class."""
    return np.mean(np.argmax(unit(AUDIO) @ unit(prompts).T, axis=1) == np.arange(N) % 2)


def test_sounds_among_the_translated_image_prompts():
    """Each method translates the prompts as texts; label_prompts uses the sound prompts of the classes instead."""
    method = dataclasses.replace(METHOD, of_images=lambda x: unit(x @ -MAP))
    rows = method_rows(method, None, PAIRS)[0] + reference_rows(None, PAIRS)[0]
    found = {row.method: row.value for row in rows if (row.task, row.metric) == ("sounds_to_images", "class_accuracy")}
    prompts = PAIRS.audio.prompts_CE
    assert found == {"mine": accuracy(PAIRS.images.prompts_CE @ MAP), "label_prompts": accuracy(prompts), "chance": 0.5}
    assert found["mine"] != accuracy(PAIRS.images.prompts_CE @ -MAP)


def test_sounds_without_pictures_have_classes():
    """Labelled sounds without images, as in ESC-50."""
    none = np.zeros(0, int)
    alone = changed(
        captioned(none),
        images={"vectors_NE": IMAGES[:0], "groups_N": none, "labels_N": none},
        audio={"groups_N": np.full(N, NONE)},
        pairs_P2=np.zeros((0, 2), int),
    )
    rows, found = method_rows(METHOD, None, alone)
    assert found == {} and [(row.task, row.metric) for row in rows] == [("sounds_to_images", "class_accuracy")]
    assert rows[0].value == accuracy(PAIRS.images.prompts_CE @ MAP) and rows[0].n == N
    others, missing = reference_rows(None, alone)
    found = {row.method: row.value for row in others if row.task == "sounds_to_images"}
    assert found == {"label_prompts": accuracy(PAIRS.audio.prompts_CE), "chance": 0.5}
    assert ("oracle", "no images") in reasons(missing)
    unlabelled = changed(alone, audio={"labels_N": np.full(N, NONE)})
    assert method_rows(METHOD, None, unlabelled) == ([], {})


def test_a_single_task():
    rows, found = method_rows(METHOD, CAPTIONS, None)
    assert {row.task for row in rows} == {"captions", "gaps"} and set(found) == {"translated_text"}
    rows, found = method_rows(METHOD, None, PAIRS)
    assert {row.task for row in rows} == {"images_to_sounds", "sounds_to_images", "gaps"}
    assert set(found) == {"translated_image"}


def test_spaces_before_translation():
    """Captions of the pairs are compared pair by pair; without any, only the distance to the held-out captions is
    known."""
    own = values(tasks(CAPTIONS, PAIRS).space_rows())
    key = ("gaps", "spaces")
    expected = direction_consistency(PAIRS.images.caption_AE, IMAGES[[3, 1]])
    assert own[*key, "direction_consistency(source_text, source_image)", None] == pytest.approx(expected)
    expected = alignment(PAIRS.audio.caption_AE, AUDIO[[3, 1]])
    assert own[*key, "alignment(target_text, target_audio)", None] == pytest.approx(expected)
    assert own[*key, "uniformity(source_text)", None] == pytest.approx(uniformity(CAPTIONS.source_NS))
    none, no_sources, no_targets = np.zeros(0, int), np.zeros((0, S)), np.zeros((0, E))
    bare = changed(
        PAIRS,
        images={"captioned_A": none, "caption_AE": no_sources},
        audio={"captioned_A": none, "caption_AE": no_targets},
        image_caption_AE=no_targets,
    )
    unpaired = values(tasks(CAPTIONS, bare).space_rows())
    assert unpaired[*key, "length(source_text, source_image)", None] == pytest.approx(
        geometry.gap_length(CAPTIONS.source_NS, IMAGES)
    )
    assert unpaired[*key, "frechet(target_text, target_audio)", None] == pytest.approx(
        centred_frechet(CAPTIONS.target_NE, AUDIO)
    )
    assert unpaired[*key, "strangers(source_text)", None] == pytest.approx(geometry.unpaired_cosine(CAPTIONS.source_NS))
    assert not any("alignment" in metric for *_, metric, _ in unpaired)


def test_reference_rows():
    """Here a caption's target vector is that of its sound, and the first two images are the label prompts."""
    rows, missing = reference_rows(CAPTIONS, PAIRS)
    scores = values(rows)
    assert {row.method for row in rows} == {"label_prompts", "caption", "sound", "oracle", "chance"}
    assert scores["images_to_sounds", "caption", "recall@1", None] == 1
    (captioned,) = [
        row for row in rows if row.method == "caption" and (row.task, row.metric) == ("images_to_sounds", "mrr")
    ]
    assert captioned.n == 2
    prompts = PAIRS.audio.prompts_CE
    nearest = np.argmax(unit(IMAGES) @ unit(IMAGES[:2]).T, axis=1)
    audio = np.argmax(unit(prompts) @ unit(prompts).T, axis=1)  # each prompt is its own nearest
    assert scores["images_to_sounds", "label_prompts", "class_accuracy", None] == np.mean(
        audio[nearest] == np.arange(N) % 2
    )


MANY = changed(  # enough for means of their own
    pairs_of(vectors(12, 40, S), vectors(13, 40, E), np.arange(40) % 2, vectors(4, 2, E), IMAGES[:2]),
    images={"captioned_A": np.arange(40), "caption_AE": vectors(14, 40, S)},
    audio={"captioned_A": np.arange(40), "caption_AE": vectors(15, 40, E)},
    image_caption_AE=vectors(15, 40, E),
)
MEANS = ScoringMeans(
    text_E=0.2 * vectors(16, 1, E)[0],
    reference_RS=vectors(17, 33, S),
    is_stored=True,
    reference_HE=vectors(19, 34, E),
)


def mrr(query, candidates, query_mean, references=None):
    """The MRR of images among the sounds of MANY, from the definitions."""
    candidates = unit(unit(candidates) - unit(candidates).mean(axis=0))
    scores = unit(unit(query) - query_mean) @ candidates.T
    if references is not None:
        references = unit(unit(references) - MEANS.text_E)
        scores = scores - 0.5 * np.sort(candidates @ references.T, axis=1)[:, -2:].mean(axis=1)
    return np.mean(1 / np.sum(scores >= np.diagonal(scores)[:, None], axis=1))


def test_every_method_has_its_own_centred_scores_and_references():
    """Methods that translate texts use their translations of the stored captions. Methods that put texts in place of
    images use the target vectors of the held-out captions. The oracle has no references, and the mean of sounds."""
    rows = method_rows(METHOD, CAPTIONS, MANY, means=MEANS)[0] + reference_rows(CAPTIONS, MANY, means=MEANS)[0]
    scores, audio, images = values(rows), MANY.audio.vectors_NE, MANY.images.vectors_NE
    prompts = MANY.audio.prompts_CE
    nearest = np.argmax(unit(images) @ unit(IMAGES[:2]).T, axis=1)
    mapped = oracle(images, audio, np.arange(40))
    texts = MEANS.reference_HE
    for method, query, mean, references in (
        ("mine", METHOD.of_images(images), MEANS.text_E, MEANS.reference_RS @ MAP),
        ("caption", MANY.image_caption_AE, MEANS.text_E, texts),
        ("label_prompts", prompts[nearest], MEANS.text_E, texts),
        ("oracle", mapped, unit(audio).mean(axis=0), None),
    ):
        found = {
            prefix: scores.get(("images_to_sounds", method, f"{prefix}mrr", None)) for prefix in ("centred_", "nnn_")
        }
        assert found["centred_"] == pytest.approx(mrr(query, audio, mean)), method
        if references is None:
            assert found["nnn_"] is None
        else:
            assert found["nnn_"] == pytest.approx(mrr(query, audio, mean, references)), method
        assert ("sounds_to_images", method, "centred_mrr", None) in scores
    assert ("images_to_sounds", "sound", "centred_map", None) in scores
    assert ("captions", "mine", "nnn_mrr", "source_to_target") not in scores  # thirty captions are too few
    chances = {row.metric for row in rows if row.method == "chance"}
    assert not any(metric.startswith(("centred_", "nnn_")) for metric in chances)


def test_centred_scores_of_an_oracle_without_one_candidate():
    """Image 39 has a class but no sound: the oracle has no vector for it, and no scores by class."""
    groups = np.where(np.arange(40) < 39, np.arange(40), NONE)
    pairs = changed(MANY, {"groups_N": groups}, {"groups_N": groups}, pairs_P2=MANY.pairs_P2[:39])
    rows, _ = reference_rows(None, pairs, means=MEANS)
    metrics = {row.metric for row in rows if (row.task, row.method) == ("sounds_to_images", "oracle")}
    assert "centred_mrr" in metrics and not {"map", "centred_map", "centred_neighbour_accuracy"} & metrics


def test_an_oracle_needs_eight_pairs():
    few = dataclasses.replace(PAIRS, pairs_P2=PAIRS.pairs_P2[:7])
    rows, missing = reference_rows(None, few)
    assert "oracle" not in {row.method for row in rows}
    assert ("oracle", "7 different pairs; it learns from 8 or more") in reasons(missing)


def reasons(missing):
    return [(entry.what, entry.why) for entry in missing]


def captioned(images):
    """PAIRS with captions of these images only, whose target vectors are those of their sounds."""
    images = np.array(images)
    fields = {"captioned_A": images, "caption_AE": vectors(5, len(images), S)}
    return changed(PAIRS, images=fields, image_caption_AE=AUDIO[images])


def test_sounds_to_images_needs_all_candidates():
    """With captions of two of twenty images, each sound would find its image among two. With all twenty, in any
    order, each sound finds its own."""
    rows, missing = reference_rows(None, captioned([3, 1]))
    of_audio = {"texts_to_sounds", "sounds_to_texts"}  # which need no images
    assert {row.task for row in rows if row.method == "caption"} - of_audio == {"images_to_sounds"}
    why = "it has 2 of 20 images; among fewer candidates it would score too high"
    assert reasons(missing) == [("caption, sounds → images", why)]
    rows, missing = reference_rows(None, captioned(np.random.default_rng(0).permutation(N)))
    back = {row.metric: row for row in rows if (row.task, row.method) == ("sounds_to_images", "caption")}
    assert missing == [] and set(back) >= {"recall@1", "map"}
    assert back["recall@1"].value == back["mrr"].value == 1 and back["recall@1"].n == N


def test_an_oracle_of_some_pictures():
    """Image 19 has no sound. The oracle has all images with a sound, but not all images with a class."""
    groups = np.where(np.arange(N) < 19, np.arange(N), NONE)
    pairs = changed(PAIRS, {"groups_N": groups}, {"groups_N": groups}, pairs_P2=PAIRS.pairs_P2[:19])
    rows, missing = reference_rows(None, pairs)
    back = {row.metric: row.n for row in rows if (row.task, row.method) == ("sounds_to_images", "oracle")}
    assert back == dict.fromkeys(("recall@1", "recall@5", "recall@10", "median_rank", "mrr"), 19)
    assert "oracle, sounds → images" in dict(reasons(missing))


def test_missing_methods_are_named():
    none, no_audios = np.zeros(0, int), np.zeros((0, E), np.float32)
    bare = changed(
        captioned(none),
        images={"groups_N": np.full(N, NONE), "prompts_CE": None},
        audio={
            "vectors_NE": no_audios, "groups_N": none, "labels_N": none, "prompts_CE": None, "captioned_A": none,
            "caption_AE": no_audios,
        },
        pairs_P2=np.zeros((0, 2), int),
    )  # fmt: skip
    rows, missing = reference_rows(None, bare)
    assert rows == [] and reasons(missing) == [
        ("label_prompts", "no labels; pass --pairs with a label column"),
        ("caption", "no captions; pass --pairs with a caption column"),
        ("oracle", "no sounds that could be read"),
    ]
    unknown = np.full(N, NONE)
    bare = changed(
        bare,
        images={"vectors_NE": IMAGES[:0], "groups_N": none, "labels_N": none},
        audio={"vectors_NE": AUDIO, "groups_N": unknown, "labels_N": unknown},
    )
    _, missing = reference_rows(None, bare)
    assert reasons(missing) == [
        ("label_prompts", "no labels; pass --pairs with a label column"),
        ("caption", "no captions; pass --pairs with a caption column"),
        ("oracle", "no images"),
    ]


def test_one_pair_or_caption_gives_no_retrieval():
    """Its recall would always be 1. Its class among all prompts is still scored."""
    single = changed(
        pairs_of(IMAGES[:1], AUDIO[:1], np.array([1]), PAIRS.audio.prompts_CE, PAIRS.images.prompts_CE),
        images={"captioned_A": np.array([0]), "caption_AE": vectors(5, 1, S)},
        image_caption_AE=AUDIO[:1],
    )
    caption = Captions(source_NS=CAPTIONS.source_NS[:1], target_NE=CAPTIONS.target_NE[:1])
    rows, missing = reference_rows(caption, single)
    rows += method_rows(METHOD, caption, single, csls=1)[0]
    assert {(row.task, row.metric) for row in rows} == {
        ("images_to_sounds", "class_accuracy"), ("sounds_to_images", "class_accuracy"), ("captions", "mean_cosine"),
    }  # fmt: skip
    assert reasons(missing)[:2] == [
        ("captions: recall@k", "one caption: nothing to retrieve among"),
        ("images and sounds: recall@k", "one pair: nothing to retrieve among"),
    ]


def test_order_of_tasks():
    rows = [Row(task=task, method=m, metric="x", value=0.0, n=1) for m in "ab" for task in ("gaps", "captions")]
    assert [(row.task, row.method) for row in in_order(rows)] == [
        ("captions", "a"), ("captions", "b"), ("gaps", "a"), ("gaps", "b"),
    ]  # fmt: skip


def test_captioned_sounds_without_pictures():
    """As in AudioCaps: captions retrieve sounds and sounds captions; some sounds have no caption."""
    none, own = np.zeros(0, int), np.random.default_rng(30).permutation(40)[:36]
    captions = (MANY.audio.vectors_NE[own] + 0.5 * vectors(31, 36, E)).astype(np.float32)
    alone = changed(
        MANY,
        images={
            "vectors_NE": IMAGES[:0], "groups_N": none, "labels_N": none, "captioned_A": none,
            "caption_AE": IMAGES[:0],
        },
        audio={"groups_N": np.full(40, NONE), "captioned_A": own, "caption_AE": captions},
        image_caption_AE=AUDIO[:0],
        pairs_P2=np.zeros((0, 2), int),
    )  # fmt: skip
    rows, missing = reference_rows(None, alone, means=MEANS)
    scores = values(rows)
    audio, references = unit(alone.audio.vectors_NE), unit(unit(MEANS.reference_HE) - MEANS.text_E)
    around = unit(audio - audio.mean(axis=0))
    query = unit(unit(captions) - MEANS.text_E)
    hubness = 0.5 * np.sort(around @ references.T, axis=1)[:, -2:].mean(axis=1)
    texts = unit(captions) - unit(captions).mean(axis=0)
    for task, metric, cosines, places in (
        ("texts_to_sounds", "mrr", unit(captions) @ audio.T, own),
        ("texts_to_sounds", "centred_mrr", query @ around.T, own),
        ("texts_to_sounds", "nnn_mrr", query @ around.T - hubness, own),
        ("sounds_to_texts", "mrr", audio[own] @ unit(captions).T, np.arange(36)),
        ("sounds_to_texts", "centred_mrr", around[own] @ unit(texts).T, np.arange(36)),
    ):
        ranks = np.sum(cosines >= np.take_along_axis(cosines, places[:, None], axis=1), axis=1)
        assert scores[task, "caption", metric, None] == pytest.approx(np.mean(1 / ranks)), (task, metric)
    assert ("sounds_to_texts", "caption", "nnn_mrr", None) not in scores
    assert scores["texts_to_sounds", "chance", "recall@1", None] == pytest.approx(1 / 40)
    assert scores["sounds_to_texts", "chance", "recall@1", None] == pytest.approx(1 / 36)
    assert reasons(missing) == [("oracle", "no images")]

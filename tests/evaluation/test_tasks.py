"""Which rows a translator gets of what there is, and what the upper rows are."""

import dataclasses

import numpy as np
import pytest

from c2c_jax.evaluation import gaps
from c2c_jax.evaluation.bootstrap import Bootstrap
from c2c_jax.evaluation.image_sound import NONE, ImageSounds
from c2c_jax.evaluation.material import Captions, PairMaterial
from c2c_jax.evaluation.oracle import oracle
from c2c_jax.evaluation.references import Means
from c2c_jax.evaluation.rows import Row
from c2c_jax.evaluation.tasks import in_order, method_rows, reference_rows, space_rows
from c2c_jax.evaluation.translation import Method

QUIET = Bootstrap(resamples=0)
S, E, N = 5, 4, 20


def vectors(seed, rows, dim):
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


MAP = vectors(9, S, E)
METHOD = Method(name="mine", of_texts=lambda x: unit(x @ MAP), of_images=lambda x: unit(x @ MAP + 0.3))
CAPTIONS = Captions(source_NS=vectors(0, 30, S), target_NE=vectors(1, 30, E), told="held out")
IMAGES, AUDIOS = vectors(2, N, S), vectors(3, N, E)
PAIRS = PairMaterial(
    given=ImageSounds.of_pairs(IMAGES, AUDIOS, np.arange(N) % 2, vectors(4, 2, E)),
    pairs_P2=np.stack([np.arange(N)] * 2, axis=1),
    captioned_images=np.array([3, 1]),
    image_caption_AS=vectors(5, 2, S),
    image_caption_AE=AUDIOS[[3, 1]],
    captioned_audios=np.array([3, 1]),
    audio_caption_DE=vectors(6, 2, E),
    label_prompts_CS=IMAGES[:2],
)


def values(rows):
    return {(row.task, row.method, row.metric, row.direction): row.value for row in rows}


def test_a_method_in_every_task():
    rows, found = method_rows(METHOD, CAPTIONS, PAIRS, QUIET)
    scores = values(rows)
    text, image = unit(CAPTIONS.source_NS @ MAP), unit(IMAGES @ MAP + 0.3)
    expected = {
        "length(translated_text, target_text)": gaps.gap_length(text, CAPTIONS.target_NE),
        "alignment(translated_image, target_audio)": gaps.alignment(image, AUDIOS),
        "direction_consistency(translated_image, target_audio)": gaps.direction_consistency(image, AUDIOS),
        "uniformity(translated_text)": gaps.uniformity(text),
        "frechet(translated_text, target_text)": gaps.centred_frechet(text, CAPTIONS.target_NE),
        "frechet(translated_image, target_audio)": gaps.centred_frechet(image, AUDIOS),
    }
    for metric, value in expected.items():
        assert scores["gaps", "mine", metric, None] == pytest.approx(value)
    assert ("captions", "mine", "mrr", "target_to_source") in scores
    assert ("sounds_to_images", "mine", "map", None) in scores
    np.testing.assert_array_equal(found["translated_text"], text)
    np.testing.assert_array_equal(found["translated_image"], image)


def test_captions_and_sounds_are_scored_where_there_are_pictures_too():
    rows, _ = reference_rows(None, PAIRS, QUIET)
    ranks = [
        1 + np.sum(unit(AUDIOS) @ c > unit(AUDIOS)[own] @ c)
        for c, own in zip(unit(vectors(6, 2, E)), (3, 1), strict=True)
    ]
    assert values(rows)["texts_to_sounds", "caption", "mrr", None] == pytest.approx(np.mean(1 / np.array(ranks)))
    assert ("sounds_to_texts", "caption", "recall@1", None) in values(rows)


def right(prompts):
    """The share of the sounds whose class's prompt is the nearest."""
    return np.mean(np.argmax(unit(AUDIOS) @ unit(prompts).T, axis=1) == np.arange(N) % 2)


def test_sounds_among_the_classes_picture_prompts():
    """Which each method translates as texts; label_prompts takes the classes' sound prompts for them."""
    method = dataclasses.replace(METHOD, of_images=lambda x: unit(x @ -MAP))
    rows = method_rows(method, None, PAIRS, QUIET)[0] + reference_rows(None, PAIRS, QUIET)[0]
    found = {row.method: row.value for row in rows if (row.task, row.metric) == ("sounds_to_images", "class_accuracy")}
    prompts = PAIRS.given.prompts_CE
    assert found == {"mine": right(PAIRS.label_prompts_CS @ MAP), "label_prompts": right(prompts), "chance": 0.5}
    assert found["mine"] != right(PAIRS.label_prompts_CS @ -MAP)


def test_sounds_alone_have_classes():
    """Of sounds with labels and no picture, as ESC-50's."""
    none = np.zeros(0, int)
    given = dataclasses.replace(
        PAIRS.given, image_BS=IMAGES[:0], image_groups=none, image_labels=none, audio_groups=np.full(N, NONE)
    )
    alone = dataclasses.replace(captioned(none), given=given, pairs_P2=np.zeros((0, 2), int))
    rows, found = method_rows(METHOD, None, alone, QUIET)
    assert found == {} and [(row.task, row.metric) for row in rows] == [("sounds_to_images", "class_accuracy")]
    assert rows[0].value == right(PAIRS.label_prompts_CS @ MAP) and rows[0].n == N
    others, missing = reference_rows(None, alone, QUIET)
    found = {row.method: row.value for row in others if row.task == "sounds_to_images"}
    assert found == {"label_prompts": right(PAIRS.given.prompts_CE), "chance": 0.5}
    assert ("oracle", "no pictures") in reasons(missing)
    unlabelled = dataclasses.replace(alone, given=dataclasses.replace(given, audio_labels=np.full(N, NONE)))
    assert method_rows(METHOD, None, unlabelled, QUIET) == ([], {})


def test_one_task_alone():
    rows, found = method_rows(METHOD, CAPTIONS, None, QUIET)
    assert {row.task for row in rows} == {"captions", "gaps"} and set(found) == {"translated_text"}
    rows, found = method_rows(METHOD, None, PAIRS, QUIET)
    assert {row.task for row in rows} == {"images_to_sounds", "sounds_to_images", "gaps"}
    assert set(found) == {"translated_image"}


def test_spaces_before_translation():
    """With captions of the pairs' own, per pair; without, the length alone, to the held-out ones."""
    own = values(space_rows(CAPTIONS, PAIRS, QUIET))
    key = ("gaps", "spaces")
    expected = gaps.direction_consistency(PAIRS.image_caption_AS, IMAGES[[3, 1]])
    assert own[*key, "direction_consistency(source_text, source_image)", None] == pytest.approx(expected)
    expected = gaps.alignment(PAIRS.audio_caption_DE, AUDIOS[[3, 1]])
    assert own[*key, "alignment(target_text, target_audio)", None] == pytest.approx(expected)
    assert own[*key, "uniformity(source_text)", None] == pytest.approx(gaps.uniformity(CAPTIONS.source_NS))
    none, no_sources, no_targets = np.zeros(0, int), np.zeros((0, S)), np.zeros((0, E))
    bare = dataclasses.replace(
        PAIRS,
        captioned_images=none,
        captioned_audios=none,
        image_caption_AS=no_sources,
        image_caption_AE=no_targets,
        audio_caption_DE=no_targets,
    )
    apart = values(space_rows(CAPTIONS, bare, QUIET))
    assert apart[*key, "length(source_text, source_image)", None] == pytest.approx(
        gaps.gap_length(CAPTIONS.source_NS, IMAGES)
    )
    assert apart[*key, "frechet(target_text, target_audio)", None] == pytest.approx(
        gaps.centred_frechet(CAPTIONS.target_NE, AUDIOS)
    )
    assert apart[*key, "strangers(source_text)", None] == pytest.approx(gaps.strangers(CAPTIONS.source_NS))
    assert not any("alignment" in metric for *_, metric, _ in apart)


def test_upper_rows():
    """The caption's target vector is the sound's own here, and a picture's label prompt is itself for the first two."""
    rows, missing = reference_rows(CAPTIONS, PAIRS, QUIET)
    scores = values(rows)
    assert {row.method for row in rows} == {"label_prompts", "caption", "sound", "oracle", "chance"}
    assert scores["images_to_sounds", "caption", "recall@1", None] == 1
    (captioned,) = [
        row for row in rows if row.method == "caption" and (row.task, row.metric) == ("images_to_sounds", "mrr")
    ]
    assert captioned.n == 2
    prompts = PAIRS.given.prompts_CE
    nearest = np.argmax(unit(IMAGES) @ unit(IMAGES[:2]).T, axis=1)
    sounds = np.argmax(unit(prompts) @ unit(prompts).T, axis=1)  # each prompt is its own nearest
    assert scores["images_to_sounds", "label_prompts", "class_accuracy", None] == np.mean(
        sounds[nearest] == np.arange(N) % 2
    )


MANY = PairMaterial(  # enough for means of their own
    given=ImageSounds.of_pairs(vectors(12, 40, S), vectors(13, 40, E), np.arange(40) % 2, vectors(4, 2, E)),
    pairs_P2=np.stack([np.arange(40)] * 2, axis=1),
    captioned_images=np.arange(40),
    image_caption_AS=vectors(14, 40, S),
    image_caption_AE=vectors(15, 40, E),
    captioned_audios=np.arange(40),
    audio_caption_DE=vectors(15, 40, E),
    label_prompts_CS=IMAGES[:2],
)
MEANS = Means(
    text_E=0.2 * vectors(16, 1, E)[0],
    stored_RS=vectors(17, 33, S),
    held_out_HS=vectors(18, 34, S),
    held_out_HE=vectors(19, 34, E),
)


def mrr(query, candidates, query_mean, references=None):
    """Of images among the sounds of MANY, from the definitions."""
    candidates = unit(unit(candidates) - unit(candidates).mean(axis=0))
    scores = unit(unit(query) - query_mean) @ candidates.T
    if references is not None:
        references = unit(unit(references) - MEANS.text_E)
        scores = scores - 0.5 * np.sort(candidates @ references.T, axis=1)[:, -2:].mean(axis=1)
    return np.mean(1 / np.sum(scores >= np.diagonal(scores)[:, None], axis=1))


def test_every_method_has_centred_scores_and_references_of_its_own():
    """What translates texts takes its translations of the stored captions; what puts texts in pictures' places takes
    the held-out captions' own target vectors; what puts pictures among sounds takes none, and the sounds' mean."""
    rows = (
        method_rows(METHOD, CAPTIONS, MANY, QUIET, means=MEANS)[0]
        + reference_rows(CAPTIONS, MANY, QUIET, means=MEANS)[0]
    )
    scores, audio = values(rows), MANY.given.audio_NE
    prompts = MANY.given.prompts_CE
    nearest = np.argmax(unit(MANY.given.image_BS) @ unit(IMAGES[:2]).T, axis=1)
    mapped = oracle(MANY.given.image_BS, audio, np.arange(40))
    texts = MEANS.held_out_HE
    for method, query, mean, references in (
        ("mine", METHOD.of_images(MANY.given.image_BS), MEANS.text_E, MEANS.stored_RS @ MAP),
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


def test_centred_scores_of_an_oracle_that_lacks_a_candidate():
    """Picture 39 has a class and no sound: the oracle has no vector of it, and no figures among classes."""
    groups = np.where(np.arange(40) < 39, np.arange(40), NONE)
    given = dataclasses.replace(MANY.given, image_groups=groups, audio_groups=groups)
    pairs = dataclasses.replace(MANY, given=given, pairs_P2=MANY.pairs_P2[:39])
    rows, _ = reference_rows(None, pairs, QUIET, means=MEANS)
    metrics = {row.metric for row in rows if (row.task, row.method) == ("sounds_to_images", "oracle")}
    assert "centred_mrr" in metrics and not {"map", "centred_map", "centred_neighbour_accuracy"} & metrics


def test_an_oracle_takes_eight_pairs():
    few = dataclasses.replace(PAIRS, pairs_P2=PAIRS.pairs_P2[:7])
    rows, missing = reference_rows(None, few, QUIET)
    assert "oracle" not in {row.method for row in rows}
    assert ("oracle", "7 different pairs; it learns from 8 or more") in reasons(missing)


def reasons(missing):
    return [(one.what, one.why) for one in missing]


def captioned(images):
    """With captions of these pictures, whose target vectors are their own sounds."""
    images = np.array(images)
    return dataclasses.replace(
        PAIRS, captioned_images=images, image_caption_AS=vectors(5, len(images), S), image_caption_AE=AUDIOS[images]
    )


def test_from_sounds_to_images_a_method_has_all_candidates_or_no_rows():
    """Two captions of twenty are no gallery: each sound would find its picture among two. Of all twenty, in any order,
    each sound finds its own."""
    rows, missing = reference_rows(None, captioned([3, 1]), QUIET)
    of_sounds = {"texts_to_sounds", "sounds_to_texts"}  # which need no pictures
    assert {row.task for row in rows if row.method == "caption"} - of_sounds == {"images_to_sounds"}
    why = "it has 2 of 20 pictures; among fewer candidates it would score too high"
    assert reasons(missing) == [("caption, sounds → images", why)]
    rows, missing = reference_rows(None, captioned(np.random.default_rng(0).permutation(N)), QUIET)
    back = {row.metric: row for row in rows if (row.task, row.method) == ("sounds_to_images", "caption")}
    assert missing == [] and set(back) >= {"recall@1", "map"}
    assert back["recall@1"].value == back["mrr"].value == 1 and back["recall@1"].n == N


def test_an_oracle_of_some_pictures():
    """Picture 19 has no sound. Among the pictures that have one the oracle has all; of the classes' it lacks one."""
    groups = np.where(np.arange(N) < 19, np.arange(N), NONE)
    given = dataclasses.replace(PAIRS.given, image_groups=groups, audio_groups=groups)
    rows, missing = reference_rows(None, dataclasses.replace(PAIRS, given=given, pairs_P2=PAIRS.pairs_P2[:19]), QUIET)
    back = {row.metric: row.n for row in rows if (row.task, row.method) == ("sounds_to_images", "oracle")}
    assert back == dict.fromkeys(("recall@1", "recall@5", "recall@10", "median_rank", "mrr"), 19)
    assert "oracle, sounds → images" in dict(reasons(missing))


def test_methods_that_cannot_be_had_are_named():
    none, no_audios = np.zeros(0, int), np.zeros((0, E), np.float32)
    bare = dataclasses.replace(
        captioned(none),
        given=dataclasses.replace(
            PAIRS.given, audio_NE=no_audios, audio_groups=none, audio_labels=none, image_groups=np.full(N, NONE),
            prompts_CE=None,
        ),
        pairs_P2=np.zeros((0, 2), int),
        label_prompts_CS=None,
        captioned_audios=none,
        audio_caption_DE=no_audios,
    )  # fmt: skip
    rows, missing = reference_rows(None, bare, QUIET)
    assert rows == [] and reasons(missing) == [
        ("label_prompts", "no labels; pass --pairs with a label column"),
        ("caption", "no captions; pass --pairs with a caption column"),
        ("oracle", "no sounds that could be read"),
    ]
    pictureless = dataclasses.replace(
        bare.given, image_BS=IMAGES[:0], image_groups=none, image_labels=none, audio_NE=AUDIOS,
        audio_groups=np.full(N, NONE), audio_labels=np.full(N, NONE),
    )  # fmt: skip
    bare = dataclasses.replace(bare, given=pictureless)
    _, missing = reference_rows(None, bare, QUIET)
    assert reasons(missing) == [
        ("label_prompts", "no labels; pass --pairs with a label column"),
        ("caption", "no captions; pass --pairs with a caption column"),
        ("oracle", "no pictures"),
    ]


def test_of_one_pair_or_caption_nothing_is_retrieved():
    """Its recall is 1 whatever it is translated to. Its class among all classes' prompts still tells something."""
    one = dataclasses.replace(
        captioned([0]),
        given=ImageSounds.of_pairs(IMAGES[:1], AUDIOS[:1], np.array([1]), PAIRS.given.prompts_CE),
        pairs_P2=PAIRS.pairs_P2[:1],
        captioned_audios=np.zeros(0, int),
        audio_caption_DE=PAIRS.audio_caption_DE[:0],
    )
    caption = Captions(source_NS=CAPTIONS.source_NS[:1], target_NE=CAPTIONS.target_NE[:1], told="one")
    rows, missing = reference_rows(caption, one, QUIET)
    rows += method_rows(METHOD, caption, one, QUIET, csls=1)[0]
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
    """AudioCaps' layout: captions and sounds look for each other, some sounds have no caption."""
    none, own = np.zeros(0, int), np.random.default_rng(30).permutation(40)[:36]
    given = dataclasses.replace(
        MANY.given, image_BS=IMAGES[:0], image_groups=none, image_labels=none, audio_groups=np.full(40, NONE)
    )
    captions = (MANY.given.audio_NE[own] + 0.5 * vectors(31, 36, E)).astype(np.float32)
    alone = dataclasses.replace(
        captioned(none), given=given, pairs_P2=np.zeros((0, 2), int), captioned_audios=own, audio_caption_DE=captions
    )
    rows, missing = reference_rows(None, alone, QUIET, means=MEANS)
    scores = values(rows)
    sounds, references = unit(given.audio_NE), unit(unit(MEANS.held_out_HE) - MEANS.text_E)
    around = unit(sounds - sounds.mean(axis=0))
    asked = unit(unit(captions) - MEANS.text_E)
    hubness = 0.5 * np.sort(around @ references.T, axis=1)[:, -2:].mean(axis=1)
    texts = unit(captions) - unit(captions).mean(axis=0)
    for task, metric, cosines, places in (
        ("texts_to_sounds", "mrr", unit(captions) @ sounds.T, own),
        ("texts_to_sounds", "centred_mrr", asked @ around.T, own),
        ("texts_to_sounds", "nnn_mrr", asked @ around.T - hubness, own),
        ("sounds_to_texts", "mrr", sounds[own] @ unit(captions).T, np.arange(36)),
        ("sounds_to_texts", "centred_mrr", around[own] @ unit(texts).T, np.arange(36)),
    ):
        ranks = np.sum(cosines >= np.take_along_axis(cosines, places[:, None], axis=1), axis=1)
        assert scores[task, "caption", metric, None] == pytest.approx(np.mean(1 / ranks)), (task, metric)
    assert ("sounds_to_texts", "caption", "nnn_mrr", None) not in scores
    assert scores["texts_to_sounds", "chance", "recall@1", None] == pytest.approx(1 / 40)
    assert scores["sounds_to_texts", "chance", "recall@1", None] == pytest.approx(1 / 36)
    assert reasons(missing) == [("oracle", "no pictures")]

"""Geometry with known results: vectors with given means and pair cosines, and an exact rotation."""

import dataclasses

import numpy as np
import pytest

from c2c_jax.data.arrays import store_of_arrays
from c2c_jax.evaluation.bootstrap import Bootstrap
from c2c_jax.evaluation.geometry import geometry_rows, rotation_rows, unpaired_absolute
from c2c_jax.evaluation.methods import caption_methods
from c2c_jax.evaluation.training_store import TrainingStore
from c2c_jax.evaluation.vectors import Captions, Media, Side, both_sides
from c2c_jax.spaces.space_id import SpaceId
from c2c_jax.translator.centring import ModalityMeans
from tests.torch.test_translator import random_bundle, spec

QUIET = Bootstrap(resamples=0)
E = 8


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def around(height, directions, axis=0):
    """Unit vectors whose mean is `height` along an axis, where the directions, orthogonal to it, sum to 0."""
    return height * np.eye(E)[axis] + np.sqrt(1 - height**2) * directions


# Sixteen directions in the last six dimensions: plus and minus eight, so that they sum to 0.
HALF = unit(np.concatenate([np.zeros((8, 2)), np.random.default_rng(0).normal(size=(8, E - 2))], axis=1))
TEXT = np.concatenate([HALF, -HALF])
OTHER_HALF = unit(np.concatenate([np.zeros((8, 2)), np.random.default_rng(1).normal(size=(8, E - 2))], axis=1))
# Each is at 60° to its text: half of it, and the rest orthogonal to it.
OTHER_HALF = unit(OTHER_HALF - np.sum(OTHER_HALF * HALF, axis=1, keepdims=True) * HALF)
OTHER = np.concatenate([0.5 * HALF + np.sqrt(0.75) * OTHER_HALF, -0.5 * HALF - np.sqrt(0.75) * OTHER_HALF])


def side(text, other, is_paired=True):
    text, other = (3 * x.astype(np.float32) for x in (text, other))
    none, media = text[:0], Media.of(other)
    if is_paired:
        media = dataclasses.replace(media, captioned_A=np.arange(len(text)), caption_AE=text)
    return Side("source", "source_text", "source_image", none if is_paired else text, media)


def values(rows):
    return {row.metric: row.value for row in rows}


def test_known_geometry():
    """Texts around 0.6 of one axis, images around 0.8 of another: the gap is 1 and the means are orthogonal."""
    text, other = (np.concatenate([x, x]) for x in (around(0.6, TEXT), around(0.8, OTHER, axis=1)))
    rows, missing = geometry_rows([side(text, other)], QUIET)
    assert missing == [] and {(row.task, row.method) for row in rows} == {("geometry", "source")}
    unpaired = np.abs(TEXT @ OTHER.T)[~np.eye(16, dtype=bool)]
    among_texts = (TEXT @ TEXT.T)[~np.eye(16, dtype=bool)]
    expected = {
        "text_mean": 0.6,
        "image_or_sound_mean": 0.8,
        "gap": 1.0,
        "cosine_of_means": 0.0,
        "pair_cosine": 0.8 * 0.6 * 0.5,
        "pair_cosine_centred": 0.5,
        "text_strangers": 0.36 + 0.64 * among_texts.mean(),
        "text_strangers_centred": np.abs(among_texts).mean(),
        "strangers_centred": unpaired.mean(),
    }
    assert values(rows) == pytest.approx(expected, abs=1e-6)
    assert {row.n for row in rows if "text_strangers" in row.metric} == {16}  # each text is there twice


def test_without_pairs_and_with_few_rows():
    """Held-out captions belong to no image, and 16 rows are too few to centre by their mean."""
    rows, missing = geometry_rows([side(around(0.6, TEXT), around(0.8, OTHER, axis=1), is_paired=False)], QUIET)
    assert set(values(rows)) == {"text_mean", "image_or_sound_mean", "gap", "cosine_of_means", "text_strangers"}
    assert [(entry.what, entry.why) for entry in missing] == [
        ("geometry of the source space: centred figures", "16 texts and 16 images; centring needs 32 or more")
    ]
    every = np.concatenate([TEXT, TEXT])
    rows, _ = geometry_rows([side(every, np.concatenate([OTHER, OTHER]), is_paired=False)], QUIET)
    assert values(rows)["strangers_centred"] == pytest.approx(np.abs(TEXT @ OTHER.T).mean(), abs=1e-6)
    assert "pair_cosine" not in values(rows)


def test_captions_alone():
    target = np.concatenate([around(0.3, TEXT), around(0.3, OTHER)]).astype(np.float32)
    captions = Captions(source_NS=np.concatenate([TEXT, OTHER]).astype(np.float32), target_NE=target)
    rows, missing = geometry_rows(both_sides(captions, None), QUIET)
    assert missing == [] and {row.metric for row in rows} == {"text_mean", "text_strangers", "text_strangers_centred"}
    means = {row.method: row.value for row in rows if row.metric == "text_mean"}
    assert means == pytest.approx({"source": 0.0, "target": 0.3}, abs=1e-6)


def test_equal_texts_describe_the_same_images():
    text, other = np.eye(3)[[0, 0, 1, 2]], unit(np.array([[1.0, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1]]))
    expected = []
    text_c, other_c = (unit(x - x.mean(axis=0)) for x in (text, other))
    for i in range(4):
        expected += [abs(text_c[i] @ other_c[j]) for j in range(4) if not np.array_equal(text[i], text[j])]
    assert len(expected) == 10
    assert unpaired_absolute(text, other, is_paired=True) == pytest.approx(np.mean(expected))


@pytest.fixture
def rotated(tmp_path):
    """A store whose target vectors are its source vectors, turned; its captions in three parts."""
    rng = np.random.default_rng(0)
    source = rng.normal(size=(300, E)) + 0.5
    rotation = np.linalg.qr(rng.normal(size=(E, E)))[0]
    spaces = tuple(SpaceId(name=name, dim=E, fingerprint=name * 64) for name in "st")
    arrays = [x.astype(np.float32) for x in (source, source @ rotation)]
    return store_of_arrays(tmp_path / "store", *arrays, spaces, chunk_rows=128, dtype="float32"), arrays


def rows_of_maps(store, source, target):
    held_out = np.arange(40)
    bundle = random_bundle(spec("residual", E, E, input_norm="unit"), means=ModalityMeans())
    training = TrainingStore(store=store, held_out=held_out, untrained=held_out)
    means, (_, *methods) = caption_methods(training, bundle)
    captions = Captions(source_NS=source[:40], target_NE=target[:40])
    rows, missing = rotation_rows(methods, captions, means, Bootstrap(resamples=50))
    assert missing == []
    return {(row.method, row.metric): row for row in rows}, methods, captions, means


def test_an_exact_rotation_gives_one(rotated):
    store, (source, target) = rotated
    found, _, _, _ = rows_of_maps(store, source, target)
    assert found["procrustes", "mean_cosine"].value == pytest.approx(1, abs=1e-5)
    assert found["procrustes", "recall@1"].value == 1 and found["procrustes", "recall@1"].n == 40
    assert found["ridge", "mean_cosine"].value == pytest.approx(1, abs=1e-3)
    assert {row.task for row in found.values()} == {"rotation"}


def test_another_map_agrees_with_numpy(rotated):
    """For stretched targets the rotation scores lower than ridge."""
    store, (source, target) = rotated
    target = target * np.linspace(0.2, 2, E, dtype=np.float32)
    spaces = store.plan.source, store.plan.target
    other = store_of_arrays(store.path.parent / "other", source, target, spaces, chunk_rows=128, dtype="float32")
    found, methods, captions, means = rows_of_maps(other, source, target)
    mean = unit(target[40:].astype(np.float64)).mean(axis=0)
    wanted = unit(unit(target[:40]) - mean)
    cosines = {}
    for method in methods:
        mapped = unit(method.of_texts(captions.source_NS) - mean)
        cosines[method.name] = np.mean(np.sum(mapped * wanted, axis=1))
        ranks = np.sum(mapped @ wanted.T >= np.sum(mapped * wanted, axis=1)[:, None] - 1e-7, axis=1)
        assert found[method.name, "mean_cosine"].value == pytest.approx(cosines[method.name], abs=1e-5)
        assert found[method.name, "recall@1"].value == pytest.approx(np.mean(ranks == 1))
        row = found[method.name, "mean_cosine"]
        assert row.low < row.value < row.high
    assert cosines["procrustes"] < cosines["ridge"] < 1


def test_without_a_store_there_is_no_map(rotated):
    _, (source, target) = rotated
    captions = Captions(source_NS=source, target_NE=target)
    for given, means in ((captions, None), (None, ModalityMeans())):
        rows, missing = rotation_rows([], given, means, QUIET)
        assert rows == [] and "pass --store" in missing[0].why


def test_one_caption_gives_no_retrieval(rotated):
    store, (source, target) = rotated
    _, methods, captions, means = rows_of_maps(store, source, target)
    single = dataclasses.replace(captions, source_NS=captions.source_NS[:1], target_NE=captions.target_NE[:1])
    rows, _ = rotation_rows(methods, single, means, QUIET)
    assert {row.metric for row in rows} == {"mean_cosine"}

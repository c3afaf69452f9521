"""The geometry of real CLIP and CLAP: means, cosines and gaps are those of the real spaces."""

import dataclasses
import json

import numpy as np
import pytest

from bench.recipe.__main__ import main
from bench.recipe.geometry import CLAP, CLIP, RealGeometry, Reshaped
from bench.recipe.material import Captions, Material, Scenes
from c2c_jax.data.arrays import space_of_array, store_of_arrays
from c2c_jax.errors import ConfigError

S, N, P = 48, 3000, 1500


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def centred(x, mean):
    return unit(unit(x) - mean)


@pytest.fixture(scope="module")
def texts():
    """Raw vectors of captions around a mean."""
    return meanings(0, N) + 0.3


@pytest.fixture(scope="module")
def pairs():
    """Vectors of images and sounds of P scenes, around their own means and near their captions."""
    return scenes(1)


def meanings(seed, count):
    return np.random.default_rng(seed).normal(size=(count, S))


def scenes(seed, count=P) -> Scenes:
    own = meanings(seed, count)
    image, audio = (own + 0.5 * meanings(seed + offset, count) for offset in (100, 200))
    vectors = {
        "image_NS": image - 0.4,
        "image_caption_NS": own + 0.3,
        "audio_NE": 2 * audio + 0.1,
        "sound_caption_NE": own + 0.3,
    }
    return Scenes(**{name: x.astype(np.float32) for name, x in vectors.items()}, cells_N=np.arange(count))


@pytest.fixture(scope="module")
def store(texts, tmp_path_factory):
    spaces = space_of_array("source", texts), space_of_array("target", texts)
    return store_of_arrays(tmp_path_factory.mktemp("natural") / "store", texts, texts, spaces)


@pytest.mark.parametrize("shape", [CLIP, CLAP])
def test_means_and_cosines_equal_the_real_ones(shape, texts, pairs):
    reshaped = Reshaped(shape, texts, pairs.image_NS, pairs.image_caption_NS, seed=0)
    text, media, own = reshaped.texts(texts), reshaped.media(pairs.image_NS, 0), reshaped.texts(pairs.image_caption_NS)
    assert text.shape == (N, 512) and text.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([text, media, own]), axis=1), 1, atol=1e-5)
    text_mean, media_mean = text.mean(axis=0), media.mean(axis=0)
    assert np.linalg.norm(text_mean) == pytest.approx(shape.text_mean, abs=0.02)
    assert np.linalg.norm(media_mean) == pytest.approx(shape.media_mean, abs=0.02)
    cosine = text_mean @ media_mean / np.linalg.norm(text_mean) / np.linalg.norm(media_mean)
    assert cosine == pytest.approx(shape.mean_cosine, abs=0.02)
    pair = np.sum(centred(media, media_mean) * centred(own, text_mean), axis=1).mean()
    assert pair == pytest.approx(shape.pair_cosine, abs=0.02)


def test_texts_are_only_rotated(texts, pairs):
    """Cosines between centred captions do not change."""
    reshaped = Reshaped(CLIP, texts, pairs.image_NS, pairs.image_caption_NS, seed=0)
    before = centred(texts[:200], unit(texts).mean(axis=0))
    after = reshaped.texts(texts[:200]) - reshaped.new_text_D
    np.testing.assert_allclose(unit(after) @ unit(after).T, before @ before.T, atol=0.1)
    media = Reshaped(CLIP, texts, pairs.image_NS, pairs.image_caption_NS, seed=1)
    assert np.abs(media.texts(texts[:9]) - reshaped.texts(texts[:9])).max() > 0.1


def test_drawings_have_different_noise(texts, pairs):
    reshaped = Reshaped(CLIP, texts, pairs.image_NS, pairs.image_caption_NS, seed=0)
    image = pairs.image_NS[:9]
    np.testing.assert_array_equal(reshaped.media(image, 2, 0), reshaped.media(image, 2, 0))
    for drawing in ((2, 1), (1, 0)):
        assert np.abs(reshaped.media(image, *drawing) - reshaped.media(image, 2, 0)).max() > 0.01


def test_equal_texts_get_equal_vectors(store, pairs, tmp_path):
    """Captions of the store, of drawings and of scenes with the same texts get the same vectors."""
    geometry = RealGeometry(store, pairs)
    text = store.read("source")[:40].astype(np.float32)
    natural_scenes = dataclasses.replace(scenes(2, 40), image_caption_NS=text, sound_caption_NE=text)
    moved, reshaped = geometry.store(store, tmp_path), geometry.scenes(natural_scenes, 2, 0)
    captions = geometry.captions(Captions(source_MS=text, target_ME=text, cells_M=np.arange(40)))
    for source in (reshaped.image_caption_NS, captions.source_MS):
        np.testing.assert_allclose(source, moved.read("source")[:40], atol=1e-3)
    for target in (reshaped.sound_caption_NE, captions.target_ME):
        np.testing.assert_allclose(target, moved.read("target")[:40], atol=1e-3)
    assert (
        moved.plan.source.dim
        == moved.plan.target.dim
        == reshaped.image_NS.shape[1]
        == reshaped.audio_NE.shape[1]
        == 512
    )
    np.testing.assert_array_equal(reshaped.cells_N, natural_scenes.cells_N)
    assert geometry.store(store, tmp_path).path == moved.path


def test_pairs_that_are_too_dissimilar(store, pairs):
    mismatched = dataclasses.replace(pairs, image_NS=pairs.image_NS[::-1])
    with pytest.raises(ConfigError, match="0.32; here it is -?0.0.* without any"):
        RealGeometry(store, mismatched)


def test_whole_benchmark_in_the_geometry(arguments, tmp_path, monkeypatch):
    """Random towers do not place media near their captions, so captions' vectors replace those of media here."""
    natural = Material.scenes

    def near(self, split, seed, count):
        result = natural(self, split, seed, count)
        return dataclasses.replace(result, image_NS=result.image_caption_NS, audio_NE=result.sound_caption_NE)

    monkeypatch.setattr(Material, "scenes", near)
    assert main([*arguments, "--geometry", "clip", "--json", str(tmp_path / "clip.json")]) == 0
    figures = json.loads((tmp_path / "clip.json").read_text())
    assert figures["bench.geometry"] == "clip"
    assert figures["spaces.gap_source"] == pytest.approx(0.86, abs=0.1)
    assert figures["ceiling.source"] > figures["chance.source"]


def test_spaces_that_are_too_wide(arguments, monkeypatch, capsys):
    monkeypatch.setattr("bench.recipe.geometry.DIM", 8)
    assert main([*arguments, "--geometry", "clip"]) == 2
    assert "--geometry clip makes vectors of 8 dimensions" in capsys.readouterr().err

"""Unlabelled images in training: their vectors, and how the trainer uses them."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from c2c_jax.cli.recipe import require_sources
from c2c_jax.config import Config, DataConfig, ImagesConfig, TranslatorConfig
from c2c_jax.data.images import CACHE, image_vectors
from c2c_jax.data.store import Store
from c2c_jax.errors import ConfigError, ImageError
from c2c_jax.miniworld.pairs import image_at
from c2c_jax.spaces.space import Space, identify, load_space
from c2c_jax.training.check import check
from c2c_jax.training.selection import PAIR_COSINE
from c2c_jax.training.train import train
from c2c_jax.translator.bundle import load_bundle
from tests.fixtures.random_store import random_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return random_store(tmp_path_factory.mktemp("stores") / "store")


def unit(x_ND: np.ndarray) -> np.ndarray:
    return x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True)


@pytest.mark.slow
def test_the_trainer_chooses_and_calibrates_by_them(store, tmp_path):
    """Their mean is stored unless the config says otherwise, and they set how far captions are perturbed."""
    image_PS = np.random.default_rng(1).normal(size=(70, store.plan.source.dim)).astype(np.float32) + 0.5
    config = Config(
        batch_size=40,
        epochs=3,
        eval_every=10,
        data=DataConfig(validation_size=100),
        translator=TranslatorConfig(settings={"width": 32, "depth": 2}),
        images=ImagesConfig(files="given"),
    )
    train(config, store, tmp_path, image_PS)
    bundle = load_bundle(tmp_path / "bundle")
    np.testing.assert_allclose(bundle.means.source_image, unit(image_PS).mean(0), atol=1e-6)
    assert bundle.means.used == ["source_text", "source_image"]
    entries = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    scores = [entry["noisy_mrr"] for entry in entries if entry["phase"] == "validation"]
    assert len(scores) > 1 and bundle.metrics["noisy_mrr"] == bundle.choice.best == max(scores)
    assert bundle.choice.pair_cosine != PAIR_COSINE

    ridge = dataclasses.replace(
        config, translator=TranslatorConfig(kind="ridge"), images=ImagesConfig(files="given", calibrate=False)
    )
    train(ridge, store, tmp_path / "ridge", image_PS)
    assert load_bundle(tmp_path / "ridge/bundle").means.used == []


def written(path: Path, array: np.ndarray) -> ImagesConfig:
    np.save(path, array)
    return ImagesConfig(files=str(path))


def test_vectors_of_an_array(tmp_path, monkeypatch):
    """Vectors are read unchanged; the width is that of the space, or of the store if no space is named."""
    monkeypatch.setattr("c2c_jax.data.images.load_space", None)
    dim = identify("miniworld/clip").dim
    array = np.random.default_rng(0).normal(size=(64, dim)).astype(np.float16)
    vectors_PS = image_vectors(written(tmp_path / "a.npy", array), "miniworld/clip", tmp_path)
    assert vectors_PS.dtype == np.float32
    np.testing.assert_array_equal(vectors_PS, array)
    monkeypatch.setenv("HOME", str(tmp_path))
    np.testing.assert_array_equal(image_vectors(ImagesConfig(files="~/a.npy"), "", tmp_path), array)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy"]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((63, 8)), "has 63 readable images; pass 64 or more"),
        (np.ones(8), "has 1 readable images; pass 64 or more"),
        (np.ones((64, 9)), r"holds float64 of shape \(64, 9\); expected raw vectors \[N, 8\]"),
        (np.ones((2, 64, 8)), r"expected raw vectors \[N, 8\]"),
        (np.ones((64, 8), bool), "holds bool"),
        (np.full((64, 8), np.nan), "row 0 is zero or not finite"),
        (np.eye(64, 8), "row 8 is zero or not finite"),
        (np.full((64, 8), 1e300), "row 0 is zero or not finite"),
        (np.array([{}]), r"cannot be read as an \.npy file"),
    ],
    ids=lambda value: "" if isinstance(value, np.ndarray) else value[:20],
)
def test_arrays_that_cannot_be(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(ImageError, match=message):
        image_vectors(ImagesConfig(files=str(tmp_path / "a.npy")), "", tmp_path, 8)


def test_what_is_looked_for_before_anything_is_loaded(tmp_path):
    """An array, a folder or a pattern, with or without spaces."""
    written(tmp_path / "a.npy", np.ones((64, 8)))
    (tmp_path / "folder.npy").mkdir()
    for source in ("miniworld/clip", ""):
        for name in ("a.npy", "folder.npy", ""):
            require_sources(Config(source=source, images=ImagesConfig(files=str(tmp_path / name))))
        with pytest.raises(ImageError, match=r"expected an \.npy file of raw vectors of images at .*no\.npy"):
            require_sources(Config(source=source, images=ImagesConfig(files=str(tmp_path / "no.npy"))))
        with pytest.raises(ImageError, match="found no file"):
            require_sources(Config(source=source, images=ImagesConfig(files=str(tmp_path / "no"))))


def test_vectors_of_the_mini_world_are_kept(tmp_path, monkeypatch):
    config = ImagesConfig(files="miniworld:64")
    vectors_PS = image_vectors(config, "miniworld/clip", tmp_path)
    expected = load_space("miniworld/clip").encode_images([image_at("train", 5)])
    np.testing.assert_allclose(vectors_PS[5], expected[0], atol=1e-5)
    calls = []
    encode = Space.encode_images
    monkeypatch.setattr(Space, "encode_images", lambda *args, **more: calls.append(1) or encode(*args, **more))
    np.testing.assert_array_equal(image_vectors(config, "miniworld/clip", tmp_path), vectors_PS)
    assert not calls and (tmp_path / CACHE).is_file()
    assert len(image_vectors(ImagesConfig(files="miniworld:70"), "miniworld/clip", tmp_path)) == 70 and calls


def test_vectors_of_files(tmp_path, caplog, monkeypatch):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(64):
        image_at("test", index).save(folder / f"{index:02}.png")
    (folder / "20.png").write_bytes(b"none")
    with pytest.raises(ImageError, match="has 63 readable images; pass 64 or more"):
        image_vectors(ImagesConfig(files=str(folder)), "miniworld/clip", tmp_path)
    assert "left out" in caplog.text
    image_at("test", 20).save(folder / "20.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    vectors_PS = image_vectors(ImagesConfig(files="~/pictures"), "miniworld/clip", tmp_path)
    expected = load_space("miniworld/clip").encode_images([image_at("test", 20)])
    np.testing.assert_allclose(vectors_PS[20], expected[0], atol=1e-5)
    assert image_vectors(ImagesConfig(), "miniworld/clip", tmp_path) is None


def test_misuse(tmp_path):
    for name in ("agreement@1", "transfer", ""):  # of earlier versions
        with pytest.raises(ConfigError, match=r"config\.select_by is .*; known are noisy_mrr, noisy_cosine, recall@1"):
            check(Config(batch_size=40, select_by=name))
    with pytest.raises(ConfigError, match="write miniworld:COUNT"):
        image_vectors(ImagesConfig(files="miniworld:many"), "miniworld/clip", tmp_path)
    for count in ("9" * 5000, "1000000", "0", "63", "\u0669" * 3):
        with pytest.raises(ConfigError, match="write miniworld:COUNT with 64 to 999,999 images") as caught:
            image_vectors(ImagesConfig(files=f"miniworld:{count}"), "miniworld/clip", tmp_path)
        assert len(str(caught.value)) < 200


def test_pictures_are_made_in_blocks_and_kept_ones_are_bounded(tmp_path, monkeypatch):
    config, blocks = ImagesConfig(files="miniworld:130"), []
    encode = Space.encode_images
    monkeypatch.setattr(Space, "encode_images", lambda self, given: blocks.append(len(given)) or encode(self, given))
    vectors_PS = image_vectors(config, "miniworld/clip", tmp_path)
    assert blocks == [64, 64, 2]
    with np.load(tmp_path / CACHE) as cached:
        key = cached["key"]
    np.savez(tmp_path / CACHE, key=key, source_PS=np.zeros((131, vectors_PS.shape[1]), np.float32))
    np.testing.assert_array_equal(image_vectors(config, "miniworld/clip", tmp_path), vectors_PS)
    assert blocks == [64, 64, 2] * 2

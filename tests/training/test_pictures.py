"""Unlabelled pictures beside captions: their vectors, their agreement, what the trainer makes of them."""

import dataclasses
import json

import numpy as np
import pytest

from c2c_jax.config import Config, DataConfig, PicturesConfig, TranslatorConfig
from c2c_jax.data.store import Store
from c2c_jax.errors import ConfigError, ImageError
from c2c_jax.miniworld.pairs import picture_at
from c2c_jax.models.gap import Gap
from c2c_jax.spaces import Space, load_space
from c2c_jax.training.check import check
from c2c_jax.training.feed import split
from c2c_jax.training.loop import train
from c2c_jax.training.pictures import KEPT, Pictures, picture_vectors
from c2c_jax.weights.translator import load_bundle
from tests.training.random_store import random_store

HELD_OUT, TRAINING = split(500, 100, Config().seed)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return random_store(tmp_path_factory.mktemp("stores") / "store")


def unit(x_ND: np.ndarray) -> np.ndarray:
    return x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True)


def test_agreement_by_hand(store):
    """The route by way of captions, and each picture's rank on it, as loops over all captions and pictures."""
    rng = np.random.default_rng(0)
    picture_PS = rng.normal(size=(20, store.plan.source.dim)).astype(np.float32)
    shift_S = rng.normal(size=store.plan.source.dim).astype(np.float32) / 10
    gap = Gap(source_text=shift_S, source_image=np.zeros_like(shift_S))
    found = Pictures.of(picture_PS, store, HELD_OUT, gap, "unit")
    np.testing.assert_allclose(found.given_PS, unit(picture_PS) + shift_S, atol=1e-5)
    source_NS, target_NE = (store.read(side)[TRAINING].astype(np.float64) for side in ("source", "target"))
    routes = []
    for picture_S in unit(picture_PS.astype(np.float64)) + shift_S:
        cosine_N = unit(source_NS) @ (picture_S / np.linalg.norm(picture_S))
        weight_N = np.exp((cosine_N - cosine_N.max()) / 0.01)
        mean_E = (weight_N / weight_N.sum()) @ unit(target_NE)
        routes.append(mean_E / np.linalg.norm(mean_E))
    np.testing.assert_allclose(found.route_PE, routes, atol=1e-4)
    carried_PE = unit(found.route_PE + 0.25 * rng.normal(size=found.route_PE.shape))
    ranks = [
        1 + sum(carried_E @ other_E >= carried_E @ own_E for place, other_E in enumerate(routes) if place != row)
        for row, (carried_E, own_E) in enumerate(zip(carried_PE, routes, strict=True))
    ]
    assert 1 < max(ranks)
    first = np.mean(np.array(ranks) == 1)
    assert found.scores(carried_PE, 0.36) == {
        "agreement@1": first,
        "agreement@10": np.mean(np.array(ranks) <= 10),
        "transfer": pytest.approx(0.6 * first**0.5),
    }


def test_the_trainer_scores_chooses_and_calibrates_by_them(store, tmp_path):
    picture_PS = np.random.default_rng(1).normal(size=(70, store.plan.source.dim)).astype(np.float32) + 0.5
    config = Config(
        batch_size=40,
        epochs=3,
        eval_every=10,
        data=DataConfig(holdout=100),
        translator=TranslatorConfig(width=32, depth=2),
        pictures=PicturesConfig(files="given"),
    )
    train(config, store, tmp_path, picture_PS)
    bundle = load_bundle(tmp_path / "bundle")
    np.testing.assert_allclose(bundle.gap.source_image, unit(picture_PS).mean(0), atol=1e-6)
    assert bundle.gap.used == ["source_text", "source_image"]
    entries = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    scores = [entry["transfer"] for entry in entries if entry["phase"] == "validation"]
    assert len(scores) == 3 and bundle.metrics["transfer"] == max(scores)
    assert 0 < bundle.metrics["agreement@1"] <= bundle.metrics["agreement@10"] <= 1

    ridge = dataclasses.replace(
        config, translator=TranslatorConfig(kind="ridge"), pictures=PicturesConfig(files="given", calibrate=False)
    )
    train(ridge, store, tmp_path / "ridge", picture_PS)
    uncorrected = load_bundle(tmp_path / "ridge/bundle")
    assert uncorrected.gap.used == [] and uncorrected.metrics["agreement@10"] > 0


def test_vectors_of_the_mini_world_are_kept(tmp_path, monkeypatch):
    config = PicturesConfig(files="miniworld:64")
    found = picture_vectors(config, "miniworld/clip", tmp_path)
    expected = load_space("miniworld/clip").encode_image([picture_at("train", 5)])
    np.testing.assert_allclose(found[5], expected[0], atol=1e-5)
    seen = []
    encode = Space.encode_pixels
    monkeypatch.setattr(Space, "encode_pixels", lambda *args, **more: seen.append(1) or encode(*args, **more))
    np.testing.assert_array_equal(picture_vectors(config, "miniworld/clip", tmp_path), found)
    assert not seen and (tmp_path / KEPT).is_file()
    assert len(picture_vectors(PicturesConfig(files="miniworld:70"), "miniworld/clip", tmp_path)) == 70 and seen


def test_vectors_of_files(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(64):
        picture_at("test", index).save(folder / f"{index:02}.png")
    (folder / "20.png").write_bytes(b"none")
    with pytest.raises(ImageError, match="has 63 pictures that can be read; take 64 or more"):
        picture_vectors(PicturesConfig(files=str(folder)), "miniworld/clip", tmp_path)
    assert "left out" in capsys.readouterr().err
    picture_at("test", 20).save(folder / "20.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    found = picture_vectors(PicturesConfig(files="~/pictures"), "miniworld/clip", tmp_path)
    expected = load_space("miniworld/clip").encode_image([picture_at("test", 20)])
    np.testing.assert_allclose(found[20], expected[0], atol=1e-5)
    assert picture_vectors(PicturesConfig(), "miniworld/clip", tmp_path) is None


def test_misuse(tmp_path):
    told = "config.select_by agreement@1 needs pictures, which may be any: pass --config.pictures.files"
    with pytest.raises(ConfigError, match=told):
        check(Config(batch_size=40, select_by="agreement@1"))
    with pytest.raises(ConfigError, match="write miniworld:COUNT"):
        picture_vectors(PicturesConfig(files="miniworld:many"), "miniworld/clip", tmp_path)
    for count in ("9" * 5000, "1000000", "0", "63", "\u0669" * 3):
        with pytest.raises(ConfigError, match="write miniworld:COUNT, from 64 to 999,999") as caught:
            picture_vectors(PicturesConfig(files=f"miniworld:{count}"), "miniworld/clip", tmp_path)
        assert len(str(caught.value)) < 200


def test_pictures_are_made_in_blocks_and_kept_ones_are_bounded(tmp_path, monkeypatch):
    config, blocks = PicturesConfig(files="miniworld:130"), []
    encode = Space.encode_image
    monkeypatch.setattr(Space, "encode_image", lambda self, given: blocks.append(len(given)) or encode(self, given))
    found = picture_vectors(config, "miniworld/clip", tmp_path)
    assert blocks == [64, 64, 2]
    with np.load(tmp_path / KEPT) as kept:
        key = kept["key"]
    np.savez(tmp_path / KEPT, key=key, source_PS=np.zeros((131, found.shape[1]), np.float32))
    np.testing.assert_array_equal(picture_vectors(config, "miniworld/clip", tmp_path), found)
    assert blocks == [64, 64, 2] * 2

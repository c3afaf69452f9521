"""What the tools that are not shipped do to vectors, by numpy; and what a row does, held against the product."""

import dataclasses
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from bench.recipe import others
from c2c_jax.evaluation.translation import method_of
from c2c_jax.miniworld.captions import caption, captioned_scenes, captions
from c2c_jax.miniworld.world import SEEN_CELLS
from c2c_jax.models.gap import Gap
from c2c_jax.training.log import console
from c2c_jax.training.objectives import KINDS, Settings, build_objective
from c2c_jax.weights.translator import load_bundle
from tests.training.random_store import random_store

rng = np.random.default_rng(0)
TEXT_NS = others._unit(rng.normal([1, 0, 0, 0, 0, 0], [0.3, 0.5, 0.2, 0.4, 0.3, 0.2], (4000, 6)))
IMAGE_PS = others._unit(rng.normal([0.5, 0.6, 0, 0, 0, 0.3], [0.3, 0.1, 0.4, 0.2, 0.3, 0.3], (3000, 6)))


def test_whitening_gives_pictures_the_moments_of_captions():
    moved_PS = others._whitened(TEXT_NS, IMAGE_PS)[""].of_images(IMAGE_PS)
    np.testing.assert_allclose(moved_PS.mean(0), TEXT_NS.mean(0), atol=1e-5)
    np.testing.assert_allclose(np.cov(moved_PS, rowvar=False), np.cov(TEXT_NS, rowvar=False), atol=1e-4)


def test_low_rank_takes_away_what_sets_pictures_apart():
    found = others._low_rank(TEXT_NS, IMAGE_PS)
    apart_S = IMAGE_PS.mean(0) - TEXT_NS.mean(0)
    for setting, rank in (("rank=1", 1), ("rank=4", 4)):
        left_NS = found[setting].of_texts(TEXT_NS)
        assert np.linalg.matrix_rank(left_NS, tol=1e-3) == 6 - rank
        np.testing.assert_allclose(left_NS @ apart_S, 0, atol=1e-5)
        np.testing.assert_allclose(found[setting].of_images(TEXT_NS), left_NS, atol=1e-6)


def test_drawn_noise_turns_by_its_cosine_and_has_the_shape_of_the_covariance():
    covariance_SS = np.diag([0, 4.0, 1, 0, 0, 0])
    noisy_NS = others._drawn_noise(TEXT_NS, covariance_SS)[""].trained_on
    clean_NS = np.tile(TEXT_NS, (others.COPIES, 1))
    np.testing.assert_allclose(np.sum(noisy_NS * clean_NS, axis=1), 0.8, atol=1e-5)
    # What turns it lies in the plane of the two directions and its own; along the first of them the most.
    away_NS, (rows, S) = noisy_NS - 0.8 * clean_NS, clean_NS.shape
    for row in range(0, rows, 1000):
        basis_SK = np.linalg.qr(np.stack([clean_NS[row], *np.eye(S)[1:3]], axis=1))[0]
        np.testing.assert_allclose(basis_SK @ basis_SK.T @ away_NS[row], away_NS[row], atol=1e-5)
    assert np.abs(away_NS[:, 1]).mean() > 1.2 * np.abs(away_NS[:, 2]).mean()


def test_pseudo_pictures_are_means_of_the_nearest_pictures():
    trained_NS = others._pseudo_pictures(TEXT_NS, IMAGE_PS)[""].trained_on
    is_same_N = np.all(trained_NS == TEXT_NS, axis=1)
    assert 0.45 < is_same_N.mean() < 0.55
    row = int(np.flatnonzero(~is_same_N)[0])
    weights_P = np.exp(IMAGE_PS.astype(float) @ TEXT_NS[row] / 0.01)
    expected_S = weights_P @ IMAGE_PS
    np.testing.assert_allclose(trained_NS[row], expected_S / np.linalg.norm(expected_S), atol=1e-4)


def test_relational_loss_by_loops():
    predicted_BE, target_BE = rng.normal(size=(4, 5)).astype(np.float32), others._unit(rng.normal(size=(4, 5)))
    unit_BE = predicted_BE / np.linalg.norm(predicted_BE, axis=1, keepdims=True)
    expected = np.mean(
        [(unit_BE[i] @ unit_BE[j] - target_BE[i] @ target_BE[j]) ** 2 for i in range(4) for j in range(4)]
    )
    with others.with_relational:
        objective = build_objective("2*relational", Settings())
        found = float(objective.loss(objective.init(), jnp.asarray(predicted_BE), jnp.asarray(target_BE)))
    assert found == pytest.approx(2 * expected, rel=1e-5)
    assert "relational" not in KINDS


def test_texts():
    whole = [text for _, _, text in captioned_scenes("train", 50)]
    for_clip, for_clap = others._in_templates(50)
    assert {(a.replace(t, "{}"), b.replace(t, "{}")) for a, b, t in zip(for_clip, for_clap, whole, strict=True)} == set(
        others.TEMPLATES
    )
    for shorter, text in zip(others._without_words(50)[0], whole, strict=True):
        left = iter(text.split())
        assert all(word in left for word in shorter.split())  # in their order
    own = others._of_styles("sound")(50)[0]
    assert own == list(captions("train", 50, styles=["sound"]))
    first, second = others._paraphrased(50)
    assert first == whole and sum(a != b for a, b in zip(first, second, strict=True)) > 45


def test_recombined_captions_keep_the_source_and_tell_of_cells_that_none_told_of(monkeypatch):
    told = []
    monkeypatch.setattr(others, "caption", lambda scene, style, rng: told.append(scene) or caption(scene, style, rng))
    of_clip, of_clap = others._recombined(600)
    whole = list(captioned_scenes("train", 600))
    assert of_clip == of_clap
    changed = [scene for (scene, _, before), after in zip(whole, of_clip, strict=True) if before != after]
    assert len(changed) == len(told) and 0.4 < len(told) / 600 < 0.6
    assert [scene.source for scene in changed] == [scene.source for scene in told]
    # 2 of the 12 cells of each source are held out.
    assert np.mean([scene.cell not in SEEN_CELLS for scene in told]) == pytest.approx(1 / 6, abs=0.06)


def ground(tmp_path):
    """300 captions between two random spaces, 64 pictures."""
    store = random_store(tmp_path / "store", rows=300)
    source, target = (store.read(side) for side in ("source", "target"))
    pictures = (source[:64] + 0.5).astype(np.float32)
    return SimpleNamespace(
        store=store, pairs=SimpleNamespace(image_NS=pictures), captions=300, source=source, target=target,
        flags=SimpleNamespace(seeds=2, workdir=tmp_path),
        placed=lambda config: dataclasses.replace(config, data=dataclasses.replace(config.data, holdout=50)),
    )  # fmt: skip


def test_a_row_with_no_tool_carries_pictures_as_the_product_does(tmp_path, monkeypatch):
    """The means of captions and pictures, then the memory, then the translator that was trained on the same vectors."""
    monkeypatch.setattr(console, "quiet", True)
    short = {"epochs": 1, "batch_size": 48, "translator.width": 8, "translator.depth": 1}
    monkeypatch.setitem(others.OTHERS, "none", others.Other(fixed=short))
    monkeypatch.setitem(others.OTHERS, "ensemble", others.Other(fixed=short, together=True))
    here = ground(tmp_path)
    recipe = others.other("none_memory", here)
    assert [one.setting for one in recipe.variants] == ["means", "no means"] and len(recipe.variants[0].methods) == 2
    (shipped,) = others.read_settings(others.RECIPE, {}).values()
    (run, _) = sorted((tmp_path / "runs").iterdir(), key=lambda path: load_bundle(path / "bundle").recipe["seed"])
    bundle = load_bundle(run / "bundle")
    text_NS, image_PS = (others._unit(x) for x in (here.source, here.pairs.image_NS))
    gap = Gap(source_text=text_NS.mean(0), source_image=image_PS.mean(0))
    memory = others._memory(shipped.memory, text_NS)
    expected = [method_of("mine", bundle.translator, one, memory).of_images(image_PS) for one in (gap, Gap())]
    for variant, expected_PE in zip(recipe.variants, expected, strict=True):
        np.testing.assert_allclose(variant.methods[0].of_images(here.pairs.image_NS), expected_PE, atol=2e-3)
    assert np.abs(expected[0] - expected[1]).max() > 0.02

    (together,) = others.other("ensemble", here).variants[0].methods
    apart = [method.of_images(here.pairs.image_NS) for method in others.other("none", here).variants[0].methods]
    np.testing.assert_allclose(together.of_images(here.pairs.image_NS), others._unit(sum(apart)), atol=1e-5)

"""The benchmark of recipes: scores by hand, and reuse of cached results."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from bench import runs
from bench.recipe import compare
from bench.recipe.__main__ import main
from bench.recipe.drawing import drawn
from bench.recipe.material import Captions, Draw, Scenes
from bench.recipe.methods import NO_ROWS, Row, closed_form
from bench.recipe.scores import Result, bounds, caption_scores, chance_scores, image_scores, result, summaries
from bench.recipe.table import flat, table_of
from c2c_jax.config import Config, DataConfig, TranslatorConfig
from c2c_jax.errors import ConfigError
from c2c_jax.evaluation.methods import Method, as_method, nearest_caption_method
from c2c_jax.miniworld.pairs import audio_at, image_at
from c2c_jax.miniworld.world import HELD_OUT_CELLS
from c2c_jax.retrieval.scoring import centred_array
from c2c_jax.training.closed_form import caption_means
from c2c_jax.translator.centring import ModalityMeans, uncentred
from tests.fixtures.random_store import random_store

HELD_OUT = HELD_OUT_CELLS[0]  # of source 0, as SEEN is; OTHERS are of source 1
SEEN = next(cell for cell in range(12) if cell not in HELD_OUT_CELLS)
OTHERS = [cell for cell in range(12, 24) if cell not in HELD_OUT_CELLS][:2]
CELLS = np.array([HELD_OUT, SEEN, *OTHERS])
NO_MEAN = np.zeros(4, np.float32)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def scenes(audio_NE=None, image_NS=None) -> Scenes:
    eye = 3 * np.eye(4, dtype=np.float32)
    image_NS, audio_NE = (eye if x is None else x for x in (image_NS, audio_NE))
    return Scenes(
        image_NS=image_NS, image_caption_NS=image_NS, audio_NE=audio_NE, sound_caption_NE=audio_NE, cells_N=CELLS
    )


def draw(**vectors) -> Draw:
    eye = np.eye(4, dtype=np.float32)
    return Draw(scenes=scenes(**vectors), captions=Captions(source_MS=eye, target_ME=eye, cells_M=CELLS))


def test_image_scores_by_hand():
    """Row 0 is nearest to a sound of another source but nearer to its own than to that of row 1. Row 1 retrieves its
    own sound, row 2 one of another cell of its source, row 3 one of another source. The mean of sounds favours none."""
    carried = np.array([[0.6, 0, 0, 0.8], [0, 1, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0]], np.float32)
    figures = image_scores(5 * carried, scenes(), NO_MEAN, gallery=2)
    assert (figures["source"], figures["source_seen"], figures["source_held_out"]) == pytest.approx((0.5, 2 / 3, 0))
    assert (figures["cell"], figures["cell_seen"], figures["cell_held_out"]) == pytest.approx((0.25, 1 / 3, 0))
    assert (figures["recall@1"], figures["recall@1_seen"], figures["recall@1_held_out"]) == pytest.approx(
        (0.5, 1 / 3, 1)
    )
    assert figures["recall@5"] == 1
    assert image_scores(carried, scenes(), NO_MEAN, gallery=4)["recall@1"] == 0.25
    assert figures["gap_target"] == pytest.approx(np.linalg.norm([0.15, 0, -0.25, 0.2]))


def test_scores_are_of_centred_vectors():
    """Sound 0 is nearest to the mean of translations; when centred, every image retrieves its own sound."""
    own = np.pad(0.05 * (np.eye(4) - 0.25), ((0, 0), (0, 4)))
    carried, audio = (unit(own + np.eye(8)[axes].sum(axis=0)).astype(np.float32) for axes in ([0, 5], [6]))
    mean = carried.mean(axis=0)
    assert image_scores(carried, scenes(audio), mean, gallery=4)["recall@1"] == 1
    assert image_scores(carried, scenes(audio), np.zeros(8, np.float32), gallery=4)["recall@1"] == 0.25
    captions = dataclasses.replace(draw().captions, target_ME=carried)
    assert caption_scores(7 * carried, captions, mean)["caption_recall@1"] == 1


def test_caption_scores_by_hand():
    """Captions 1 to 3 retrieve their own targets; caption 0, of a held-out cell, retrieves that of 1."""
    figures = caption_scores(np.eye(4, dtype=np.float32)[[1, 1, 2, 3]], draw().captions, NO_MEAN)
    assert figures == {"caption_recall@1": 0.75, "caption_recall@1_seen": 1, "caption_recall@1_held_out": 0}


def test_chance_by_hand():
    figures = chance_scores(scenes(), draw().captions, gallery=2)
    assert figures["source"] == figures["source_held_out"] == figures["recall@1"] == 0.5
    assert figures["cell"] == figures["cell_seen"] == figures["caption_recall@1"] == 0.25
    assert figures["recall@10"] == 1


def test_summaries_by_hand():
    figures = summaries([{"cell": 0.1, "source": 1.0}, {"cell": 0.3, "source": 1.0}])
    assert (figures["cell"].mean, figures["cell"].spread) == pytest.approx((0.2, np.sqrt(0.02)))
    assert (figures["source"].mean, figures["source"].spread) == (1.0, 0.0)
    assert summaries([{"cell": 0.1}])["cell"].spread == 0.0


def method(carried) -> Method:
    return Method(name="fixed", of_texts=lambda x: x, of_images=lambda x: carried)


def test_results_are_means_over_seeds_and_drawings():
    """In the first drawing one seed retrieves half of the cells and the other all; in the second they retrieve none and
    one."""
    eye = np.eye(4, dtype=np.float32)
    draws = [draw(audio_NE=eye), draw(audio_NE=eye[[3, 2, 1, 0]])]
    row = Row(name="r", methods=(method(eye[[0, 1, 0, 0]]), method(eye)), kept=("trained", "rotation"))
    figures = result(row, draws, NO_MEAN)
    of_each = [result(dataclasses.replace(row, methods=(method,)), [drawing], NO_MEAN).figures["cell"].mean
               for method in row.methods for drawing in draws]  # fmt: skip
    assert of_each[0] == 0.5 and of_each[2] == 1
    assert figures.figures["cell"].mean == pytest.approx(np.mean(of_each))
    assert figures.figures["cell"].spread == pytest.approx(np.std(of_each, ddof=1))
    assert figures.kept == ("trained", "rotation") and "caption_recall@1" in figures.figures
    silent = dataclasses.replace(row, reads_texts=False)
    assert "caption_recall@1" not in result(silent, draws, NO_MEAN).figures


def test_translations_among_sounds_are_centred_by_their_own_mean():
    """Such as those of an oracle, whose mean is not that of captions."""
    eye = np.eye(4, dtype=np.float32)
    carried = unit(eye + 3 * eye[0])
    oracle = dataclasses.replace(method(carried), image_mean_E=carried.mean(axis=0))
    row = Row(name="r", methods=(oracle,), reads_texts=False)
    assert result(row, [draw()], NO_MEAN).figures["cell"].mean == 1


def test_ceiling_is_the_scenes_caption():
    assert bounds([draw()], NO_MEAN)[0].figures["cell"].mean == 1


def means_of(store) -> ModalityMeans:
    """The means of a store's captions, and of images at a distance of 0.5 from them."""
    return dataclasses.replace(
        figures := caption_means(store, np.zeros(0, np.int64), "unit"), source_image=figures.mean("source_text") + 0.1
    )


def test_baselines_without_training_centre_images(tmp_path):
    """An image and a caption with the same centred vector are translated to the same vector."""
    store = random_store(tmp_path / "store", rows=100)
    means = means_of(store)
    source = store.read("source").astype(np.float32)
    image = np.asarray(uncentred(jnp.asarray(centred_array(source, means.source_text)), means.source_image))
    methods = [closed_form("procrustes", store, means), closed_form("ridge", store, means, 0.1)]
    for method in (nearest_caption_method(store, NO_ROWS, means), *methods):
        np.testing.assert_allclose(unit(method.of_images(image)), unit(method.of_texts(source)), atol=1e-3)


def test_vectors_are_used_as_they_are_without_means(tmp_path, monkeypatch):
    """The closed-form ridge and the trained one without images are the same map of unit vectors."""
    store = random_store(tmp_path / "store", rows=300)
    config = Config(
        source="",
        target="",
        data=DataConfig(validation_size=1),
        translator=TranslatorConfig(kind="ridge", input_norm="unit"),
    )
    bundle = runs.trained(config, store, tmp_path / "runs")
    figures = as_method("ridge", bundle.translator, bundle.means)
    x = store.read("source").astype(np.float32)
    closed = closed_form("ridge", store, weight=1e-3)
    np.testing.assert_allclose(figures.of_images(x), figures.of_texts(x), atol=1e-6)
    assert np.sum(figures.of_images(x) * closed.of_images(x), axis=1).min() > 0.99
    monkeypatch.setattr(runs, "train", None)  # finished runs are reused
    runs.trained(config, store, tmp_path / "runs")


def test_drawn_scenes_are_those_of_the_mini_world():
    images, audio = zip(*drawn("test", 100, 1, 1), strict=True)
    assert [len(part) for part in images] == [96, 4]
    np.testing.assert_array_equal(images[1][1], image_at("test", 97, 1))
    np.testing.assert_array_equal(audio[1][1], audio_at("test", 97, 1))


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["configs/none.py"], "no recipe at configs/none.py"),
        (["configs/mlp5.py", "configs/mlp5.py"], "already has a row 'mlp5'"),
        (["elsewhere/paper.py"], "already has a row 'paper'"),
    ],
)
def test_configs_that_cannot_be_compared(arguments, capsys, paths, message):
    assert main([*paths, *arguments[1:]]) == 2
    assert message in capsys.readouterr().err


def test_recipes_are_checked():
    with pytest.raises(ConfigError, match="config.epochs is 0"):
        runs.read_recipe("configs/mlp.py", "--config.epochs=0")


def test_run_keys(tmp_path):
    """They depend on every config field, the store's contents and the unlabelled images, not on the store's path."""
    store, other = random_store(tmp_path / "one"), random_store(tmp_path / "other", rows=400)
    config = Config(data=DataConfig(store=str(tmp_path / "one")))
    moved = Config(data=DataConfig(store=str(tmp_path / "moved")))
    key = runs.run_key(config, store)
    assert runs.run_key(moved, store) == key
    assert runs.run_key(dataclasses.replace(config, seed=1), store) != key
    assert runs.run_key(config, other) != key
    images = np.eye(24, dtype=np.float32)
    assert len({key, *(runs.run_key(config, store, unlabelled) for unlabelled in (images, images[:20]))}) == 3


def test_every_cell_of_the_table_is_a_figure():
    figures = summaries([{"cell": 0.25, "recall@1": 0.5}, {"cell": 0.75, "recall@1": 0.5}])
    figures = [Result(name="mine", figures=figures, kept=("trained", "rotation"))]
    assert flat(figures) == {
        "mine.cell": 0.5, "mine.cell_spread": pytest.approx(np.sqrt(0.125)), "mine.recall@1": 0.5,
        "mine.recall@1_spread": 0.0, "mine.kept": "trained; rotation",
    }  # fmt: skip
    assert table_of(figures).cells == [
        ["mine", "", "", "0.500 [± 0.354]", "", "", "0.500", "", "", "", "trained; rotation"]
    ]


def test_whole_benchmark_and_again_from_its_cache(arguments, tmp_path, monkeypatch, capsys):
    assert main([*arguments, "--json", str(tmp_path / "first.json")]) == 0
    out = capsys.readouterr().out
    figures = json.loads((tmp_path / "first.json").read_text())
    assert {name.partition(".")[0] for name in figures} == {"mine", "recommended", *compare.RESERVED}
    assert figures["bench.seeds"] == 2 and figures["chance.source"] == 0.25 and figures["bench.geometry"] == "natural"
    assert figures["chance.cell"] == pytest.approx(1 / 48)
    for row in ("mine", "recommended", "paper", "nearest_caption", "procrustes"):
        assert f"| {row.replace('_', ' ')} | {figures[f'{row}.caption_recall@1']:.3f}" in out
        assert {f"{row}.{name}" for name in ("cell_held_out", "recall@10_seen", "gap_target_spread")} <= set(figures)
    assert figures["mine.gap_target"] == figures["paper.gap_target"] and figures["mine.gap_target_spread"] > 0
    assert len(figures["recommended.kept"].split("; ")) == 2 and "mine.kept" not in figures
    assert "oracle_residual.caption_recall@1" not in figures

    def untouched(*_):
        raise AssertionError("what is there is not made again")

    monkeypatch.setattr(runs, "train", untouched)
    monkeypatch.setattr("bench.recipe.material.load_space", untouched)
    assert main([*arguments, "--json", str(tmp_path / "again.json")]) == 0
    assert json.loads((tmp_path / "again.json").read_text()) == figures


def test_config_of_that_name_replaces_the_recommended_one(arguments, tmp_path):
    ridge = tmp_path / "recommended.py"
    ridge.write_text((tmp_path / "mine.py").read_text())
    assert main([str(ridge), *arguments[1:], "--json", str(tmp_path / "own.json")]) == 0
    figures = json.loads((tmp_path / "own.json").read_text())
    assert figures["recommended.cell"] == figures["paper.cell"] and "recommended.kept" not in figures


def test_growing_sets(arguments, tmp_path, capsys):
    """Each number of captions trains runs of its own."""
    flags = [*arguments[1:], "--counts", "150,400", "--json", str(tmp_path / "grown.json")]
    assert main(flags) == 0
    out, figures = capsys.readouterr().out, json.loads((tmp_path / "grown.json").read_text())
    for row in ("recommended", "recommended_noisy_cosine", "procrustes", "nearest_caption"):
        assert 0 <= figures[f"{row}.150.cell"] <= figures[f"{row}.150.source"] <= 1
        for count in (150, 400):
            assert f"| {row.replace('_', ' ')}.{count} | " in out
    assert figures["recommended.150.kept"] and figures["procrustes.150.source"] != figures["procrustes.400.source"]
    assert main(["--counts", "few"]) == 2 and main(["mine.py", "--counts", "300"]) == 2
    assert "--counts is 'few'; write numbers of captions" in (message := capsys.readouterr().err)
    assert "--counts cannot be combined with CONFIG.py" in message


def test_misuse_ends_with_one_line(capsys):
    assert main(["--pairs", "100"]) == 2
    assert "must be a multiple of the 288 cells" in capsys.readouterr().err
    assert main(["none.py"]) == 2
    assert "no recipe at none.py" in capsys.readouterr().err

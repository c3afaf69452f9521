"""The bench of recipes scores as one does by hand, and reuses what it has made."""

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
from c2c_jax.evaluation.methods import Method, method_of, nearest_caption_method
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
    return Scenes(image_NS=image_NS, seen_NS=image_NS, audio_NE=audio_NE, heard_NE=audio_NE, cells_N=CELLS)


def draw(**vectors) -> Draw:
    eye = np.eye(4, dtype=np.float32)
    return Draw(scenes=scenes(**vectors), captions=Captions(source_MS=eye, target_ME=eye, cells_M=CELLS))


def test_image_scores_by_hand():
    """Row 0 lies nearest a sound of another source but nearer its own than that of row 1; row 1 finds its own; row 2
    another cell of its source; row 3 another source's. The sounds' mean is the same in all four directions."""
    carried = np.array([[0.6, 0, 0, 0.8], [0, 1, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0]], np.float32)
    found = image_scores(5 * carried, scenes(), NO_MEAN, gallery=2)
    assert (found["source"], found["source_seen"], found["source_held_out"]) == pytest.approx((0.5, 2 / 3, 0))
    assert (found["cell"], found["cell_seen"], found["cell_held_out"]) == pytest.approx((0.25, 1 / 3, 0))
    assert (found["recall@1"], found["recall@1_seen"], found["recall@1_held_out"]) == pytest.approx((0.5, 1 / 3, 1))
    assert found["recall@5"] == 1
    assert image_scores(carried, scenes(), NO_MEAN, gallery=4)["recall@1"] == 0.25
    assert found["gap_target"] == pytest.approx(np.linalg.norm([0.15, 0, -0.25, 0.2]))


def test_scores_are_of_centred_vectors():
    """Sound 0 lies nearest to the mean of what is carried; once centred, every picture finds its own sound."""
    own = np.pad(0.05 * (np.eye(4) - 0.25), ((0, 0), (0, 4)))
    carried, audio = (unit(own + np.eye(8)[axes].sum(axis=0)).astype(np.float32) for axes in ([0, 5], [6]))
    mean = carried.mean(axis=0)
    assert image_scores(carried, scenes(audio), mean, gallery=4)["recall@1"] == 1
    assert image_scores(carried, scenes(audio), np.zeros(8, np.float32), gallery=4)["recall@1"] == 0.25
    captions = dataclasses.replace(draw().captions, target_ME=carried)
    assert caption_scores(7 * carried, captions, mean)["caption_recall@1"] == 1


def test_caption_scores_by_hand():
    """Captions 1 to 3 find their own target; 0, of a held-out cell, that of 1."""
    found = caption_scores(np.eye(4, dtype=np.float32)[[1, 1, 2, 3]], draw().captions, NO_MEAN)
    assert found == {"caption_recall@1": 0.75, "caption_recall@1_seen": 1, "caption_recall@1_held_out": 0}


def test_chance_by_hand():
    found = chance_scores(scenes(), draw().captions, gallery=2)
    assert found["source"] == found["source_held_out"] == found["recall@1"] == 0.5
    assert found["cell"] == found["cell_seen"] == found["caption_recall@1"] == 0.25
    assert found["recall@10"] == 1


def test_summaries_by_hand():
    found = summaries([{"cell": 0.1, "source": 1.0}, {"cell": 0.3, "source": 1.0}])
    assert (found["cell"].mean, found["cell"].spread) == pytest.approx((0.2, np.sqrt(0.02)))
    assert (found["source"].mean, found["source"].spread) == (1.0, 0.0)
    assert summaries([{"cell": 0.1}])["cell"].spread == 0.0


def method(carried) -> Method:
    return Method(name="fixed", of_texts=lambda x: x, of_images=lambda x: carried)


def test_results_are_means_over_seeds_and_drawings():
    """Of two seeds one finds half of the cells in the first drawing, and the other all of them; in the second drawing
    they find none and one."""
    eye = np.eye(4, dtype=np.float32)
    draws = [draw(audio_NE=eye), draw(audio_NE=eye[[3, 2, 1, 0]])]
    row = Row(name="r", methods=(method(eye[[0, 1, 0, 0]]), method(eye)), kept=("trained", "rotation"))
    found = result(row, draws, NO_MEAN)
    of_each = [result(dataclasses.replace(row, methods=(one,)), [drawing], NO_MEAN).figures["cell"].mean
               for one in row.methods for drawing in draws]  # fmt: skip
    assert of_each[0] == 0.5 and of_each[2] == 1
    assert found.figures["cell"].mean == pytest.approx(np.mean(of_each))
    assert found.figures["cell"].spread == pytest.approx(np.std(of_each, ddof=1))
    assert found.kept == ("trained", "rotation") and "caption_recall@1" in found.figures
    silent = dataclasses.replace(row, reads_texts=False)
    assert "caption_recall@1" not in result(silent, draws, NO_MEAN).figures


def test_what_lies_among_sounds_is_centred_by_its_own_mean():
    """The translation of an oracle, whose mean is not that of captions."""
    eye = np.eye(4, dtype=np.float32)
    carried = unit(eye + 3 * eye[0])
    oracle = dataclasses.replace(method(carried), image_mean_E=carried.mean(axis=0))
    row = Row(name="r", methods=(oracle,), reads_texts=False)
    assert result(row, [draw()], NO_MEAN).figures["cell"].mean == 1


def test_ceiling_is_the_own_caption():
    assert bounds([draw()], NO_MEAN)[0].figures["cell"].mean == 1


def gap_of(store) -> ModalityMeans:
    """The means of a store's captions, and of pictures that lie 0.5 from them."""
    return dataclasses.replace(
        found := caption_means(store, np.zeros(0, np.int64), "unit"), source_image=found.mean("source_text") + 0.1
    )


def test_references_without_training_centre_pictures(tmp_path):
    """A picture that lies among pictures as a caption does among captions is translated to the same vector."""
    store = random_store(tmp_path / "store", rows=100)
    gap = gap_of(store)
    source = store.read("source").astype(np.float32)
    image = np.asarray(uncentred(jnp.asarray(centred_array(source, gap.source_text)), gap.source_image))
    ways = [closed_form("procrustes", store, gap), closed_form("ridge", store, gap, 0.1)]
    for one in (nearest_caption_method(store, NO_ROWS, gap), *ways):
        np.testing.assert_allclose(unit(one.of_images(image)), unit(one.of_texts(source)), atol=1e-3)


def test_vectors_are_used_as_they_are_without_means(tmp_path, monkeypatch):
    """The ridge in closed form, and the one that is trained without pictures, is the same map of unit vectors."""
    store = random_store(tmp_path / "store", rows=300)
    config = Config(
        source="",
        target="",
        data=DataConfig(validation_size=1),
        translator=TranslatorConfig(kind="ridge", input_norm="unit"),
    )
    bundle = runs.trained(config, store, tmp_path / "runs")
    found = method_of("ridge", bundle.translator, bundle.means)
    x = store.read("source").astype(np.float32)
    closed = closed_form("ridge", store, weight=1e-3)
    np.testing.assert_allclose(found.of_images(x), found.of_texts(x), atol=1e-6)
    assert np.sum(found.of_images(x) * closed.of_images(x), axis=1).min() > 0.99
    monkeypatch.setattr(runs, "train", None)  # finished runs are reused
    runs.trained(config, store, tmp_path / "runs")


def test_drawn_scenes_are_those_of_the_world():
    pictures, sounds = zip(*drawn("test", 100, 1, 1), strict=True)
    assert [len(part) for part in pictures] == [96, 4]
    np.testing.assert_array_equal(pictures[1][1], image_at("test", 97, 1))
    np.testing.assert_array_equal(sounds[1][1], audio_at("test", 97, 1))


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["configs/none.py"], "no recipe at configs/none.py"),
        (["configs/mlp5.py", "configs/mlp5.py"], "there is a row 'mlp5' already"),
        (["elsewhere/paper.py"], "there is a row 'paper' already"),
    ],
)
def test_configs_that_cannot_be_compared(arguments, capsys, paths, message):
    assert main([*paths, *arguments[1:]]) == 2
    assert message in capsys.readouterr().err


def test_recipes_are_checked():
    with pytest.raises(ConfigError, match="config.epochs is 0"):
        runs.read_recipe("configs/mlp.py", "--config.epochs=0")


def test_runs_have_keys_of_their_own(tmp_path):
    """By every field of the config, by what the store holds, not by where it lies, and by the unlabelled pictures."""
    store, other = random_store(tmp_path / "one"), random_store(tmp_path / "other", rows=400)
    config = Config(data=DataConfig(store=str(tmp_path / "one")))
    moved = Config(data=DataConfig(store=str(tmp_path / "moved")))
    key = runs.run_key(config, store)
    assert runs.run_key(moved, store) == key
    assert runs.run_key(dataclasses.replace(config, seed=1), store) != key
    assert runs.run_key(config, other) != key
    pictures = np.eye(24, dtype=np.float32)
    assert len({key, *(runs.run_key(config, store, one) for one in (pictures, pictures[:20]))}) == 3


def test_every_cell_of_the_table_is_a_figure():
    figures = summaries([{"cell": 0.25, "recall@1": 0.5}, {"cell": 0.75, "recall@1": 0.5}])
    found = [Result(name="mine", figures=figures, kept=("trained", "rotation"))]
    assert flat(found) == {
        "mine.cell": 0.5, "mine.cell_spread": pytest.approx(np.sqrt(0.125)), "mine.recall@1": 0.5,
        "mine.recall@1_spread": 0.0, "mine.kept": "trained; rotation",
    }  # fmt: skip
    assert table_of(found).cells == [
        ["mine", "", "", "0.500 [± 0.354]", "", "", "0.500", "", "", "", "trained; rotation"]
    ]


def test_whole_bench_and_again_from_what_it_left(arguments, tmp_path, monkeypatch, capsys):
    assert main([*arguments, "--json", str(tmp_path / "first.json")]) == 0
    out = capsys.readouterr().out
    figures = json.loads((tmp_path / "first.json").read_text())
    assert {name.partition(".")[0] for name in figures} == {"mine", "recommended", *compare.TAKEN}
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


def test_a_config_of_that_name_takes_the_place_of_the_recommended_one(arguments, tmp_path):
    ridge = tmp_path / "recommended.py"
    ridge.write_text((tmp_path / "mine.py").read_text())
    assert main([str(ridge), *arguments[1:], "--json", str(tmp_path / "own.json")]) == 0
    figures = json.loads((tmp_path / "own.json").read_text())
    assert figures["recommended.cell"] == figures["paper.cell"] and "recommended.kept" not in figures


def test_growing_sets(arguments, tmp_path, capsys):
    """Each number of captions trains runs of its own."""
    asked = [*arguments[1:], "--counts", "150,400", "--json", str(tmp_path / "grown.json")]
    assert main(asked) == 0
    out, figures = capsys.readouterr().out, json.loads((tmp_path / "grown.json").read_text())
    for row in ("recommended", "recommended_noisy_cosine", "procrustes", "nearest_caption"):
        assert 0 <= figures[f"{row}.150.cell"] <= figures[f"{row}.150.source"] <= 1
        for count in (150, 400):
            assert f"| {row.replace('_', ' ')}.{count} | " in out
    assert figures["recommended.150.kept"] and figures["procrustes.150.source"] != figures["procrustes.400.source"]
    assert main(["--counts", "few"]) == 2 and main(["mine.py", "--counts", "300"]) == 2
    assert "--counts is 'few'; write numbers of captions" in (told := capsys.readouterr().err)
    assert "--counts cannot be combined with CONFIG.py" in told


def test_misuse_ends_with_one_line(capsys):
    assert main(["--pairs", "100"]) == 2
    assert "must be a multiple of the 288 cells" in capsys.readouterr().err
    assert main(["none.py"]) == 2
    assert "no recipe at none.py" in capsys.readouterr().err

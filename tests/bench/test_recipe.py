"""The bench of recipes scores as one does by hand, chooses on validation alone, and takes up what it has."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from bench.recipe import bench, configs
from bench.recipe.__main__ import main
from bench.recipe.dial import Dial
from bench.recipe.drawing import drawn
from bench.recipe.material import Captions, Draw, Scenes
from bench.recipe.methods import Recipe, Variant, label_prompts, nearest_captions, oracle_ridge
from bench.recipe.scores import caption_scores, chance_scores, image_scores, space_scores, summaries
from bench.recipe.table import flat, tables
from bench.recipe.trial import Result, ceiling, choose, result
from c2c_jax.config import Config
from c2c_jax.errors import ConfigError
from c2c_jax.evaluation.translation import Method
from c2c_jax.miniworld.pairs import picture_at, sound_at
from c2c_jax.miniworld.world import HELD_OUT_CELLS
from tests.training.random_store import random_store

HELD_OUT = HELD_OUT_CELLS[0]  # of source 0, as SEEN is; OTHERS are of source 1
SEEN = next(cell for cell in range(12) if cell not in HELD_OUT_CELLS)
OTHERS = [cell for cell in range(12, 24) if cell not in HELD_OUT_CELLS][:2]
CELLS = np.array([HELD_OUT, SEEN, *OTHERS])


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
    another cell of its source; row 3 another source's."""
    carried = np.array([[0.6, 0, 0, 0.8], [0, 1, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0]], np.float32)
    found = image_scores(5 * carried, scenes(), gallery=2)
    assert (found["source"], found["source_seen"], found["source_held_out"]) == pytest.approx((0.5, 2 / 3, 0))
    assert (found["cell"], found["cell_seen"], found["cell_held_out"]) == pytest.approx((0.25, 1 / 3, 0))
    assert (found["recall@1"], found["recall@1_seen"], found["recall@1_held_out"]) == pytest.approx((0.5, 1 / 3, 1))
    assert found["recall@5"] == 1
    assert image_scores(carried, scenes(), gallery=4)["recall@1"] == 0.25
    assert found["gap_target"] == pytest.approx(np.linalg.norm([0.15, 0, -0.25, 0.2]))


def test_caption_scores_by_hand():
    """Captions 1 to 3 find their own target; 0, of a held-out cell, that of 1."""
    found = caption_scores(np.eye(4, dtype=np.float32)[[1, 1, 2, 3]], draw().captions)
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


def added(image_NS, dialled_NS):
    """What was added to each unit vector before its length was lost, one vector for all: of c·m − v = u for all rows m
    and u, the v; and how far that is from holding."""
    N, S = image_NS.shape
    left = np.zeros((N, S, N + S))
    left[np.arange(N), :, np.arange(N)] = unit(dialled_NS)
    left[:, :, N:] = -np.eye(S)
    found, *_ = np.linalg.lstsq(left.reshape(N * S, -1), unit(image_NS).ravel(), rcond=None)
    return found[N:], np.abs(left.reshape(N * S, -1) @ found - unit(image_NS).ravel()).max()


def test_constant_offset():
    """One vector of that length for all drawings; pictures keep their lengths; the gap is what numpy makes of it."""
    rng = np.random.default_rng(0)
    image, text = (rng.normal(size=(40, 8)).astype(np.float32) for _ in range(2))
    dial = Dial.parse("constant:0.85")
    moved = dial(image, 1, 0)
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), np.linalg.norm(image, axis=1), rtol=1e-5)
    vector, error = added(image, moved)
    assert error < 1e-5 and np.linalg.norm(vector) == pytest.approx(0.85, abs=1e-5)
    other = dial(text, 2, 1)
    np.testing.assert_allclose(added(text, other)[0], vector, atol=1e-5, rtol=0)
    given = dataclasses.replace(scenes(), image_NS=moved, seen_NS=text)
    expected = np.linalg.norm(unit(unit(image) + vector).mean(0) - unit(text).mean(0))
    assert space_scores(given)["gap_source"] == pytest.approx(expected, abs=1e-5)
    assert Dial.parse("constant:0")(image) is image


def test_random_offset():
    """A vector of its own for each picture: of many equal pictures the mean keeps its direction."""
    image = np.tile(np.eye(64, dtype=np.float32)[:1], (4000, 1))
    dial = Dial.parse("random:1.5")
    moved = dial(image, 1, 0)
    assert not np.allclose(moved, dial(image, 1, 1)) and np.array_equal(moved, dial(image, 1, 0))
    mean = unit(moved).mean(0)
    # A random direction is near a right angle in 64 dimensions: |u + 1.5 d| is about √(1 + 1.5²).
    assert mean[0] == pytest.approx(1 / np.sqrt(1 + 1.5**2), abs=0.02)
    assert np.abs(mean[1:]).max() < 0.02


@pytest.mark.parametrize("text", ["constant", "constant:x", "constant:-1", "constant:nan", "sideways:1", "random:inf"])
def test_offsets_that_are_none(text):
    with pytest.raises(ConfigError, match="constant:LENGTH or random:LENGTH"):
        Dial.parse(text)


def method(carried) -> Method:
    return Method(name="fixed", of_texts=lambda x: x, of_images=lambda x: carried)


def test_settings_are_chosen_on_validation_and_reported_on_test():
    """Setting "b" is the better on validation, of two seeds' mean, and the worse on test."""
    eye = np.eye(4, dtype=np.float32)
    right, half, wrong = eye, eye[[0, 1, 0, 0]], eye[[2, 2, 0, 0]]
    validation, test = [draw(audio_NE=right)], [draw(audio_NE=eye[[3, 2, 1, 0]])]
    variants = (
        Variant(setting="a", methods=(method(half), method(eye[[3, 2, 1, 0]]))),
        Variant(setting="b", methods=(method(right), method(half))),
        Variant(setting="c", methods=(method(wrong),)),
    )
    recipe = Recipe(name="r", variants=variants)
    chosen, share = choose(recipe, validation)
    assert chosen.setting == "b" and (share.mean, share.spread) == pytest.approx((0.75, np.sqrt(0.125)))
    found = result(recipe, validation, test)
    assert found.setting == "b" and found.figures["cell"].mean == 0.125
    assert result(Recipe(name="r", variants=variants[:1]), validation, test).figures["cell"].mean == 0.625
    assert "caption_recall@1" in found.figures
    assert "caption_recall@1" not in result(dataclasses.replace(recipe, reads_texts=False), validation, test).figures


def test_ceiling_is_the_own_caption():
    assert ceiling([draw()]).figures["cell"].mean == 1


def test_label_prompts_by_hand():
    picture_CS, sound_CE = np.eye(3, dtype=np.float32), np.array([[2, 0], [0, 5], [3, 4]], np.float32)
    (variant,) = label_prompts(picture_CS, sound_CE).variants
    carried = variant.methods[0].of_images(np.array([[1, 0, 4], [0, 9, 1]], np.float32))
    np.testing.assert_allclose(carried, [[0.6, 0.8], [0, 1]], atol=1e-6)


def test_oracle_ridge_learns_a_linear_map():
    rng = np.random.default_rng(0)
    image = unit(rng.normal(size=(200, 6)))
    given = dataclasses.replace(
        scenes(), image_NS=image, audio_NE=unit(image @ np.linalg.qr(rng.normal(size=(6, 6)))[0])
    )
    carried = oracle_ridge(given).variants[0].methods[0].of_images(image)
    assert np.sum(carried * given.audio_NE, axis=1).min() > 0.999


def test_cold_memory_is_the_nearest_caption(tmp_path):
    """At the lowest temperature a caption that is remembered is carried to its own target."""
    store = random_store(tmp_path / "store", rows=100)
    variant = nearest_captions(store).variants[0]
    carried = variant.methods[0].of_images(store.read("source").astype(np.float32))
    target = unit(store.read("target").astype(np.float32))
    assert np.median(np.sum(carried * target, axis=1)) > 0.999


def test_drawn_scenes_are_those_of_the_world():
    pictures, sounds = zip(*drawn("test", 100, 1, 1), strict=True)
    assert [len(part) for part in pictures] == [96, 4]
    np.testing.assert_array_equal(pictures[1][1], picture_at("test", 97, 1))
    np.testing.assert_array_equal(sounds[1][1], sound_at("test", 97, 1))


def test_grids():
    grid = configs.read_grid(["epochs=1,2", "optimizer.learning_rate=1e-3,1e-4"])
    settings = configs.read_settings("configs/residual.py", grid)
    assert list(settings) == [
        f"epochs={epochs}, optimizer.learning_rate={rate}" for epochs, rate in itertools.product("12", ("1e-3", "1e-4"))
    ]
    assert [(c.epochs, c.optimizer.learning_rate) for c in settings.values()] == [
        (1, 1e-3), (1, 1e-4), (2, 1e-3), (2, 1e-4)
    ]  # fmt: skip
    assert list(configs.read_settings("configs/residual.py", {})) == [""]


@pytest.mark.parametrize(
    ("paths", "grid", "told"),
    [
        (["configs/none.py"], [], "no recipe at configs/none.py"),
        (["configs/mlp.py"], ["no.field=1"], "no such config field"),
        (["configs/mlp.py"], ["epochs=0"], "config.epochs is 0"),
        (["configs/mlp.py"], ["epochs"], "FIELD=V1,V2"),
        (["configs/mlp.py"], ["seed=1,2"], "--grid seed is not for a grid"),
        (["configs/mlp.py"], ["data.store=x"], "--grid data.store is not for a grid"),
        (["configs/mlp.py", "configs/mlp.py"], [], "there is a row 'mlp' already"),
        (["elsewhere/ridge.py"], [], "there is a row 'ridge' already"),
        ([], ["epochs=1"], "--grid needs a CONFIG.py"),
    ],
)
def test_configs_that_are_none(paths, grid, told):
    with pytest.raises(ConfigError, match=told):
        configs.read_recipes(paths, configs.read_grid(grid), bench.ALWAYS)


def test_runs_are_told_apart(tmp_path):
    """By every field of the config and by what the store holds, not by where it lies."""
    store, other = random_store(tmp_path / "one"), random_store(tmp_path / "other", rows=400)
    config = configs.placed(Config(), ("a", "b"), 10, tmp_path / "one")
    moved = configs.placed(Config(), ("a", "b"), 10, tmp_path / "moved")
    key = configs.run_key(config, store)
    assert configs.run_key(moved, store) == key
    assert configs.run_key(dataclasses.replace(config, seed=1), store) != key
    assert configs.run_key(config, other) != key


def test_every_cell_of_the_table_is_a_figure():
    rows = [{"cell": 0.25, "recall@1": 0.5}, {"cell": 0.75, "recall@1": 0.5}]
    found = [Result(name="mine", figures=summaries(rows), setting="epochs=2", validation=summaries(rows)["cell"])]
    assert flat(found) == {
        "mine.cell": 0.5, "mine.cell_spread": pytest.approx(np.sqrt(0.125)), "mine.recall@1": 0.5,
        "mine.recall@1_spread": 0.0, "mine.validation_cell": 0.5,
        "mine.validation_cell_spread": pytest.approx(np.sqrt(0.125)), "mine.setting": "epochs=2",
    }  # fmt: skip
    first, second = tables(found)
    assert first.cells == [["mine", "", "", "0.500 [± 0.354]", "", "", "", "", "epochs=2"]]
    assert second.cells[0][:2] == ["mine", "0.500"]


def test_whole_bench_and_again_from_what_it_left(arguments, tmp_path, monkeypatch, capsys):
    assert main([*arguments, "--json", str(tmp_path / "first.json")]) == 0
    out = capsys.readouterr().out
    figures = json.loads((tmp_path / "first.json").read_text())
    assert {name.partition(".")[0] for name in figures} == {"mine", *bench.ALWAYS}
    assert figures["bench.seeds"] == 2 and figures["chance.source"] == 0.25
    assert figures["chance.cell"] == pytest.approx(1 / 48)
    for row in ("mine", "paper", "nearest_caption", "ridge", "procrustes"):
        assert f"| {row.replace('_', ' ')} | {figures[f'{row}.caption_recall@1']:.3f}" in out
        assert {f"{row}.{name}" for name in ("cell_held_out", "recall@10_seen", "gap_target_spread")} <= set(figures)
    assert figures["mine.gap_target"] == figures["paper.gap_target"] and figures["mine.gap_target_spread"] > 0
    assert "label_prompts.caption_recall@1" not in figures

    def untouched(*_):
        raise AssertionError("what is there is not made again")

    monkeypatch.setattr(configs, "train", untouched)
    monkeypatch.setattr("bench.recipe.material.load_space", untouched)
    assert main([*arguments, "--calibrate", "both", "--json", str(tmp_path / "again.json")]) == 0
    again = json.loads((tmp_path / "again.json").read_text())
    assert {name: again[name] for name in figures} == figures
    more = {name.partition(".")[0] for name in again.keys() - figures.keys()}
    assert more == {"mine_calibrated", "paper_calibrated"}
    assert again["mine_calibrated.gap_target"] != figures["mine.gap_target"]
    assert again["mine_calibrated.caption_recall@1"] == figures["mine.caption_recall@1"]


def test_misuse_ends_with_one_line(capsys):
    assert main(["--pairs", "100"]) == 2
    assert "must be a multiple of the 288 cells" in capsys.readouterr().err
    assert main(["none.py"]) == 2
    assert "no recipe at none.py" in capsys.readouterr().err

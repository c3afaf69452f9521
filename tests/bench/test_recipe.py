"""The bench of recipes scores as one does by hand, chooses on validation alone, and takes up what it has."""

import dataclasses
import itertools
import json

import jax.numpy as jnp
import numpy as np
import pytest

from bench.recipe import bench, configs
from bench.recipe.__main__ import main
from bench.recipe.drawing import drawn
from bench.recipe.material import Captions, Draw, Scenes
from bench.recipe.methods import Recipe, Variant, closed_forms, label_prompts, nearest_captions, oracle_ridge
from bench.recipe.scores import caption_scores, chance_scores, image_scores, summaries
from bench.recipe.table import flat, tables
from bench.recipe.trial import Result, ceiling, choose, result
from c2c_jax.config import Config, DataConfig, TranslatorConfig
from c2c_jax.errors import ConfigError
from c2c_jax.evaluation.translation import Method
from c2c_jax.miniworld.pairs import picture_at, sound_at
from c2c_jax.miniworld.world import HELD_OUT_CELLS
from c2c_jax.retrieval.scoring import centred_array
from c2c_jax.training.closed_form import caption_means
from c2c_jax.translator.centring import Gap, uncentred
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


def test_settings_are_chosen_on_validation_and_reported_on_test():
    """Setting "b" is the better on validation, of two seeds' mean, and the worse on test."""
    eye = np.eye(4, dtype=np.float32)
    right, half, wrong = eye, eye[[0, 1, 0, 0]], eye[[2, 2, 0, 0]]
    validation, test = [draw(audio_NE=right)], [draw(audio_NE=eye[[3, 2, 1, 0]])]
    variants = (
        Variant(setting="a", methods=(method(half), method(eye[[3, 2, 1, 0]]))),
        Variant(setting="b", methods=(method(right), method(half)), kept=("trained", "rotation")),
        Variant(setting="c", methods=(method(wrong),)),
    )
    recipe = Recipe(name="r", variants=variants)
    chosen, share = choose(recipe, validation, NO_MEAN)
    assert chosen.setting == "b" and (share.mean, share.spread) == pytest.approx((0.75, np.sqrt(0.125)))
    found = result(recipe, validation, test, NO_MEAN)
    assert found.setting == "b" and found.kept == ("trained", "rotation") and found.figures["cell"].mean == 0.125
    alone = Recipe(name="r", variants=variants[:1])
    assert result(alone, validation, test, NO_MEAN).figures["cell"].mean == 0.625
    assert "caption_recall@1" in found.figures
    silent = dataclasses.replace(recipe, reads_texts=False)
    assert "caption_recall@1" not in result(silent, validation, test, NO_MEAN).figures


def test_what_lies_among_sounds_is_centred_by_its_own_mean():
    """The translation of an oracle, whose mean is not that of captions."""
    eye = np.eye(4, dtype=np.float32)
    carried = unit(eye + 3 * eye[0])
    oracle = dataclasses.replace(method(carried), image_mean_E=carried.mean(axis=0))
    recipe = Recipe(name="r", variants=(Variant(setting="", methods=(oracle,)),), reads_texts=False)
    assert result(recipe, [draw()], [draw()], NO_MEAN).figures["cell"].mean == 1


def test_ceiling_is_the_own_caption():
    assert ceiling([draw()], NO_MEAN).figures["cell"].mean == 1


def test_label_prompts_by_hand():
    """Pictures lie in another place than prompts do: centred, each is nearest its own."""
    picture_CS, sound_CE = np.eye(3, dtype=np.float32), np.array([[2, 0], [0, 5], [3, 4]], np.float32)
    cone = np.array([0, 0, 0.9], np.float32)
    gap = Gap(source_text=np.zeros(3, np.float32), source_image=cone)
    (variant,) = label_prompts(picture_CS, sound_CE, gap).variants
    carried = variant.methods[0].of_images(unit(cone + 0.3 * picture_CS[[2, 1]]))
    np.testing.assert_allclose(carried, [[0.6, 0.8], [0, 1]], atol=1e-6)


def test_oracle_ridge_learns_a_linear_map():
    rng = np.random.default_rng(0)
    image = unit(rng.normal(size=(200, 6)))
    given = dataclasses.replace(
        scenes(), image_NS=image, audio_NE=unit(image @ np.linalg.qr(rng.normal(size=(6, 6)))[0])
    )
    oracle = oracle_ridge(given).variants[0].methods[0]
    assert np.sum(oracle.of_images(image) * given.audio_NE, axis=1).min() > 0.99
    np.testing.assert_allclose(oracle.image_mean_E, given.audio_NE.mean(axis=0), atol=1e-6)


def test_cold_memory_is_the_nearest_caption(tmp_path):
    """At the lowest temperature a caption that is remembered is carried to its own target."""
    store = random_store(tmp_path / "store", rows=100)
    source, target = (store.read(side).astype(np.float32) for side in ("source", "target"))
    for gap in (None, gap_of(store)):
        variant = nearest_captions(store, gap).variants[0]
        carried = variant.methods[0].of_texts(source)
        assert np.median(np.sum(unit(carried) * unit(target), axis=1)) > 0.999


def gap_of(store) -> Gap:
    """The means of a store's captions, and of pictures that lie 0.5 from them."""
    return dataclasses.replace(
        found := caption_means(store, np.zeros(0, np.int64), "unit"), source_image=found.mean("source_text") + 0.1
    )


def test_references_without_training_centre_pictures(tmp_path):
    """A picture that lies among pictures as a caption does among captions is carried to the same vector."""
    store = random_store(tmp_path / "store", rows=100)
    gap = gap_of(store)
    source = store.read("source").astype(np.float32)
    image = np.asarray(uncentred(jnp.asarray(centred_array(source, gap.source_text)), gap.source_image))
    for recipe in (nearest_captions(store, gap), *closed_forms(store, gap)):
        method = recipe.variants[0].methods[0]
        np.testing.assert_allclose(unit(method.of_images(image)), unit(method.of_texts(source)), atol=1e-3)


def test_vectors_are_used_as_they_are_without_means(tmp_path, monkeypatch):
    """The ridge in closed form, and the one that is trained without pictures, is the same map of unit vectors."""
    store = random_store(tmp_path / "store", rows=300)
    config = Config(
        source="",
        target="",
        data=DataConfig(validation_size=1),
        translator=TranslatorConfig(kind="ridge", input_norm="unit"),
    )
    told = []
    found = configs.trained("r", config, store, 2, tmp_path / "runs", lambda: told.append(1))
    assert len(found) == len(told) == 2
    x = store.read("source").astype(np.float32)
    (closed,) = (one.methods[0] for one in closed_forms(store)[0].variants if one.setting == "ridge=0.001")
    for method in found:
        np.testing.assert_allclose(method.of_images(x), method.of_texts(x), atol=1e-6)
        assert np.sum(method.of_images(x) * closed.of_images(x), axis=1).min() > 0.99
    monkeypatch.setattr(configs, "train", None)  # what is done is read again
    assert len(configs.trained("r", config, store, 2, tmp_path / "runs", lambda: None)) == 2


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
        configs.read_recipes(paths, configs.read_grid(grid), bench.TAKEN)


def test_runs_are_told_apart(tmp_path):
    """By every field of the config, by what the store holds, not by where it lies, and by the unlabelled pictures."""
    store, other = random_store(tmp_path / "one"), random_store(tmp_path / "other", rows=400)
    config = configs.placed(Config(), ("a", "b"), 10, tmp_path / "one")
    moved = configs.placed(Config(), ("a", "b"), 10, tmp_path / "moved")
    key = configs.run_key(config, store)
    assert configs.run_key(moved, store) == key
    assert configs.run_key(dataclasses.replace(config, seed=1), store) != key
    assert configs.run_key(config, other) != key
    pictures = np.eye(24, dtype=np.float32)
    assert len({key, *(configs.run_key(config, store, one) for one in (pictures, pictures[:20]))}) == 3


def test_every_cell_of_the_table_is_a_figure():
    rows = [{"cell": 0.25, "recall@1": 0.5}, {"cell": 0.75, "recall@1": 0.5}]
    figures, kept = summaries(rows), ("trained", "rotation")
    found = [Result(name="mine", figures=figures, setting="epochs=2", kept=kept, validation=figures["cell"])]
    assert flat(found) == {
        "mine.cell": 0.5, "mine.cell_spread": pytest.approx(np.sqrt(0.125)), "mine.recall@1": 0.5,
        "mine.recall@1_spread": 0.0, "mine.validation_cell": 0.5,
        "mine.validation_cell_spread": pytest.approx(np.sqrt(0.125)), "mine.setting": "epochs=2",
        "mine.kept": "trained; rotation",
    }  # fmt: skip
    first, second = tables(found)
    assert first.cells == [["mine", "", "", "0.500 [± 0.354]", "", "", "", "", "epochs=2", "trained; rotation"]]
    assert second.cells[0][:2] == ["mine", "0.500"]


def test_whole_bench_and_again_from_what_it_left(arguments, tmp_path, monkeypatch, capsys):
    assert main([*arguments, "--json", str(tmp_path / "first.json")]) == 0
    out = capsys.readouterr().out
    figures = json.loads((tmp_path / "first.json").read_text())
    assert {name.partition(".")[0] for name in figures} == {"mine", "recommended", *bench.TAKEN}
    assert figures["bench.seeds"] == 2 and figures["chance.source"] == 0.25 and figures["bench.geometry"] == "natural"
    assert figures["chance.cell"] == pytest.approx(1 / 48)
    for row in ("mine", "recommended", "paper", "nearest_caption", "ridge", "procrustes"):
        assert f"| {row.replace('_', ' ')} | {figures[f'{row}.caption_recall@1']:.3f}" in out
        assert {f"{row}.{name}" for name in ("cell_held_out", "recall@10_seen", "gap_target_spread")} <= set(figures)
    assert figures["mine.gap_target"] == figures["paper.gap_target"] and figures["mine.gap_target_spread"] > 0
    assert len(figures["recommended.kept"].split("; ")) == 2 and "mine.kept" not in figures
    assert "label_prompts.caption_recall@1" not in figures

    def untouched(*_):
        raise AssertionError("what is there is not made again")

    monkeypatch.setattr(configs, "train", untouched)
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
        assert f"{figures[f'{row}.150.source']:.3f} | {figures[f'{row}.400.source']:.3f}" in out
    assert figures["recommended.150.kept"] and figures["procrustes.150.source"] != figures["procrustes.400.source"]
    assert main(["--counts", "few"]) == 2 and main(["mine.py", "--counts", "300"]) == 2
    assert "--counts is 'few'; write numbers of captions" in (told := capsys.readouterr().err)
    assert "--counts cannot be combined with CONFIG.py" in told


def test_misuse_ends_with_one_line(capsys):
    assert main(["--pairs", "100"]) == 2
    assert "must be a multiple of the 288 cells" in capsys.readouterr().err
    assert main(["none.py"]) == 2
    assert "no recipe at none.py" in capsys.readouterr().err

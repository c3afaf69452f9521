"""Ways of use cost no training and are the product's own; the dial finds its gap; a study goes on where it stopped."""

import dataclasses
import json

import numpy as np
import pytest
import soundfile

from bench.recipe import configs, ground, study
from bench.recipe.__main__ import main
from bench.recipe.dial import SEED, Dial
from bench.recipe.material import Material
from bench.recipe.plots import along
from bench.recipe.study_rows import ONE_EACH, Case, calibrated, panels, row
from bench.recipe.use import Unlabelled, in_use
from c2c_jax import calibration
from c2c_jax.config import Config, DataConfig, MemoryConfig, TranslatorConfig
from c2c_jax.data.arrays import store_of_arrays
from c2c_jax.errors import ConfigError
from c2c_jax.evaluation.translation import method_of
from c2c_jax.miniworld.pairs import picture_at, sound_at
from c2c_jax.spaces import identify
from c2c_jax.training.log import console
from c2c_jax.training.loop import train
from c2c_jax.weights.translator import load_bundle
from tests.training.random_store import random_store

RIDGE = Config(source="", target="", data=DataConfig(holdout=50), translator=TranslatorConfig(kind="ridge"))


def test_dial_by_its_gap():
    """Pictures and captions all in one point: a vector of length L in a direction at cosine c turns them by an angle θ
    with tan θ = L s / (1 + L c), s = √(1 − c²), and then they are 2 sin(θ/2) apart."""
    at = np.eye(8, dtype=np.float32)[:1].repeat(5, axis=0)
    direction = np.random.default_rng(SEED).normal(size=8)
    c = direction[0] / np.linalg.norm(direction)
    angle = 2 * np.arcsin(0.55 / 2)
    expected = np.sin(angle) / (np.sqrt(1 - c**2) * np.cos(angle) - c * np.sin(angle))
    dial = Dial.parse("gap:0.55").set_to(at, 3 * at)
    assert dial.kind == "constant" and dial.length == pytest.approx(expected, abs=1e-5)
    assert Dial.parse("gap:0").set_to(at, at) == Dial() and Dial.parse("random:2").set_to(at, at).length == 2
    with pytest.raises(ConfigError, match="cannot be reached by a constant vector: the natural gap is 1.414"):
        Dial.parse("gap:0.5").set_to(at, np.roll(at, 1, axis=1))


def test_steps_are_those_of_another_size():
    """15 epochs of 49,000 in batches of 512 are 1,435.5 steps: of 270 captions in batches of 256, 1,361 epochs."""
    config = Config(batch_size=512, epochs=15, data=DataConfig(holdout=1000))
    found = {rows: configs.fitted(config, rows, 50_000) for rows in (300, 3000, 50_000, 301_000)}
    assert {rows: (c.data.holdout, c.batch_size, c.epochs) for rows, c in found.items()} == {
        300: (30, 256, 1361), 3000: (300, 512, 272), 50_000: (1000, 512, 15), 301_000: (1000, 512, 2)
    }  # fmt: skip


def test_memory_beside_a_run_is_that_of_training_with_it(tmp_path, monkeypatch):
    """Bit for bit, of whatever size and share, and one run serves all."""
    monkeypatch.setattr(console, "quiet", True)
    store, runs = random_store(tmp_path / "store", rows=300), tmp_path / "runs"
    counted = []
    monkeypatch.setattr(configs, "train", lambda *given: counted.append(given) or train(*given))
    image_BS = np.random.default_rng(1).normal(size=(20, 24)).astype(np.float32)
    carried = []
    for memory in (MemoryConfig(captions=40, share=0.7, temperature=0.05), MemoryConfig(captions=-1)):
        config = dataclasses.replace(RIDGE, seed=0, memory=memory)
        (mine,) = configs.trained("mine", config, store, 1, runs, lambda: None)
        train(config, store, tmp_path / f"run{memory.captions}")
        expected = load_bundle(tmp_path / f"run{memory.captions}" / "bundle")
        whole = method_of("whole", expected.translator, expected.gap, expected.memory)
        carried.append(mine.of_images(image_BS))
        np.testing.assert_array_equal(carried[-1], whole.of_images(image_BS))
        kept = load_bundle(runs / configs.run_key(config, store) / "bundle")
        assert kept.memory is None
        np.testing.assert_array_equal(in_use(kept, config, store).memory.source, expected.memory.source)
    assert len(counted) == 1 and np.abs(carried[0] - carried[1]).max() > 1e-3


def test_means_are_those_of_c2c_calibrate(tmp_path, arguments, clip_folder, monkeypatch):
    """Of the vectors that `c2c calibrate` came to by files."""
    monkeypatch.setattr(console, "quiet", True)
    clap, rng = tmp_path / "clap", np.random.default_rng(0)
    spaces = identify(str(clip_folder)), identify(str(clap))
    vectors = (rng.normal(0.3, 1, (300, space.dim)).astype(np.float32) for space in spaces)
    train(RIDGE, store_of_arrays(tmp_path / "store", *vectors, spaces), tmp_path / "run")
    pictures = [tmp_path / f"{number}.png" for number in range(8)]
    for number, path in enumerate(pictures):
        picture_at("train", number).save(path)
        (tmp_path / "sounds").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "sounds" / f"{number}.wav", sound_at("train", 8 + number), 16_000)
    encoded = []

    def recorded(encode):
        def to_vectors(*given):
            encoded.append(encode(*given))
            return encoded[-1]

        return to_vectors

    monkeypatch.setattr(calibration, "picture_vectors", recorded(calibration.picture_vectors))
    monkeypatch.setattr(calibration, "heard_vectors", recorded(calibration.heard_vectors))
    calibration.calibrate(
        tmp_path / "run", pictures=pictures, sounds=tmp_path / "sounds", clap=str(clap), out=tmp_path / "calibrated",
        console=console,
    )  # fmt: skip
    image_NS, audio_ME = (np.stack(list(of_files.values())) for of_files, _ in encoded)
    assert len(image_NS) == len(audio_ME) == 8
    expected, plain = (load_bundle(tmp_path / folder) for folder in ("calibrated", "run/bundle"))
    for means in (Unlabelled(image_NS=image_NS), Unlabelled(image_NS=image_NS, audio_ME=audio_ME)):
        gap = in_use(plain, RIDGE, None, means).gap
        assert (gap.target_audio is None) == (means.audio_ME is None) and gap.source_image is not None
        for name in gap.known:
            np.testing.assert_array_equal(getattr(gap, name), getattr(expected.gap, name), err_msg=name)


def test_unlabelled_files_are_no_pairs():
    from tests.bench.test_recipe import scenes

    pairs = scenes()
    both = Unlabelled.of("both", pairs)
    np.testing.assert_array_equal(both.image_NS, pairs.image_NS[:2])
    np.testing.assert_array_equal(both.audio_ME, pairs.audio_NE[2:])
    alone = Unlabelled.of("pictures", pairs)
    assert alone.audio_ME is None and len(alone.image_NS) == 4


@pytest.mark.parametrize("is_quick", [True, False])
def test_rows_of_the_study(is_quick):
    """All are configs that can be; a quick study has the first setting of each; no two rows of a panel share a name."""
    found = panels(type("Flags", (), {"captions": 50_000, "quick": is_quick}))
    assert list(found) == ["tools", "gap", "captions", "towers", "curves", "frontier", "others"]
    for cases in found.values():
        names = [one.name + case.suffix for case in cases for one in case.rows]
        names += [name + case.suffix for case in cases for name in case.references]
        assert len(set(names)) == len(names)
    rows = {one.name: one for one in found["tools"][0].rows}
    settings = rows["memory"].settings()
    assert len(settings) == (1 if is_quick else 36)
    first = next(iter(settings.values()))
    assert (first.memory.captions, first.memory.share, first.augment.noise) == (8000, 0.45, 0.8)
    assert len(rows["noise"].settings()) == (1 if is_quick else 6)
    assert next(iter(rows["plain"].settings().values())).augment.noise == 1
    assert [one.name for one in calibrated(ONE_EACH[:3])][-1] == "noise_calibrated"
    for one in rows.values():
        assert len(one.first.settings()) == 1


def tiny_panels(recipe: str) -> dict[str, tuple[Case, ...]]:
    rows = (row("mine", {}, {"batch_size": (16, 8)}, config=recipe),)
    held_against = ("nearest_caption@0.01", "ceiling", "chance")
    return {
        "one": (Case(rows=rows, captions=120, references=held_against),),
        "two": (
            Case(rows=calibrated(rows), captions=120, suffix="@far", offset="gap:0.5"),
            Case(rows=(row("other", {"epochs": 2}, config=recipe),), captions=120, suffix="@like", like=200),
        ),
        "towers": (Case(rows=rows, captions=120, second=True),),
    }


def drawn_at_random(split, seed, count):
    """Scenes of the test's 24 cells as random vectors: what towers make of them is for other tests."""
    rng = np.random.default_rng((len(split), seed))
    names = ("image_NS", "seen_NS", "audio_NE", "heard_NE")
    vectors = {name: rng.normal(0.3, 1, (count, 64)).astype(np.float32) for name in names}
    return vectors | {"cells_N": np.arange(count) % 24}


def captions_at_random(split, seed, count, texts):
    vectors = drawn_at_random(split, seed, count)
    return {"source_MS": vectors["seen_NS"], "target_ME": vectors["heard_NE"], "cells_M": vectors["cells_N"]}


def test_study_goes_on_where_it_stopped(arguments, tmp_path, monkeypatch, capsys):
    recipe, *sizes = arguments
    monkeypatch.setattr(Material, "_scenes", lambda self, *asked: drawn_at_random(*asked))
    monkeypatch.setattr(Material, "_captions", lambda self, *asked: captions_at_random(*asked))
    space, rng = identify(str(tmp_path / "clap")), np.random.default_rng(0)
    vectors = [rng.normal(0.3, 1, (120, 64)).astype(np.float32) for _ in range(2)]
    monkeypatch.setattr(ground, "prepare_store", lambda _, path: store_of_arrays(path, *vectors, (space, space)))
    monkeypatch.setattr(study, "panels", lambda flags: tiny_panels(recipe))
    counted, most = [], 2

    def training(config, store, run):
        if len(counted) == most:
            raise KeyboardInterrupt
        counted.append(config)
        return train(config, store, run)

    monkeypatch.setattr(configs, "train", training)
    asked = ["--study", *sizes, *("--seeds=1", "--pairs=24", "--json"), str(tmp_path / "study.json")]
    with pytest.raises(KeyboardInterrupt):
        main(asked)  # after the first panel's two settings, which serve the second one's first case too
    folder = tmp_path / "work" / "study"
    assert sorted(path.name for path in folder.iterdir()) == ["one.json"]
    before = (folder / "one.json").read_bytes()
    for run in (tmp_path / "work" / "runs").iterdir():
        (run / configs.DONE).unlink()  # so that the first panel, if it were run again, would be trained again
    capsys.readouterr()
    counted.clear()
    most = 3
    assert main(asked) == 0
    assert [config.epochs for config in counted] == [1, 1, 3]
    assert (folder / "one.json").read_bytes() == before
    told = capsys.readouterr()
    assert "## one" in told.out and "| mine calibrated@far |" in told.out
    assert "towers is left out: it needs --second CLIP CLAP" in told.err
    figures = json.loads((tmp_path / "study.json").read_text())
    assert {name.rpartition(".")[0] for name in figures} == {
        "one.mine", "one.nearest_caption@0.01", "one.ceiling", "one.chance", "one.spaces", "two.mine_calibrated@far",
        "two.spaces@far", "two.other@like", "two.spaces@like",
    }  # fmt: skip
    assert figures["one.mine.setting"].startswith("batch_size=") and figures["two.spaces@far.offset"] > 0
    assert f"{figures['one.mine.cell']:.3f}" in (folder / "tables.md").read_text()
    counted.clear()
    assert main(asked) == 0 and not counted
    assert json.loads((tmp_path / "study.json").read_text()) == figures


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--study", "configs/mlp.py"], "--study has its own rows and takes no configs"),
        (["--study", "--offset", "gap:0.5"], "takes no --offset"),
        (["--panels", "gap"], "add --study"),
        (["--study", "--panels", "gaps"], "--panels 'gaps' is none; there are tools, gap"),
    ],
)
def test_misuse_of_the_study(given, told, capsys):
    assert main(given) == 2
    assert told in capsys.readouterr().err


def test_points_of_a_line_are_in_their_order():
    assert along({"noise@16": {}, "noise@2": {}, "noise_memory@1": {}, "plain": {}}, "noise") == ["2", "16"]

"""The defaults of the commands: the mini world's spaces and translator."""

import json

import numpy as np
import pytest
import soundfile

from c2c_jax.cli.main import main
from c2c_jax.io.resolve import EMBEDDED
from c2c_jax.miniworld.pairs import audio_at, image_at
from c2c_jax.miniworld.world import CELLS, SHARED, SOURCES
from c2c_jax.spaces.space import load_space
from c2c_jax.translator.bundle import load_bundle
from c2c_jax.translator.inference import translate
from tools.pretrain.texts import prompt_vectors
from tools.pretrain.towers import zero_shot

EXAMPLES = EMBEDDED.parents[2] / "examples"


def test_translator_retrieves_sounds_ten_times_as_often_as_chance():
    """Retrieves the nearest of 288 sounds for an image of each cell, and checks its source and cell."""
    bundle = load_bundle(EMBEDDED / "translator")
    clip, clap = load_space(bundle.source.name, only="image"), load_space(bundle.target.name, only="audio")
    assert (clip.fingerprint, clap.fingerprint) == (bundle.source.fingerprint, bundle.target.fingerprint)
    images = translate(bundle, clip.encode_images([image_at("test", cell) for cell in range(CELLS)]))
    audio = clap.encode_audio([audio_at("test", cell) for cell in range(CELLS)], batch_size=96)
    nearest = np.argmax(images @ (audio / np.linalg.norm(audio, axis=1, keepdims=True)).T, axis=1)
    of_source = np.mean(nearest // len(SHARED) == np.arange(CELLS) // len(SHARED))
    assert of_source > 10 / len(SOURCES)
    assert np.mean(nearest == np.arange(CELLS)) > 10 / CELLS


@pytest.fixture
def library(tmp_path):
    for name, index in (("dog", 98), ("piano", 134), ("train", 183)):
        soundfile.write(tmp_path / f"{name}.wav", audio_at("test", index), 16_000)
    return tmp_path


def test_search_with_an_image_and_sounds(library, capsys):
    assert main(["search", str(EXAMPLES / "dog.png"), "--library", str(library), "--json"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert "drawings of 24 sources, not for photographs" in err and result["clap"]["name"] == "miniworld/clap"
    assert result["queries"][0]["sounds"][0]["file"].endswith("dog.wav")


@pytest.mark.slow
def test_from_captions_to_sounds_that_the_clap_recognises(tmp_path, capsys):
    """With fewer captions and epochs, and an image of every fourth source: ten times chance is 2.5 of 6."""
    smaller = ["data.captions=miniworld:5000", "epochs=12", "memory.captions=2000", "pictures.files=miniworld:200"]
    run, config = tmp_path / "run", EXAMPLES.parent / "configs/miniworld.py"
    flags = [f"--config.{setting}" for setting in smaller]
    assert main(["train", "--config", str(config), "--workdir", str(run), *flags]) == 0
    cells = np.arange(6, CELLS, 4 * len(SHARED))
    (folder := tmp_path / "pictures").mkdir()
    for cell in cells:
        image_at("test", int(cell)).save(folder / f"{cell:03d}.png")
    capsys.readouterr()
    assert main(["infer", str(folder), "--translator", str(run), "--out", str(tmp_path / "sounds")]) == 0
    out, _ = capsys.readouterr()
    files = [tmp_path / "sounds" / f"{cell:03d}.wav" for cell in cells]
    assert out.split() == [str(file) for file in files]
    clap = load_space("miniworld/clap")
    vectors = clap.encode_audio([soundfile.read(file, dtype="float32")[0] for file in files], batch_size=24)
    assert zero_shot(vectors, prompt_vectors(clap, "sound"), cells)["source"] > 10 / len(SOURCES)


def test_infer_with_an_image(tmp_path, capsys):
    assert main(["infer", str(EXAMPLES / "dog.png"), "--out", str(tmp_path / "dog.wav")]) == 0
    samples, rate = soundfile.read(tmp_path / "dog.wav")
    assert (rate, len(samples)) == (16_000, 40_960) and np.abs(samples).max() > 0.01
    settings = json.loads((tmp_path / "dog.sound.json").read_text())
    assert settings["audioldm"]["name"] == "miniworld/audioldm"


def test_save_embedding_with_an_image(tmp_path, capsys):
    assert main(["infer", str(EXAMPLES / "train.png"), "--save-embedding", str(tmp_path / "v.npy")]) == 0
    bundle = load_bundle(EMBEDDED / "translator")
    expected = translate(bundle, load_space("miniworld/clip").encode_images([image_at("test", 183, 1)]))
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), expected[0], atol=1e-6)

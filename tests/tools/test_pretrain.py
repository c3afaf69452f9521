"""Pretraining of the mini world's CLIP and CLAP, for one step."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import transformers

from c2c_jax.miniworld import captions
from c2c_jax.miniworld.world import HELD_OUT_CELLS
from c2c_jax.spaces.space import load_space
from tools.pretrain import clap, clip, texts
from tools.pretrain.cards import write_card
from tools.pretrain.towers import zero_shot


def small(module, monkeypatch):
    monkeypatch.setattr(module, "TRAINING_SIZE", 480)
    monkeypatch.setattr(module, "EVALUATION_SIZE", 24)
    monkeypatch.setattr(captions, "PROMPTS", 1)
    monkeypatch.setattr(texts, "CORPUS_SIZE", 2000)
    sizes = {"WIDTH": 32, "VISION_LAYERS": 1} if module is clip else {"TEXT_WIDTH": 32, "DEPTHS": [1, 1]}
    for name, size in {**sizes, "TEXT_LAYERS": 1}.items():
        monkeypatch.setattr(module, name, size)
    return dataclasses.replace(module.RECIPE, steps=1, batch_size=8, warmup=0)


@pytest.mark.slow
def test_clip_learns(monkeypatch, tmp_path):
    space, scores, minutes = clip.train(tmp_path, small(clip, monkeypatch), 1)
    assert 0 < minutes < 10
    assert set(scores) == {"source", "cell", "seen", "held_out"} and all(0 <= score <= 1 for score in scores.values())
    for side in ("visual_projection", "text_projection"):
        trained, initial = (getattr(model, side).kernel[...] for model in (space.model, clip.new_space(0).model))
        assert np.abs(trained - initial).max() > 1e-5


@pytest.mark.slow
def test_clap_learns_with_statistics_of_mel_bins(monkeypatch, tmp_path):
    space, _, _ = clap.train(tmp_path, small(clap, monkeypatch), 1)
    new = clap.new_space(0)
    mels = np.load(next(tmp_path.glob("material/mels-train-*.npy"))).astype(np.float32)
    norm = space.model.audio_model.audio_encoder.batch_norm
    np.testing.assert_allclose(norm.mean[...], mels.mean(axis=(0, 1)), atol=1e-3, rtol=0)
    np.testing.assert_allclose(norm.var[...], mels.var(axis=(0, 1)), atol=1e-2, rtol=1e-4)
    for tower in ("audio_projection", "text_projection"):
        trained, initial = (getattr(model, tower).linear2.kernel[...] for model in (space.model, new.model))
        assert np.abs(trained - initial).max() > 1e-5


@pytest.mark.parametrize(("module", "kind"), [(clip, transformers.CLIPModel), (clap, transformers.ClapModel)])
def test_transformers_reads_the_saved_space(module, kind, tmp_path):
    module.new_space(0).save(tmp_path / "space")
    space, oracle = load_space(str(tmp_path / "space")), kind.from_pretrained(tmp_path / "space").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "space")
    texts = ["two small bells ring on the grass", "a cow moos once"]
    with torch.no_grad():
        expected = oracle.get_text_features(**tokenizer(texts, padding=True, return_tensors="pt")).pooler_output.numpy()
    actual = space.encode_text(texts)  # ClapModel returns unit vectors
    actual, expected = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (actual, expected))
    np.testing.assert_allclose(actual, expected, atol=1e-5, rtol=0)


def test_zero_shot_by_hand():
    """Views 0 and 1 match their cell, 2 another cell of its source, 3 a cell of another source."""
    held_out = HELD_OUT_CELLS[0]
    training_cell = next(cell for cell in range(12) if cell not in HELD_OUT_CELLS and cell + 1 not in HELD_OUT_CELLS)
    prompts, views = np.eye(288), np.eye(288)[[held_out, training_cell, training_cell + 1, 40]]
    actual = zero_shot(3 * views, 5 * prompts, np.array([held_out, training_cell, training_cell, 100]))
    training_rows = 2 if 100 in HELD_OUT_CELLS else 3
    assert actual["source"] == 0.75 and actual["cell"] == 0.5
    assert actual["held_out"] == 1 / (4 - training_rows) and actual["seen"] == 1 / training_rows


def test_card(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1})
    folder = tmp_path / "clip"
    folder.mkdir()
    write_card(folder, scores={"source": 0.9, "cell": 0.8}, recipe={"steps": 7, "seed": 0}, minutes=12.34)
    assert json.loads((folder / "scores.json").read_text()) == {
        "scores": {"source": 0.9, "cell": 0.8}, "recipe": {"steps": 7, "seed": 0}, "minutes": 12.3
    }  # fmt: skip
    card = (folder / "README.md").read_text()
    assert "| source | 0.900 |" in card and "pretrain clip --seed 0` in 12 minutes of 2 CPU cores" in card

"""The built-in checkpoints: they reach the scores of their cards, and transformers reads them."""

import json

import diffusers
import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from c2c_jax.errors import CheckpointError
from c2c_jax.generation.audioldm import AudioLDM
from c2c_jax.generation.griffin_lim import GriffinLim
from c2c_jax.generation.sampling import Sampling
from c2c_jax.io.resolve import EMBEDDED
from c2c_jax.miniworld.pairs import image_at
from c2c_jax.miniworld.world import scene_at
from c2c_jax.spaces.space import identify, load_space
from c2c_jax.spaces.weights.folders import checkpoint_folder
from tests.fixtures.versions import USES_IMAGE_PROCESSOR
from tools.pretrain import audioldm, clap, clip
from tools.pretrain.views import SceneViews

MIN_SCORES = {"clip": {"source": 0.85, "cell": 0.78}, "clap": {"source": 0.92, "cell": 0.77}}


def card(name: str) -> dict:
    return json.loads((EMBEDDED / name / "scores.json").read_text())["scores"]


@pytest.mark.parametrize("module", [clip, pytest.param(clap, marks=pytest.mark.slow)], ids=["clip", "clap"])
def test_scores_agree_with_the_card(module):
    """Scores on every third scene of the test split agree with the card within three standard deviations."""
    name = module.__name__.rpartition(".")[2]
    indices = range(0, 1440, 3)
    views = np.stack([module.view("test", index, 0) for index in indices])
    space = load_space(f"miniworld/{name}")
    scenes = SceneViews(scenes=[scene_at("test", index)[0] for index in indices], views=views)
    actual, reported = module.scores(space, space.model, scenes), card(name)
    for figure, minimum in MIN_SCORES[name].items():
        deviation = np.sqrt(reported[figure] * (1 - reported[figure]) / len(views))
        assert abs(actual[figure] - reported[figure]) < 3 * deviation
        assert reported[figure] >= minimum


@pytest.mark.slow
def test_scores_of_generated_sounds_agree_with_the_card():
    """Scores on a sound of every twelfth cell agree with the card within three standard deviations."""
    indices = range(5, 288, 12)
    views = np.stack([audioldm.view("test", index, 0) for index in indices])
    scenes = SceneViews(scenes=[scene_at("test", index)[0] for index in indices], views=views)
    parts = diffusers.AudioLDMPipeline.from_pretrained(checkpoint_folder("miniworld/audioldm"))
    networks = audioldm.Networks(
        vae=parts.vae, unet=parts.unet, clap=checkpoint_folder("miniworld/clap"), vocoder=parts.vocoder
    )
    actual, reported = (
        audioldm.scores(networks, scenes, audioldm.ClapScorer.load("miniworld/clap")),
        card("audioldm"),
    )
    for stage, minimum in (("vocoder", 0.85), ("vae", 0.90), ("from_sound", 0.75), ("from_text", 0.65)):
        figure = f"{stage}_source"
        deviation = np.sqrt(reported[figure] * (1 - reported[figure]) / len(views))
        assert abs(actual[figure] - reported[figure]) < 3 * deviation
        assert reported[figure] >= minimum


def test_diffusers_generates_the_same_sound(monkeypatch):
    """Compares with diffusers' own pipeline, loaded from model_index.json, by spectrograms, as the vocoder's phase
    estimation amplifies differences of 1e-6 to 1e-2."""
    spectrograms, voiced = [], GriffinLim.forward

    def recorded(self, spectrogram):
        spectrograms.append(spectrogram.numpy().squeeze())
        return voiced(self, spectrogram)

    monkeypatch.setattr(GriffinLim, "forward", recorded)
    folder = checkpoint_folder("miniworld/audioldm")
    pipeline = diffusers.AudioLDMPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        "a dog barks twice", negative_prompt="Low quality", num_inference_steps=5, guidance_scale=2.5,
        audio_length_in_s=2.56, generator=torch.Generator().manual_seed(3),
    ).audios[0]  # fmt: skip
    ours = AudioLDM.load(folder)
    sampling = Sampling(scheduler="ddim", steps=5, guidance=2.5, seconds=2.56, negative_prompt="Low quality")
    assert ours.generate(ours.encode_text(["a dog barks twice"]), sampling, seeds=[3])[0].shape == theirs.shape
    expected, actual = spectrograms
    np.testing.assert_allclose(actual, expected, atol=1e-4)


@USES_IMAGE_PROCESSOR
def test_transformers_reads_the_clip():
    folder = checkpoint_folder("miniworld/clip")
    model, report = transformers.CLIPModel.from_pretrained(folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    processor, tokenizer = (
        kind.from_pretrained(folder) for kind in (transformers.AutoImageProcessor, transformers.AutoTokenizer)
    )
    images, texts = [image_at("test", index) for index in (3, 100)], ["two red bells", "a dog by the sea"]
    with torch.no_grad():
        expected = model(
            **processor(images, return_tensors="pt"), **tokenizer(texts, padding=True, return_tensors="pt")
        )
    space = load_space("miniworld/clip")
    for actual, side in ((space.encode_images(images), "image"), (space.encode_text(texts), "text")):
        unit = actual / np.linalg.norm(actual, axis=1, keepdims=True)
        np.testing.assert_allclose(unit, expected[f"{side}_embeds"].numpy(), atol=1e-5)


def test_transformers_reads_the_clap():
    folder = checkpoint_folder("miniworld/clap")
    model, report = transformers.ClapModel.from_pretrained(folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "mismatched_keys"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    extractor = transformers.ClapFeatureExtractor.from_pretrained(folder)
    audio, texts = [clap.audio_at("test", index) for index in (3, 100)], ["two high bells ring", "a dog barks"]
    with torch.no_grad():
        audio_features = model.get_audio_features(
            **extractor(audio, sampling_rate=16_000, return_tensors="pt")
        ).pooler_output
        text_features = model.get_text_features(**tokenizer(texts, padding=True, return_tensors="pt")).pooler_output
    space = load_space("miniworld/clap")
    for actual, expected in ((space.encode_audio(audio), audio_features), (space.encode_text(texts), text_features)):
        unit, other = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (actual, expected.numpy()))
        np.testing.assert_allclose(unit, other, atol=1e-5)


def test_names():
    assert checkpoint_folder("miniworld/clip") == EMBEDDED / "clip"
    assert identify("miniworld/clip").name == "miniworld/clip"
    with pytest.raises(CheckpointError, match="c2c_jax has no checkpoint miniworld/clop; it has .*miniworld/clip"):
        checkpoint_folder("miniworld/clop")


def test_checkpoints_are_small():
    files = [path for path in EMBEDDED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 17e6
    with Image.open(EMBEDDED.parents[2] / "examples/dog.png") as image:
        assert image.size == (64, 64)

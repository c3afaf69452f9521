"""The checkpoints that come along: they score what their cards say, and transformers reads them as they are."""

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
from c2c_jax.miniworld.pairs import picture_at
from c2c_jax.miniworld.world import scene_at
from c2c_jax.spaces.space import identify, load_space
from c2c_jax.spaces.weights.folders import EMBEDDED, checkpoint_folder
from tools.pretrain import audioldm, clap, clip
from tools.pretrain.material import Material

AT_LEAST = {"clip": {"source": 0.85, "cell": 0.78}, "clap": {"source": 0.92, "cell": 0.77}}


def card(name: str) -> dict:
    return json.loads((EMBEDDED / name / "scores.json").read_text())["scores"]


@pytest.mark.parametrize("module", [clip, clap], ids=["clip", "clap"])
def test_scores_are_those_of_the_card(module):
    """On every third scene of the test split, so within what a third of it may differ; see the card for the whole."""
    name = module.__name__.rpartition(".")[2]
    indices = range(0, 1440, 3)
    views = np.stack([module.view("test", index, 0) for index in indices])
    space = load_space(f"miniworld/{name}")
    judged = Material(scenes=[scene_at("test", index)[0] for index in indices], views=views)
    found, told = module.scores(space, space.model, judged), card(name)
    for figure, least in AT_LEAST[name].items():
        deviation = np.sqrt(told[figure] * (1 - told[figure]) / len(views))
        assert abs(found[figure] - told[figure]) < 3 * deviation
        assert told[figure] >= least


@pytest.mark.slow
def test_generated_sounds_are_those_of_the_card():
    """A sound of every twelfth cell through each part, within what so few may differ; see the card for the whole."""
    indices = range(5, 288, 12)
    views = np.stack([audioldm.view("test", index, 0) for index in indices])
    judged = Material(scenes=[scene_at("test", index)[0] for index in indices], views=views)
    parts = diffusers.AudioLDMPipeline.from_pretrained(checkpoint_folder("miniworld/audioldm"))
    networks = audioldm.Networks(
        vae=parts.vae, unet=parts.unet, clap=checkpoint_folder("miniworld/clap"), vocoder=parts.vocoder
    )
    found, told = (
        audioldm.scores(networks, judged, audioldm.Ears.load("miniworld/clap")),
        card("audioldm"),
    )
    for way, least in (("vocoder", 0.85), ("vae", 0.90), ("from_sound", 0.75), ("from_text", 0.65)):
        figure = f"{way}_source"
        deviation = np.sqrt(told[figure] * (1 - told[figure]) / len(views))
        assert abs(found[figure] - told[figure]) < 3 * deviation
        assert told[figure] >= least


def test_diffusers_makes_the_same_sound_of_a_text(monkeypatch):
    """By its own pipeline, of the parts that model_index.json names, as they load. The spectrograms that the vocoder is
    given are compared: its phases make 1e-2 of 1e-6."""
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
    expected, found = spectrograms
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_transformers_reads_the_clip_as_it_is():
    folder = checkpoint_folder("miniworld/clip")
    model, report = transformers.CLIPModel.from_pretrained(folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    processor, tokenizer = (
        kind.from_pretrained(folder) for kind in (transformers.AutoImageProcessor, transformers.AutoTokenizer)
    )
    pictures, texts = [picture_at("test", index) for index in (3, 100)], ["two red bells", "a dog by the sea"]
    with torch.no_grad():
        expected = model(
            **processor(pictures, return_tensors="pt"), **tokenizer(texts, padding=True, return_tensors="pt")
        )
    space = load_space("miniworld/clip")
    for found, side in ((space.encode_image(pictures), "image"), (space.encode_text(texts), "text")):
        unit = found / np.linalg.norm(found, axis=1, keepdims=True)
        np.testing.assert_allclose(unit, expected[f"{side}_embeds"].numpy(), atol=1e-5)


def test_transformers_reads_the_clap_as_it_is():
    folder = checkpoint_folder("miniworld/clap")
    model, report = transformers.ClapModel.from_pretrained(folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "mismatched_keys"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    extractor = transformers.ClapFeatureExtractor.from_pretrained(folder)
    sounds, texts = [clap.sound_at("test", index) for index in (3, 100)], ["two high bells ring", "a dog barks"]
    with torch.no_grad():
        heard = model.get_audio_features(**extractor(sounds, sampling_rate=16_000, return_tensors="pt")).pooler_output
        read = model.get_text_features(**tokenizer(texts, padding=True, return_tensors="pt")).pooler_output
    space = load_space("miniworld/clap")
    for found, expected in ((space.encode_audio(sounds), heard), (space.encode_text(texts), read)):
        unit, other = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (found, expected.numpy()))
        np.testing.assert_allclose(unit, other, atol=1e-5)


def test_names():
    assert checkpoint_folder("miniworld/clip") == EMBEDDED / "clip"
    assert identify("miniworld/clip").name == "miniworld/clip"
    with pytest.raises(CheckpointError, match="c2c_jax has no checkpoint miniworld/clop; it has .*miniworld/clip"):
        checkpoint_folder("miniworld/clop")


def test_they_are_small():
    files = [path for path in EMBEDDED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 17e6
    with Image.open(EMBEDDED.parents[2] / "examples/dog.png") as picture:
        assert picture.size == (64, 64)

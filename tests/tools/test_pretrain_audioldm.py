"""Pretraining of the mini world's AudioLDM: the loop, the spectra, one step of each network, and saving."""

import dataclasses

import diffusers
import numpy as np
import pytest
import torch
from transformers.audio_utils import mel_filter_bank

from c2c_jax.generation.audioldm import AudioLDM
from c2c_jax.generation.griffin_lim import GriffinLim
from c2c_jax.generation.sampling import Sampling, checkpoint_sampling
from c2c_jax.miniworld import captions
from c2c_jax.miniworld.pairs import audio_at
from c2c_jax.spaces.space import load_space
from tools.pretrain import audioldm, clap, fit, texts, unet, vae
from tools.pretrain.clock import Clock
from tools.pretrain.spectra import log_mel


def test_interrupted_training_resumes(monkeypatch, tmp_path):
    monkeypatch.setattr(fit, "EVERY", 2)

    def trained(path, steps, *stops):
        def loss_of(module, step):
            rng = np.random.default_rng(step)
            x = torch.from_numpy(rng.normal(size=(8, 3)).astype(np.float32))
            return (torch.nn.functional.dropout(module(x), 0.5) - x.sum(1, keepdim=True)).square().mean()

        for stop in (*stops, steps):
            torch.manual_seed(7)
            calls = iter(range(stop))

            def loss_until(module, step, calls=calls, stop=stop):
                if next(calls, None) is None:
                    raise KeyboardInterrupt
                return loss_of(module, step)

            try:
                return fit.fit(torch.nn.Linear(3, 1), loss_until, path, steps=steps, learning_rate=0.1, warmup=1)[0]
            except KeyboardInterrupt:
                pass

    whole, stopped = trained(tmp_path / "a.pt", 6), trained(tmp_path / "b.pt", 6, 3)
    torch.testing.assert_close(whole.state_dict(), stopped.state_dict(), atol=0, rtol=0)


def test_minutes_are_added_up(tmp_path):
    (tmp_path / "minutes").write_text("12.5\n")
    clock = Clock(tmp_path / "minutes")
    assert 12.5 <= clock.minutes < 12.6
    clock.save()
    assert float((tmp_path / "minutes").read_text()) == pytest.approx(12.5, abs=0.1)


def test_log_mels_by_numpy():
    """Compares frame 100 with its definition: 1,024 samples about its centre, a Hann window, Slaney's filters."""
    audio = audio_at("test", 5)
    actual = log_mel(torch.from_numpy(audio[None].astype(np.float32)))[0]
    assert actual.shape == (256, 64)
    start = 100 * 160 + 80 - 512
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    amplitude = np.sqrt(np.abs(np.fft.rfft(audio[start : start + 1024] * window)) ** 2 + 1e-9)
    filters = mel_filter_bank(513, 64, 0.0, 8000.0, 16_000, norm="slaney", mel_scale="slaney")
    np.testing.assert_allclose(actual[100], np.log(np.maximum(amplitude @ filters, 1e-5)), atol=1e-3)


@pytest.mark.slow
def test_networks_learn_and_diffusers_reads_them(monkeypatch, tmp_path):
    monkeypatch.setattr(audioldm, "TRAINING_SIZE", 40)
    monkeypatch.setattr(audioldm, "EVALUATION_SIZE", 4)
    monkeypatch.setitem(audioldm.SAMPLING, "steps", 2)
    monkeypatch.setattr(captions, "PROMPTS", 1)
    monkeypatch.setattr(texts, "CORPUS_SIZE", 2000)
    monkeypatch.setattr(vae, "CHANNELS", (4, 4, 8, 8))
    monkeypatch.setattr(unet, "CHANNELS", (16, 16, 16))
    clap.new_space(0).save(tmp_path / "clap")
    recipe = dataclasses.replace(audioldm.RECIPE, steps=1, vae_steps=1)
    networks, scores, minutes = audioldm.train(tmp_path, recipe, 1, tmp_path / "clap")
    assert {"vae_source", "vocoder_cell", "from_sound_source", "from_text_cell"} <= scores.keys()
    assert all(0 <= score <= 1 for score in scores.values()) and minutes > 0
    networks.save(tmp_path / "audioldm")
    pipeline = diffusers.AudioLDMPipeline.from_pretrained(tmp_path / "audioldm")
    assert type(pipeline.vocoder) is GriffinLim
    settings = checkpoint_sampling(tmp_path / "audioldm")
    assert settings["seconds"] == 2.56
    ours = AudioLDM.load(tmp_path / "audioldm")
    vector = ours.encode_text(["a dog barks twice"])
    expected = load_space(str(tmp_path / "clap"), only="text").encode_text(["a dog barks twice"])
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-3)  # float16
    assert ours.generate(vector, Sampling(**settings), seeds=[0]).shape == (1, 40_960)

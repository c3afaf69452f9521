"""Ranking of candidates with a tiny CLAP, against transformers."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from bench.checkpoints import randomise
from c2c_jax.errors import BundleError, CheckpointError
from c2c_jax.generation.audioldm import AudioLDM
from c2c_jax.generation.ranking import Ranker
from c2c_jax.translator.inference import PROBE
from tests.fixtures import laion
from tools.pretrain.tokenizers import roberta_tokenizer

RATE = 16_000


def build_clap(folder, audioldm_folder, is_fused=False):
    """Builds a ClapModel with the text tower of an AudioLDM folder and a random audio tower."""
    text = json.loads((audioldm_folder / "text_encoder/config.json").read_text())
    config = transformers.ClapConfig(
        text_config=text,
        audio_config=dict(
            spec_size=64, num_mel_bins=16, window_size=2, patch_size=4, patch_stride=[4, 4], depths=[1, 1],
            num_attention_heads=[2, 2], patch_embeds_hidden_size=16, hidden_size=32, num_classes=2,
            projection_dim=text["projection_dim"], enable_fusion=is_fused,
        ),
        projection_dim=text["projection_dim"],
    )  # fmt: skip
    model = transformers.ClapModel(config)
    randomise(model, (), torch.Generator().manual_seed(0))
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    model.load_state_dict(load_file(audioldm_folder / "text_encoder/model.safetensors"), strict=False)
    model.save_pretrained(folder)
    extractor = transformers.ClapFeatureExtractor(
        feature_size=16, sampling_rate=48_000, max_length_s=1, truncation="fusion" if is_fused else "rand_trunc"
    )
    extractor.save_pretrained(folder)
    for file in (audioldm_folder / "tokenizer").iterdir():
        shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="module")
def clap_folder(tmp_path_factory, audioldm_folder):
    return build_clap(tmp_path_factory.mktemp("clap") / "clap", audioldm_folder)


def clips(count, seconds=0.5):
    rng = np.random.default_rng(0)
    times = np.arange(round(seconds * RATE)) / RATE
    return np.stack([np.sin(2 * np.pi * rng.uniform(100, 4000) * times) for _ in range(count)]).astype(np.float32)


def test_scores_are_transformers_cosines(clap_folder):
    """Of sounds at the tower's own rate, so that resampling has no part in it."""
    model = transformers.ClapModel.from_pretrained(clap_folder).eval()
    extractor = transformers.ClapFeatureExtractor.from_pretrained(clap_folder)
    audio = np.random.default_rng(1).normal(size=(3, 24_000)).astype(np.float32) / 10
    features = extractor(list(audio), sampling_rate=48_000, return_tensors="pt")
    features["is_longer"][:] = False  # transformers marks one of a batch at random
    with torch.inference_mode():
        vectors = model.get_audio_features(**features).pooler_output
    clap_E = np.random.default_rng(2).normal(size=64).astype(np.float32)
    expected = torch.nn.functional.cosine_similarity(vectors, torch.from_numpy(clap_E)[None]).numpy()
    actual = Ranker(str(clap_folder)).scores(audio, 48_000, clap_E)
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert np.ptp(actual) > 1e-3


def test_fused_towers_encode_whole_sounds(tmp_path, audioldm_folder):
    """Of two that differ behind the tower's own second, no more than it: the other tower hears no difference."""
    ranker = Ranker(str(build_clap(tmp_path / "fused", audioldm_folder, is_fused=True)))
    long = clips(3, seconds=1.7)
    first = ranker.vectors(long, RATE)
    np.testing.assert_array_equal(ranker.vectors(long, RATE), first)
    np.testing.assert_allclose(ranker.vectors(long[1:2], RATE), first[1:2], atol=1e-5)
    long[:, -RATE // 3 :] = 0
    assert np.abs(ranker.vectors(long, RATE) - first).max() > 1e-2


def test_ranking_is_deterministic_and_cuts_long_sounds(clap_folder):
    ranker = Ranker(str(clap_folder))
    long = clips(3, seconds=1.7)  # the tower's input has one second
    first = ranker.vectors(long, RATE)
    np.testing.assert_array_equal(ranker.vectors(long, RATE), first)
    np.testing.assert_allclose(ranker.vectors(long[:, : RATE + 2000], RATE), first, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-6)


def test_ranker_must_be_the_generators_clap(clap_folder, audioldm_folder):
    (probe_E,) = AudioLDM.load(audioldm_folder, device="cpu").encode_text([PROBE])
    ranker = Ranker(str(clap_folder))
    ranker.require_same_space(probe_E)
    for other in (np.roll(probe_E, 1), np.ones(32, np.float32)):
        with pytest.raises(BundleError, match=f"{clap_folder} is another CLAP"):
            ranker.require_same_space(other)


def test_clap_without_an_audio_tower_is_refused(audioldm_folder):
    with pytest.raises(CheckpointError, match="text_encoder has no audio tower"):
        Ranker(str(audioldm_folder / "text_encoder"))


def test_ranking_with_audioldms_own_file(tmp_path, caption_list):
    """Its CLAP has the sample rate of the vocoder."""
    tokenizer, model = roberta_tokenizer(caption_list, 600), laion.build_clap(600)
    tokenizer.save_pretrained(tmp_path)
    laion.write_laion(tmp_path / "audioldm-s-full-v2.ckpt", model, "cond_stage_model.model.")
    ranker = Ranker(str(tmp_path / "audioldm-s-full-v2.ckpt"))
    with torch.inference_mode():
        (probe_E,) = model.get_text_features(**tokenizer([PROBE], return_tensors="pt")).pooler_output.numpy()
    ranker.require_same_space(probe_E)
    assert ranker.mels.sample_rate == RATE
    clap_E = np.random.default_rng(2).normal(size=24).astype(np.float32)
    scores = ranker.scores(clips(3), RATE, clap_E)
    vectors = ranker.space.encode_audio(list(clips(3)))
    np.testing.assert_allclose(
        scores * np.linalg.norm(vectors, axis=1) * np.linalg.norm(clap_E), vectors @ clap_E, atol=1e-4
    )

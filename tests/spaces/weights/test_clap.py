"""Loading and saving whole CLAP checkpoints, against transformers' ClapModel and ClapFeatureExtractor."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers

from bench.checkpoints import quiet, randomise
from c2c_jax.errors import CheckpointError
from c2c_jax.spaces.space import identify, load_space
from tests.generation.test_ranking import build_clap

TOLERANCE = dict(atol=1e-5, rtol=0)
RATE = 48_000  # of build_clap's towers, whose input is one second


@pytest.fixture(scope="module", params=[False, True], ids=["unfused", "fused"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, audioldm_folder: Path) -> Path:
    return build_clap(tmp_path_factory.mktemp("clap") / "clap", audioldm_folder, is_fused=request.param)


def example_sounds(*seconds: float) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(rng.normal(size=round(length * RATE)) / 10).astype(np.float32) for length in seconds]


@torch.no_grad()
def transformers_vectors(folder: Path, waveforms: list[np.ndarray], texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Audio and text projections before normalisation."""
    with quiet():
        model = transformers.ClapModel.from_pretrained(folder).eval()
    features = transformers.ClapFeatureExtractor.from_pretrained(folder)(
        waveforms, sampling_rate=RATE, return_tensors="pt"
    )
    features["is_longer"][:] = False  # transformers marks a random sound if none is longer
    audio = model.audio_projection(model.audio_model(**features).pooler_output)
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    return audio.numpy(), model.text_projection(model.text_model(**tokens).pooler_output).numpy()


def test_from_waveforms_and_texts_to_vectors(folder, caption_list):
    waveforms, texts = example_sounds(1, 0.3, 0.9, 0.001, 1), caption_list[:3]
    space = load_space(str(folder))
    audio, text = transformers_vectors(folder, waveforms, texts)
    np.testing.assert_allclose(space.encode_audio(waveforms), audio, **TOLERANCE)
    np.testing.assert_allclose(space.encode_text(texts), text, **TOLERANCE)
    assert np.ptp(audio, axis=0).max() > 0.01


def test_save_and_load(tmp_path, folder, caption_list):
    """All tensors are equal bit for bit, and transformers can load the written folder."""
    space = load_space(str(folder))
    space.save(tmp_path / "back")
    original, saved = (safetensors.numpy.load_file(at / "model.safetensors") for at in (folder, tmp_path / "back"))
    assert original.keys() == saved.keys()
    for key in saved:
        np.testing.assert_array_equal(saved[key], original[key], err_msg=key)
        assert saved[key].dtype == original[key].dtype
    waveforms, texts = example_sounds(1, 0.3), caption_list[:3]
    expected, found = (transformers_vectors(at, waveforms, texts) for at in (folder, tmp_path / "back"))
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    again = load_space(str(tmp_path / "back"))
    np.testing.assert_array_equal(again.encode_audio(waveforms), space.encode_audio(waveforms))
    assert again.audio_preprocessor == space.audio_preprocessor


@pytest.mark.parametrize("only", ["text", "audio"])
def test_single_tower(tmp_path, folder, caption_list, only):
    """It has the same vectors and fingerprint, and is saved as transformers' class of that tower."""
    whole, single = load_space(str(folder)), load_space(str(folder), only=only)
    assert single.id == whole.id == identify(str(folder))
    single.save(tmp_path / "alone")
    if only == "text":
        np.testing.assert_array_equal(single.encode_text(caption_list[:3]), whole.encode_text(caption_list[:3]))
        with pytest.raises(CheckpointError, match="no audio tower"):
            single.encode_audio(example_sounds(0.1))
        kind = transformers.ClapTextModelWithProjection
    else:
        np.testing.assert_array_equal(
            single.encode_audio(example_sounds(1, 0.3)), whole.encode_audio(example_sounds(1, 0.3))
        )
        with pytest.raises(CheckpointError, match="without its text tower"):
            single.encode_text(["a sound"])
        kind = transformers.ClapAudioModelWithProjection
    assert any(key.startswith("audio_model" if only == "text" else "text_model") for key in single.ignored)
    assert json.loads((tmp_path / "alone/config.json").read_text())["architectures"] == [kind.__name__]
    with quiet():
        _, report = kind.from_pretrained(tmp_path / "alone", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]


def test_missing_towers(folder, audioldm_folder, clip_folder):
    for name, only in ((folder, "image"), (audioldm_folder / "text_encoder", "audio"), (clip_folder, "audio")):
        with pytest.raises(CheckpointError, match=f"no {only} tower"):
            load_space(str(name), only=only)


def test_order_and_batch_size_do_not_matter(folder):
    space = load_space(str(folder))
    waveforms = example_sounds(0.2, 1, 0.7, 1.5, 0.01, 2.7)
    one_by_one = np.concatenate([space.encode_audio([sound]) for sound in waveforms])
    np.testing.assert_allclose(space.encode_audio(waveforms, batch_size=4), one_by_one, **TOLERANCE)
    np.testing.assert_allclose(space.encode_audio(waveforms[::-1])[::-1], one_by_one, **TOLERANCE)
    np.testing.assert_allclose(
        space.encode_mels(space.audio_preprocessor(waveforms), batch_size=3), one_by_one, **TOLERANCE
    )
    assert space.encode_audio([]).shape == (0, space.dim)
    np.testing.assert_array_equal(space.encode_audio(waveforms), space.encode_audio(waveforms))


def test_published_folders(tmp_path, audioldm_folder, caption_list):
    """config.json without defaults, and a `.bin` file with buffers, as published in 2023."""
    model = transformers.ClapModel(transformers.ClapConfig(**published()))
    randomise(model, (), torch.Generator().manual_seed(0))
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps(dict(model_type="clap", **published())))
    recipe = dict(feature_size=16, max_length_s=1, truncation="rand_trunc")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(recipe))
    shutil.copytree(audioldm_folder / "tokenizer", tmp_path, dirs_exist_ok=True)
    waveforms, texts = example_sounds(1, 0.5), caption_list[:2]
    audio, text = transformers_vectors(tmp_path, waveforms, texts)
    space = load_space(str(tmp_path))
    np.testing.assert_allclose(space.encode_audio(waveforms), audio, **TOLERANCE)
    np.testing.assert_allclose(space.encode_text(texts), text, **TOLERANCE)


def published() -> dict:
    return dict(
        text_config=dict(vocab_size=800, hidden_size=32, num_hidden_layers=1, num_attention_heads=2),
        audio_config=dict(
            spec_size=64, num_mel_bins=16, window_size=4, depths=[1, 1], num_attention_heads=[2, 2],
            patch_embeds_hidden_size=16, hidden_size=32,
        ),
    )  # fmt: skip

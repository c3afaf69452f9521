"""Loading and saving LAION's `.pt` and AudioLDM's `.ckpt`, against transformers' ClapModel of the same tensors."""

import _compat_pickle
import hashlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from c2c_jax.errors import CheckpointError
from c2c_jax.publishing.names import public_name
from c2c_jax.spaces.space import identify, load_space
from c2c_jax.spaces.weights import clap
from c2c_jax.spaces.weights.laion_clap import TABLE
from c2c_jax.spaces.weights.rules import _renamed
from tests.fixtures.laion import build_clap, extra_tensors, laion_name, laion_state, write_laion
from tools.pretrain.tokenizers import roberta_tokenizer

VOCABULARY = 600
BUFFERS = r"position_ids|token_type_ids|relative_position_index|num_batches_tracked"
KINDS = {
    "unfused": {},
    "fused": dict(enable_fusion=True, aff_block_r=2),
    "base": dict(
        patch_embeds_hidden_size=24, hidden_size=96, depths=[2, 1, 2], num_attention_heads=[3, 6, 12], mlp_ratio=3.0,
        num_hidden_layers=3, patch_size=4, patch_stride=[4, 4],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(caption_list):
    return roberta_tokenizer(caption_list, VOCABULARY)


@pytest.fixture(scope="module")
def model():
    return build_clap(VOCABULARY)


@pytest.fixture
def file(tmp_path, model, tokenizer) -> Path:
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    write_laion(tmp_path / "630k-audioset-best.pt", model)
    return tmp_path / "630k-audioset-best.pt"


def example_sounds(rate: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [
        (rng.normal(scale=0.05, size=round(rate * length)) + 0.3 * np.sin(np.arange(round(rate * length)) * pitch))
        .astype(np.float32)
        for length, pitch in ((10, 0.05), (3.3, 0.2), (0.7, 0.01))
    ]  # fmt: skip


def extractor(model: transformers.ClapModel) -> transformers.ClapFeatureExtractor:
    """The preprocessor of laion's repositories, with another number of mel bins."""
    audio = model.config.audio_config
    return transformers.ClapFeatureExtractor(
        feature_size=audio.num_mel_bins, sampling_rate=48_000, hop_length=480, max_length_s=10, fft_window_size=1024,
        frequency_min=50, frequency_max=14_000, truncation="fusion" if audio.enable_fusion else "rand_trunc",
        padding="repeatpad",
    )  # fmt: skip


@torch.inference_mode()
def audio_vectors(model: transformers.ClapModel, waveforms: list[np.ndarray]) -> np.ndarray:
    features = extractor(model)(waveforms, sampling_rate=48_000, return_tensors="pt")
    features["is_longer"][:] = False  # transformers marks one of a batch at random
    return model.get_audio_features(**features).pooler_output.numpy()


@torch.inference_mode()
def text_vectors(model: transformers.ClapModel, tokenizer, texts: list[str]) -> np.ndarray:
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    return model.get_text_features(**tokens).pooler_output.numpy()


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    """Compares unit vectors with those of transformers."""
    found, expected = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (found, expected))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_and_saving(tmp_path, tokenizer, caption_list, kind):
    """The saved folder has transformers' tensors bit for bit and gives the same vectors."""
    model = build_clap(VOCABULARY, **KINDS[kind])
    tokenizer.save_pretrained(tmp_path)
    write_laion(tmp_path / "a.pt", model, prefix={"unfused": "", "fused": "module.", "base": "model."}[kind])
    space = load_space(str(tmp_path / "a.pt"))
    texts = caption_list[:6]
    assert (space.dim, space.max_tokens, space.audio_preprocessor.sample_rate) == (24, 77, 48_000)
    assert_same(space.encode_text(texts), text_vectors(model, tokenizer, texts))
    vectors = space.encode_audio(example_sounds(48_000))
    assert_same(vectors, audio_vectors(model, example_sounds(48_000)))

    space.save(tmp_path / "folder")
    expected = {key: tensor for key, tensor in model.state_dict().items() if not re.search(BUFFERS, key)}
    found = {
        key: t for key, t in load_file(tmp_path / "folder/model.safetensors").items() if not re.search(BUFFERS, key)
    }
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(found[key], tensor), key
    again = load_space(str(tmp_path / "folder"))
    assert again.max_tokens == 77
    np.testing.assert_array_equal(again.encode_audio(example_sounds(48_000)), vectors)
    written = transformers.ClapFeatureExtractor.from_pretrained(tmp_path / "folder")
    fields = "feature_size sampling_rate hop_length max_length_s fft_window_size frequency_min frequency_max"
    for field in (*fields.split(), "truncation", "padding"):
        assert getattr(written, field) == getattr(extractor(model), field), field


@torch.inference_mode()
def test_long_sounds_with_fusion(tmp_path):
    """Both sides get our spectrograms, since transformers draws random parts."""
    model = build_clap(VOCABULARY, **KINDS["fused"])
    write_laion(tmp_path / "a.pt", model)
    space = load_space(str(tmp_path / "a.pt"))
    waveforms = [
        np.random.default_rng(1).normal(scale=0.1, size=48_000 * 14).astype(np.float32),
        *example_sounds(48_000),
    ]
    mels = space.audio_preprocessor(waveforms)
    assert list(mels.is_longer_B) == [True, False, False, False]
    features = dict(
        input_features=torch.from_numpy(np.asarray(mels.mel_BCTM)),
        is_longer=torch.from_numpy(np.asarray(mels.is_longer_B))[:, None],
    )
    assert_same(space.encode_audio(waveforms), model.get_audio_features(**features).pooler_output.numpy())


def test_ignored_tensors_are_listed(file):
    kinds = {re.sub(r"\d+", "N", key) for key in load_space(str(file), only="audio").ignored}
    assert kinds >= {
        "audio_branch.spectrogram_extractor.stft.conv_real.weight", "audio_branch.logmel_extractor.melW",
        "audio_branch.tscam_conv.weight", "audio_branch.head.bias", "audio_branch.layers.N.blocks.N.attn_mask",
        "audio_branch.bnN.num_batches_tracked", "text_transform.sequential.N.weight", "text_projection.N.bias",
        "text_branch.embeddings.position_ids", "logit_scale_t",
    }  # fmt: skip


def sinc(sound: np.ndarray, times: int) -> np.ndarray:
    """Upsamples by summing torchaudio's documented kernel over all samples, in float64."""
    at = np.arange(times * len(sound)) / times
    distances = 0.99 * (at[:, None] - np.arange(len(sound)))
    kernels = np.where(abs(distances) < 6, np.sinc(distances) * np.cos(np.pi * distances / 12) ** 2, 0)
    return 0.99 * kernels @ sound


def test_audioldms_checkpoint(tmp_path, model, tokenizer, caption_list):
    """Its CLAP gets sounds at 16 kHz, which torchaudio resamples to 48 kHz."""
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    others = ["betas", "model.diffusion_model.out.2.weight", "first_stage_model.vocoder.conv_pre.bias"]
    write_laion(tmp_path / "audioldm-s-full.ckpt", model, "cond_stage_model.model.", others, global_step=7)
    space = load_space(str(tmp_path / "audioldm-s-full.ckpt"))
    assert (space.max_tokens, space.audio_preprocessor.sample_rate) == (512, 16_000)
    assert set(others) <= set(space.ignored)
    assert_same(space.encode_text(caption_list[:6]), text_vectors(model, tokenizer, caption_list[:6]))
    short = [sound[:2000] for sound in example_sounds(16_000)]
    expected = audio_vectors(model, [sinc(sound, 3).astype(np.float32) for sound in short])
    vectors = space.encode_audio(short)
    assert_same(vectors, expected)
    space.save(tmp_path / "folder")
    again = load_space(str(tmp_path / "folder"))
    np.testing.assert_array_equal(again.encode_audio(short), vectors)


PUBLISHED = {
    "630k-audioset-best.pt": (dict(), 418),
    "630k-audioset-fusion-best.pt": (dict(enable_fusion=True), 448),
    "music_audioset_epoch_15_esc_90.14.pt": (
        dict(patch_embeds_hidden_size=128, hidden_size=1024, depths=[2, 2, 12, 2]), 505
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_of_published_files(name):
    """Each name matches one rule, maps to the name in transformers' conversion, and back. The numbers of names are
    those of laion_clap's modules, plus position_ids."""
    audio, count = PUBLISHED[name]
    with torch.device("meta"):
        model = transformers.ClapModel(transformers.ClapConfig(audio_config=audio))
    tensors = model.state_dict()
    files = laion_state(tensors) | extra_tensors(model.config)
    assert len(files) == count
    table = TABLE
    used = {key for key in files if not any(re.fullmatch(pattern, key) for pattern in table.ignored)}
    ends = {}
    for key in used:
        parts = [key.replace("qkv", f"qkv.{part}") for part in ("query", "key", "value")] if ".qkv." in key else [key]
        for part in parts:
            ours, layout = _renamed(part, table.rules, "torch")
            assert _renamed(ours, table.rules, "flax") == (part, layout)
            theirs, same_layout = _renamed(ours, clap.TABLE.rules, "flax")
            assert layout == same_layout
            ends[theirs] = part.replace("qkv.", "")
    assert ends == {key: laion_name(key) for key in tensors if not re.search(BUFFERS, key)}


def test_numpy_numbers_besides_tensors(tmp_path, model, monkeypatch):
    """Learning rates may be numpy numbers, whose names changed in numpy 2. Before torch 1.6, files were not
    archives."""
    ids = set()
    for number, old_name in enumerate((False, True)):
        if old_name:
            monkeypatch.setitem(
                _compat_pickle.REVERSE_IMPORT_MAPPING, "numpy._core.multiarray", "numpy.core.multiarray"
            )
        path = tmp_path / f"{number}.pt"
        write_laion(path, model, optimizer={"param_groups": [{"lr": np.float64(1e-4), "step": np.int64(3)}]})
        assert (b"numpy.core" in path.read_bytes()) == old_name
        ids.add(identify(str(path)).dim)
    content = torch.load(tmp_path / "1.pt", weights_only=False)
    torch.save(content, tmp_path / "2.pt", _use_new_zipfile_serialization=False)
    ids.add(identify(str(tmp_path / "2.pt")).dim)
    assert ids == {24}


def test_fingerprint_depends_on_the_bytes_alone(file, monkeypatch):
    space = load_space(str(file), only="text")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert space.id == identify(str(file)) and space.fingerprint == digest
    monkeypatch.setenv("HOME", str(file.parent))
    moved = shutil.move(file, file.parent / "renamed.pt")
    assert identify(f"~/{moved.name}").fingerprint == digest
    monkeypatch.chdir(file.parents[1])
    assert public_name(f"{file.parent.name}/renamed.pt") == "renamed.pt"  # although it looks like a hub name


def test_tokenizers(file, caption_list, tokenizer):
    texts = [" ".join(caption_list[:40]), caption_list[0]]
    found = load_space(str(file), only="text").token_ids(texts)
    whole, short = (tokenizer(text)["input_ids"] for text in texts)
    assert found == [whole[:76] + whole[-1:], short]

    files = file.parent / "tokenizer"
    shutil.copy(files / "tokenizer.json", file.parent)  # into the folder of the file
    shutil.rmtree(files)
    assert load_space(str(file), only="text").token_ids(texts) == found
    (file.parent / "tokenizer.json").unlink()
    tokenizer.save_pretrained(files)
    tokenizer.backend_tokenizer.model.save(str(files))  # vocab.json and merges.txt
    (files / "tokenizer.json").unlink()
    (files / "tokenizer_config.json").unlink()
    assert load_space(str(file), only="text").token_ids(texts) == found


def test_without_a_tokenizer(file):
    shutil.rmtree(file.parent / "tokenizer")
    space = load_space(str(file))
    assert space.tokenizer is None and len(space.encode_audio(example_sounds(48_000)[:1])) == 1
    with pytest.raises(CheckpointError) as caught:
        space.encode_text(["rain"])
    command = f"hf download FacebookAI/roberta-base tokenizer.json --local-dir {file.parent / 'tokenizer'}"
    assert command in str(caught.value) and "\n" not in str(caught.value)


def test_a_tokenizer_of_another_model(file, caption_list):
    roberta_tokenizer(caption_list, 590).save_pretrained(file.parent / "tokenizer")
    with pytest.raises(CheckpointError, match="has 590 tokens, the text tower in .*best.pt 600"):
        load_space(str(file))


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_space(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


NORM = "module.audio_branch.norm.weight"
QKV = "module.audio_branch.layers.0.blocks.1.attn.qkv"
WORDS = "module.text_branch.embeddings.word_embeddings.weight"
TYPES = "module.text_branch.embeddings.token_type_embeddings.weight"
FILTERS = "module.audio_branch.logmel_extractor.melW"
BIAS = "module.audio_branch.layers.1.blocks.0.attn.relative_position_bias_table"


@pytest.mark.parametrize(
    "change, pattern",
    [
        ({"module.audio_branch.norm.gain": torch.zeros(3)}, r"1 tensors do not belong .*audio_branch.norm.gain"),
        ({"module.audio_branch.layers.0.blocks.2.norm1.bias": torch.zeros(16)}, r"\d+ tensors are missing .*blocks.2"),
        ({"audio_branch.norm.gain": torch.zeros(3)}, r"1 tensors do not belong .*audio_branch.norm.gain"),
        ({"audio_branch.norm.weight": torch.zeros(3)}, "both with and without the prefix 'module.'"),
        ({NORM: None}, r"1 tensors are missing \(audio_branch.norm.weight\)"),
        ({NORM: torch.zeros(31)}, r"audio_branch.norm.weight has shape \(31,\), .* ask for \(32,\)"),
        ({f"{QKV}.bias": None}, r"3 tensors are missing .*blocks.1.attn.qkv.key.bias"),
        ({f"{QKV}.weight": torch.zeros(47, 16)}, r"attn.qkv.weight has shape \(47, 16\), which cannot be split"),
        ({BIAS: None}, r"layers.1.blocks.0.attn.relative_position_bias_table is missing"),
        ({WORDS: torch.zeros(600, 100)}, "is 100 wide; expected a multiple of 64"),
        ({TYPES: torch.zeros(2, 128)}, "has 2 token types, like BERT"),
        ({WORDS: None}, "expected one laion_clap CLAP with RoBERTa"),
        ({"clap.model." + WORDS.removeprefix("module."): torch.zeros(600, 128)}, "found 2 of them"),
        ({FILTERS: torch.ones(513, 16)}, "reach from 0 to 24000 Hz .* expected 50 to 14000"),
        ({FILTERS: torch.zeros(513, 16)}, "reach from 0 to 0 Hz"),
        ({FILTERS: None}, "melW is missing"),
        ({NORM: "a text"}, "holds more than plain tensors by name .module.audio_branch.norm.weight"),
    ],
)  # fmt: skip
def test_invalid_files(file, change, pattern):
    content = torch.load(file, weights_only=True)
    tensors = content["state_dict"] | change
    content["state_dict"] = {key: value for key, value in tensors.items() if value is not None}
    torch.save(content, file)
    assert re.search(pattern, message := refusal(file)), message


class Code:
    def __reduce__(self):
        return (print, ("this was run",))


def test_pickled_code_is_not_run(file, capfd):
    content = torch.load(file, weights_only=True)
    torch.save({**content, "callbacks": Code()}, file)
    assert "(it needs print; no code in it was run)" in refusal(file)
    assert "this was run" not in capfd.readouterr().out


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_damaged_files(file, content):
    file.write_bytes(file.read_bytes()[:-1000] if content is None else content)
    assert str(file) in (pattern := refusal(file)) and "fetch it again" in pattern


def test_no_image_tower(file):
    with pytest.raises(CheckpointError, match="has no image tower; pass a CLIP checkpoint"):
        load_space(str(file), only="image")

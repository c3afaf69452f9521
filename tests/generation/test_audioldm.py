import io
import json
import logging
import math
import os
import shutil
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AudioLDMPipeline
from safetensors.torch import load_file, save_file

from bench.checkpoints import build_audioldm
from c2c_jax.errors import CheckpointError, GenerationError
from c2c_jax.generation.audioldm import AudioLDM, write_wav

CAPTIONS = ["a dog barks at the rain", "low quality", "waves roll onto a beach", "a train passes"]
WEIGHTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "vocoder": "model",
}
SHORT = dict(steps=2, seconds=0.1)
# Kernels round otherwise for another batch size or memory layout, and guidance of 7.5 through two long steps makes more
# of it: differences of 2e-5 were seen in sound that reaches 0.5. Three steps of a 16-bit sample are 1e-4.
ROUNDING = 1e-4
DIFFERENT = 1e-2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audioldm") / "tiny"
    build_audioldm(folder, CAPTIONS)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return AudioLDM.load(folder, device="cpu")


@pytest.fixture(scope="module")
def pipeline(folder):
    pipeline = AudioLDMPipeline.from_pretrained(folder, local_files_only=True)
    return pipeline


@pytest.fixture
def copy(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture
def records():
    """What diffusers and transformers log, at any level that they print."""
    seen: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = seen.append
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    for logger in loggers:
        logger.addHandler(handler)
    yield seen
    for logger in loggers:
        logger.removeHandler(handler)


def vectors(count, width=64, seed=0):
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def units(clap_BE):
    return torch.from_numpy(clap_BE / np.sqrt((clap_BE.astype(np.float64) ** 2).sum(1, keepdims=True))).float()


@torch.no_grad()
def text_vector(pipeline, text):
    tokens = pipeline.tokenizer([text], return_tensors="pt")
    vector = pipeline.text_encoder(**tokens).text_embeds
    return vector / vector.norm()


def by_hand(pipeline, clap_BE, seed, guidance, negative):
    return pipeline(
        prompt_embeds=units(clap_BE),
        negative_prompt_embeds=negative,
        audio_length_in_s=0.1,
        num_inference_steps=2,
        guidance_scale=guidance,
        generator=[torch.Generator().manual_seed(seed + i) for i in range(len(clap_BE))],
    ).audios


def test_sizes_come_from_the_checkpoint(model):
    assert (model.sample_rate, model.dim) == (16000, 64)


def test_sound_is_the_pipelines_sample_for_sample(model, pipeline):
    clap_BE = vectors(2)
    negative = text_vector(pipeline, "rain").repeat(2, 1)
    expected = by_hand(pipeline, clap_BE, 7, 3.5, negative)
    asked = dict(guidance=3.5, negative_prompt="rain", seed=7, **SHORT)
    found = AudioLDM(pipeline).generate(clap_BE, **asked)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(model.generate(clap_BE, **asked), expected, atol=ROUNDING)
    # The same random weights must tell another text and guidance apart, or the equality above says nothing.
    assert np.abs(model.generate(clap_BE, **{**asked, "negative_prompt": "a"}) - expected).max() > DIFFERENT
    assert np.abs(model.generate(clap_BE, **{**asked, "guidance": 2.5}) - expected).max() > DIFFERENT


def test_the_negative_prompt_is_encoded_as_the_pipeline_does(model, pipeline):
    clap_BE = vectors(1)
    both = pipeline._encode_prompt(["a dog"], "cpu", 1, True, ["Low quality"])
    expected = by_hand(pipeline, clap_BE, 0, 7.5, both[:1])
    np.testing.assert_allclose(model.generate(clap_BE, **SHORT), expected, atol=ROUNDING)


def test_a_negative_prompt_beyond_the_towers_positions_is_cut(model):
    # 512 tokens, start and end among them, are all that RoBERTa's 514 positions hold.
    longest = model.generate(vectors(1), negative_prompt="a" + " a" * 509, **SHORT)
    np.testing.assert_array_equal(model.generate(vectors(1), negative_prompt="a" + " a" * 700, **SHORT), longest)
    shorter = model.generate(vectors(1), negative_prompt="a" + " b" * 400, **SHORT)
    assert np.abs(shorter - longest).max() > ROUNDING


@pytest.mark.parametrize("guidance", [1.0, 0.0, -2.0])
def test_guidance_of_one_or_less_is_the_pipeline_without_guidance(pipeline, guidance):
    clap_BE = vectors(1)
    expected = by_hand(pipeline, clap_BE, 0, 1.0, None)
    np.testing.assert_array_equal(AudioLDM(pipeline).generate(clap_BE, guidance=guidance, **SHORT), expected)


# 4480 samples are 28 frames: diffusers rounds 0.29 s down to 28 of its 29.
@pytest.mark.parametrize("seconds, samples", [(0.04, 640), (0.1, 1600), (0.1234, 1974), (0.29, 4640)])
def test_length_is_seconds_times_the_rate(model, seconds, samples):
    assert model.generate(vectors(1), steps=1, seconds=seconds, guidance=1.0).shape == (1, samples)


def test_vectors_count_by_direction(model):
    clap_BE = vectors(1)
    expected = model.generate(clap_BE, **SHORT)
    np.testing.assert_allclose(model.generate(1e30 * clap_BE, **SHORT), expected, atol=ROUNDING)
    assert np.abs(model.generate(vectors(1, seed=1), **SHORT) - expected).max() > DIFFERENT


def test_same_seed_same_samples_and_another_seed_others(model):
    first = model.generate(vectors(1), seed=3, **SHORT)
    np.testing.assert_array_equal(model.generate(vectors(1), seed=3, **SHORT), first)
    assert np.abs(model.generate(vectors(1), seed=4, **SHORT) - first).max() > DIFFERENT


def test_a_clip_of_a_batch_is_the_clip_alone(model):
    clap_BE = vectors(3)
    batch = model.generate(clap_BE, seed=5, **SHORT)
    for i in range(3):
        np.testing.assert_allclose(model.generate(clap_BE[i : i + 1], seed=5 + i, **SHORT)[0], batch[i], atol=ROUNDING)


@pytest.mark.parametrize(
    "wrong, value, words",
    [
        ("steps", 0, "1 to 999"),
        ("steps", -3, "1 to 999"),
        ("steps", 1000, "1 to 999"),
        ("seed", -1, "0 to 9223372036854775807"),
        ("seed", 2**63, "0 to 9223372036854775807"),
        ("seconds", 0.0, "0.04 to 600"),
        ("seconds", -1.0, "0.04 to 600"),
        ("seconds", 0.0399, "0.04 to 600"),
        ("seconds", math.inf, "0.04 to 600"),
        ("seconds", math.nan, "0.04 to 600"),
        ("seconds", 601.0, "0.04 to 600"),
        ("guidance", math.nan, "finite"),
    ],
)
def test_values_that_cannot_be_are_refused_with_their_range(model, wrong, value, words):
    with pytest.raises(GenerationError, match=rf"^{wrong} is {value}: take .*{words}.*$"):
        model.generate(vectors(1), **{**SHORT, wrong: value})


def test_most_steps_are_sampled(pipeline):
    pipeline.scheduler.set_timesteps(999)
    assert pipeline.scheduler.timesteps.max() == 999
    pipeline.scheduler.set_timesteps(1000)
    assert pipeline.scheduler.timesteps.max() == len(pipeline.scheduler.alphas_cumprod)  # one too far


@pytest.mark.parametrize("shape", [(1, 32), (2, 65), (0, 64)])
def test_vectors_of_another_shape_are_refused(model, shape):
    with pytest.raises(GenerationError, match=rf"\(B, 64\), found \({shape[0]}, {shape[1]}\)"):
        model.generate(np.ones(shape, np.float32), **SHORT)


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_vectors_without_a_direction_are_refused(model, value):
    clap_BE = vectors(3)
    clap_BE[1] = value
    with pytest.raises(GenerationError, match="vector 1 is zero or not finite"):
        model.generate(clap_BE, **SHORT)


def test_sound_that_is_not_finite_is_refused(copy):
    path = copy / "vae/diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["decoder.conv_out.bias"].fill_(math.nan)
    save_file(weights, path)
    with pytest.raises(GenerationError, match="not finite at steps 2 and guidance 7.5"):
        AudioLDM.load(copy, device="cpu").generate(vectors(1), **SHORT)


def test_loading_and_sampling_print_nothing_off_a_terminal(folder, records, capfd):
    AudioLDM.load(folder, device="cpu").generate(vectors(1), **SHORT)
    assert records == []
    assert capfd.readouterr() == ("", "")


def test_sampling_shows_a_bar_on_a_terminal(model, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    model.generate(vectors(1), **SHORT)
    assert "2/2" in terminal.getvalue()


def test_only_the_named_messages_are_silenced(copy, pipeline, records):
    path = copy / "text_encoder/model.safetensors"
    save_file({**load_file(path), "text_model.other": torch.zeros(1)}, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 weights that ClapTextModelWithProjection .* \(text_model.other\)"):
        AudioLDM.load(copy, device="cpu")
    assert len(records) == 1 and "text_model.other" in records[0].getMessage()
    AudioLDMPipeline(**pipeline.components)
    assert "deprecated" in records[-1].getMessage()


def to_bin(folder):
    for part, name in WEIGHTS.items():
        path = folder / part / f"{name}.safetensors"
        torch.save(load_file(path), folder / part / f"{name.replace('model', 'pytorch_model', name == 'model')}.bin")
        path.unlink()


def test_bin_weights_are_taken_where_there_are_no_others(model, copy):
    to_bin(copy)
    assert not list(copy.rglob("*.safetensors"))
    found = AudioLDM.load(copy, device="cpu").generate(vectors(1), **SHORT)
    np.testing.assert_allclose(found, model.generate(vectors(1), **SHORT), atol=ROUNDING)


def test_safetensors_are_preferred(model, copy):
    (copy / "unet/diffusion_pytorch_model.bin").write_bytes(b"nonsense")
    found = AudioLDM.load(copy, device="cpu").generate(vectors(1), **SHORT)
    np.testing.assert_allclose(found, model.generate(vectors(1), **SHORT), atol=ROUNDING)


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("part", WEIGHTS)
def test_pickled_code_is_not_run(copy, tmp_path, part):
    to_bin(copy)
    (path,) = (copy / part).glob("*.bin")
    torch.save({"weight": Harmful(tmp_path / "harm")}, path)
    refusal(copy, part)
    assert not (tmp_path / "harm").exists()


def refusal(folder, words):
    with pytest.raises(CheckpointError) as caught:
        AudioLDM.load(folder, device="cpu")
    message = str(caught.value)
    assert str(folder) in message and words in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "name",
    [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "unet/config.json",
        "vae/config.json",
        "vocoder/config.json",
    ],
)
def test_missing_files_are_named(copy, name):
    (copy / name).unlink()
    assert refusal(copy, name).count(".json") == 1


@pytest.mark.parametrize("part", WEIGHTS)
def test_missing_weights_are_named(copy, part):
    (copy / part / f"{WEIGHTS[part]}.safetensors").unlink()
    refusal(copy, f"lacks weights of {part}:")


def test_a_tokenizer_without_words_is_refused(copy):
    (copy / "tokenizer/tokenizer.json").unlink()
    refusal(copy, "tokenizer/vocab.json, tokenizer/merges.txt")


def test_a_missing_folder_is_refused(tmp_path):
    refusal(tmp_path / "none", "no folder")


def test_everything_missing_is_said_at_once(copy):
    shutil.rmtree(copy / "unet")
    shutil.rmtree(copy / "vae")
    refusal(copy, "unet/config.json, vae/config.json, weights of unet, weights of vae")


@pytest.mark.parametrize(
    "key, value", [("_class_name", "AudioLDM2Pipeline"), ("scheduler", ["diffusers", "LMSDiscreteScheduler"])]
)
def test_other_pipelines_are_refused(copy, key, value):
    path = copy / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    refusal(copy, str(value))


@pytest.mark.parametrize("part", WEIGHTS)
@pytest.mark.parametrize("damage", ["lost", "reshaped", "cut"])
def test_damaged_weights_are_refused_and_nothing_else_is_printed(copy, part, damage, records):
    path = copy / part / f"{WEIGHTS[part]}.safetensors"
    weights = load_file(path)
    name = next(key for key, value in weights.items() if value.ndim == 1)
    if damage == "lost":
        del weights[name]
    elif damage == "reshaped":
        weights[name] = torch.zeros(3)
    save_file(weights, path, metadata={"format": "pt"})
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    refusal(copy, f"{part} cannot be loaded" if damage == "cut" else f"({name})")
    assert records == []


@pytest.mark.parametrize("name", ["unet/config.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer.json"])
def test_damaged_json_is_refused(copy, name):
    (copy / name).write_text("{")
    refusal(copy, name.split("/")[0])


def test_a_device_that_torch_does_not_know_is_refused(folder):
    with pytest.raises(GenerationError, match="^torch cannot use device 'abacus'.*: use cpu$"):
        AudioLDM.load(folder, device="abacus")


def test_wav_is_16_bit_pcm_of_the_same_samples(tmp_path):
    path = tmp_path / "new" / "a.wav"
    write_wav(path, np.array([0, 0.25, -0.5, 1, -1, 2, -2], np.float32), 16000)
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16000)
        found = np.frombuffer(file.readframes(7), "<i2")
    np.testing.assert_allclose(found, [0, 8192, -16384, 32767, -32768, 32767, -32768], atol=1)
    assert [path.name for path in path.parent.iterdir()] == ["a.wav"]


def test_a_wav_replaces_an_older_one_and_keeps_any_name(tmp_path):
    path = tmp_path / "a.sound"
    write_wav(str(path), np.zeros(5, np.float32), 16000)
    write_wav(str(path), np.zeros(9, np.float32), 16000)
    with wave.open(str(path)) as file:
        assert file.getnframes() == 9


def test_a_failed_write_leaves_no_file_and_the_older_one_whole(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"older")
    with pytest.raises(GenerationError, match=f"^{path} cannot be written .*: choose another place$"):
        write_wav(path, np.zeros(5, np.float32), -1)
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"] and path.read_bytes() == b"older"


@pytest.mark.parametrize("place", ["folder", "file/a.wav"])
def test_a_place_that_cannot_be_written_is_refused(tmp_path, place):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(GenerationError, match=f"^{tmp_path / place} cannot be written"):
        write_wav(tmp_path / place, np.zeros(5, np.float32), 16000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]

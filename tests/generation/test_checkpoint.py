"""Checkpoints that are refused, and what is said of them."""

import json
import logging
import os
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from c2c_jax.errors import CheckpointError
from c2c_jax.generation.audioldm import AudioLDM
from tests.generation.test_audioldm import ROUNDING, one

WEIGHTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "vocoder": "model",
}


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


def test_loading_and_sampling_print_nothing_off_a_terminal(folder, records, capfd):
    one(AudioLDM.load(folder, device="cpu"))
    assert records == []
    assert capfd.readouterr() == ("", "")


def test_only_the_named_messages_are_silenced(copy, records):
    path = copy / "text_encoder/model.safetensors"
    save_file({**load_file(path), "text_model.other": torch.zeros(1)}, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 weights that ClapTextModelWithProjection .* \(text_model.other\)"):
        one(AudioLDM.load(copy, device="cpu"))
    assert len(records) == 1 and "text_model.other" in records[0].getMessage()


def to_bin(folder):
    for part, name in WEIGHTS.items():
        path = folder / part / f"{name}.safetensors"
        torch.save(load_file(path), folder / part / f"{name.replace('model', 'pytorch_model', name == 'model')}.bin")
        path.unlink()


def test_bin_weights_are_taken_where_there_are_no_others(model, copy):
    to_bin(copy)
    assert not list(copy.rglob("*.safetensors"))
    found = one(AudioLDM.load(copy, device="cpu"))
    np.testing.assert_allclose(found, one(model), atol=ROUNDING)


def test_safetensors_are_preferred(model, copy):
    (copy / "unet/diffusion_pytorch_model.bin").write_bytes(b"nonsense")
    found = one(AudioLDM.load(copy, device="cpu"))
    np.testing.assert_allclose(found, one(model), atol=ROUNDING)


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
        one(AudioLDM.load(folder, device="cpu"))
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


def test_other_pipelines_are_refused(copy):
    path = copy / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "_class_name": "AudioLDM2Pipeline"}))
    refusal(copy, "AudioLDM2Pipeline")


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
    refusal(copy, f"{path} is half a download" if damage == "cut" else f"({name})")
    assert records == []


@pytest.mark.parametrize("name", ["unet/config.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer.json"])
def test_damaged_json_is_refused(copy, name):
    (copy / name).write_text("{")
    refusal(copy, name.split("/")[0])

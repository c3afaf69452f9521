"""Loading of AudioLDM checkpoints, and errors for damaged ones."""

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
from c2c_jax.generation.sampling import SAMPLING_FILE, checkpoint_sampling
from tests.generation.test_audioldm import ROUNDING, generate

WEIGHTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "vocoder": "model",
}


@pytest.fixture
def records():
    """Collects the log records that diffusers and transformers print."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    for logger in loggers:
        logger.addHandler(handler)
    yield records
    for logger in loggers:
        logger.removeHandler(handler)


def test_loading_and_sampling_print_nothing(folder, records, capfd):
    generate(AudioLDM.load(folder, device="cpu"))
    assert records == []
    assert capfd.readouterr() == ("", "")


def test_only_the_named_messages_are_silenced(copy, records):
    path = copy / "text_encoder/model.safetensors"
    save_file({**load_file(path), "text_model.other": torch.zeros(1)}, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 weights that ClapTextModelWithProjection .* \(text_model.other\)"):
        generate(AudioLDM.load(copy, device="cpu"))
    assert len(records) == 1 and "text_model.other" in records[0].getMessage()


def to_bin(folder):
    for part, name in WEIGHTS.items():
        path = folder / part / f"{name}.safetensors"
        torch.save(load_file(path), folder / part / f"{name.replace('model', 'pytorch_model', name == 'model')}.bin")
        path.unlink()


def test_bin_weights_are_loaded_without_safetensors(model, copy):
    to_bin(copy)
    assert not list(copy.rglob("*.safetensors"))
    actual = generate(AudioLDM.load(copy, device="cpu"))
    np.testing.assert_allclose(actual, generate(model), atol=ROUNDING)


def test_safetensors_are_preferred(model, copy):
    (copy / "unet/diffusion_pytorch_model.bin").write_bytes(b"nonsense")
    actual = generate(AudioLDM.load(copy, device="cpu"))
    np.testing.assert_allclose(actual, generate(model), atol=ROUNDING)


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
        generate(AudioLDM.load(folder, device="cpu"))
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
    refusal(copy, f"incomplete AudioLDM checkpoint: download weights of {part}")


def test_a_tokenizer_without_words_is_refused(copy):
    (copy / "tokenizer/tokenizer.json").unlink()
    refusal(copy, "tokenizer/vocab.json, tokenizer/merges.txt")


def test_a_missing_folder_is_refused(tmp_path):
    refusal(tmp_path / "none", "does not exist")


def test_all_missing_files_are_listed(copy):
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
    refusal(copy, f"{path} is a partial download" if damage == "cut" else f"({name})")
    assert records == []


@pytest.mark.parametrize("name", ["unet/config.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer.json"])
def test_damaged_json_is_refused(copy, name):
    (copy / name).write_text("{")
    refusal(copy, name.split("/")[0])


def test_other_weight_files_are_ignored(model, copy):
    """LoRA weights and other precisions next to the `.bin` are ignored, as in diffusers."""
    to_bin(copy)
    for part in ("unet", "vae"):
        save_file({"lora.up.weight": torch.zeros(2, 2)}, copy / part / "pytorch_lora_weights.safetensors")
        save_file({"w": torch.zeros(2, 2)}, copy / part / "diffusion_pytorch_model.fp16.safetensors")
    save_file({"w": torch.zeros(2, 2)}, copy / "text_encoder/model.fp16.safetensors")
    (copy / "text_encoder/adapter_config.json").write_text('{"base_model_name_or_path": "nobody/nothing"}')
    np.testing.assert_allclose(generate(AudioLDM.load(copy, device="cpu")), generate(model), atol=ROUNDING)
    (copy / "unet/diffusion_pytorch_model.bin").unlink()
    refusal(copy, "download weights of unet")


def test_shards_and_parameters_load(model, copy):
    path = copy / "unet/diffusion_pytorch_model.safetensors"
    weights, names = load_file(path), sorted(load_file(path))
    shards = {"diffusion_pytorch_model-1.safetensors": names[::2], "diffusion_pytorch_model-2.safetensors": names[1::2]}
    for file, keys in shards.items():
        save_file({key: weights[key] for key in keys}, path.parent / file)
    index = {"metadata": {}, "weight_map": {key: file for file, keys in shards.items() for key in keys}}
    (path.parent / f"{path.name}.index.json").write_text(json.dumps(index))
    path.unlink()
    text = copy / "text_encoder/model.safetensors"
    torch.save(
        {key: torch.nn.Parameter(w, w.is_floating_point()) for key, w in load_file(text).items()},
        text.with_name("pytorch_model.bin"),
    )
    text.unlink()
    np.testing.assert_allclose(generate(AudioLDM.load(copy, device="cpu")), generate(model), atol=ROUNDING)
    (path.parent / "diffusion_pytorch_model-2.safetensors").unlink()
    refusal(copy, "lacks diffusion_pytorch_model-2.safetensors, which")


HUGE = 10**9
INVALID_FIELDS = [
    ("unet", "layers_per_block", HUGE), ("unet", "transformer_layers_per_block", HUGE), ("unet", "in_channels", HUGE),
    ("unet", "block_out_channels", [HUGE, HUGE]), ("unet", "projection_class_embeddings_input_dim", HUGE),
    ("unet", "attention_head_dim", HUGE), ("unet", "class_embed_type", None), ("unet", "norm_num_groups", 7),
    ("unet", "down_block_types", ["DownBlock2D"] * 10_000), ("unet", "block_out_channels", {}), ("unet", "act_fn", []),
    ("unet", "center_input_sample", "x"), ("unet", "flip_sin_to_cos", []), ("unet", "freq_shift", HUGE),
    ("unet", "norm_num_groups", 0.5), ("unet", "downsample_padding", HUGE), ("unet", "attention_head_dim", -1),
    ("vae", "norm_num_groups", -1), ("unet", "norm_eps", HUGE),
    ("unet", "mid_block_scale_factor", {}), ("unet", "resnet_out_scale_factor", 0),
    ("vae", "force_upcast", "x"), ("vae", "layers_per_block", HUGE), ("vae", "latent_channels", HUGE),
    ("vae", "scaling_factor", 0),
    ("vae", "scaling_factor", "x"), ("vae", "block_out_channels", None), ("vae", "quantization_config", {"a": 1}),
    ("vocoder", "model_in_dim", HUGE), ("vocoder", "sampling_rate", HUGE), ("vocoder", "sampling_rate", "x"),
    ("vocoder", "upsample_rates", [4096, 4096]), ("vocoder", "upsample_rates", []), ("vocoder", "upsample_rates", {}),
    ("vocoder", "upsample_kernel_sizes", [HUGE, 4]), ("vocoder", "resblock_dilation_sizes", None),
    ("vocoder", "leaky_relu_slope", 1e300), ("text_encoder", "num_hidden_layers", HUGE),
    ("text_encoder", "hidden_size", HUGE), ("text_encoder", "vocab_size", 10), ("text_encoder", "hidden_act", "swish"),
    ("scheduler", "num_train_timesteps", HUGE), ("scheduler", "beta_end", 5), ("scheduler", "beta_schedule", "x"),
    ("scheduler", "prediction_type", []), ("scheduler", "steps_offset", "x"), ("scheduler", "trained_betas", [[]]),
    ("scheduler", "clip_sample", "x"),
]  # fmt: skip


@pytest.mark.parametrize(("part", "field", "value"), INVALID_FIELDS, ids=lambda value: str(value)[:20])
def test_invalid_config_fields_are_refused(copy, part, field, value):
    path = copy / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(CheckpointError) as caught:
        generate(AudioLDM.load(copy, device="cpu"))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000 and part in str(caught.value)


def test_labels_and_attention_kernels_are_ignored(model, copy):
    """transformers would create a name for each label, and download the attention kernel."""
    path = copy / "text_encoder/config.json"
    odd = {"num_labels": HUGE, "attn_implementation": "nobody/kernel", "auto_map": {"AutoModel": "a.B"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | odd))
    np.testing.assert_allclose(generate(AudioLDM.load(copy, device="cpu")), generate(model), atol=ROUNDING)


def test_weights_that_are_not_finite(copy):
    path = copy / "vae/diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["decoder.conv_out.bias"][0] = float("nan")
    save_file(weights, path)
    refusal(copy, "decoder.conv_out.bias has values that are not finite")


@pytest.mark.parametrize("content", ["{", "[]", '{"_class_name": ["AudioLDMPipeline"]}', "[" * 10**5])
def test_invalid_model_index(copy, content):
    (copy / "model_index.json").write_text(content)
    refusal(copy, "model_index.json")


@pytest.mark.parametrize(
    "settings",
    [{"guidance": ["x"]}, {"guidance": "7"}, {"steps": 0}, {"steps": 2.5}, {"steps": True}, {"seconds": -1},
     {"seconds": 10**9}, {"seed": 3}, {"scheduler": {}}, {"scheduler": "euler"}, {"negative_prompt": 5},
     {"negative_prompt": "x" * 20_000}],
    ids=str,
)  # fmt: skip
def test_invalid_sampling_settings(tmp_path, settings):
    (tmp_path / SAMPLING_FILE).write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=SAMPLING_FILE) as caught:
        checkpoint_sampling(tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_missing_sampling_settings(tmp_path):
    assert checkpoint_sampling(tmp_path) == {}
    (tmp_path / SAMPLING_FILE).write_text('{"guidance": 3, "steps": null, "seconds": 2.5}')
    assert checkpoint_sampling(tmp_path) == {"guidance": 3, "seconds": 2.5}

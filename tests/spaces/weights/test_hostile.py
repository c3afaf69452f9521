"""Checkpoints with excessive or impossible values are refused with one line, before memory is allocated."""

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from c2c_jax.errors import CheckpointError
from c2c_jax.io.resolve import EMBEDDED
from c2c_jax.spaces.space import load_space
from c2c_jax.spaces.weights.folders import checkpoint_folder

HUGE = 10**9


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EMBEDDED / "clip", tmp_path / "clip"))


@pytest.fixture
def clap(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EMBEDDED / "clap", tmp_path / "clap"))


def edit(path: Path, *keys: str, value: Any) -> None:
    content = json.loads(path.read_text())
    part = content
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    path.write_text(json.dumps(content))


def refusal(folder: Path, **options: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_space(str(folder), **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    return str(caught.value)


@pytest.mark.parametrize(
    "keys",
    [
        ("vision_config", name)
        for name in "num_hidden_layers hidden_size intermediate_size image_size patch_size num_channels".split()
    ]
    + [("text_config", name) for name in ("num_hidden_layers", "hidden_size", "vocab_size", "max_position_embeddings")]
    + [("projection_dim",)],
    ids=lambda keys: keys[-1],
)  # fmt: skip
@pytest.mark.parametrize("value", [HUGE, 120])
def test_excessive_clip_sizes(clip, keys, value):
    edit(clip / "config.json", *keys, value=value)
    message = refusal(clip)
    assert (
        keys[-1] in message or "the weights have" in message or "different models" in message or "multiple" in message
    )


@pytest.mark.parametrize(
    "name",
    ["spec_size", "num_mel_bins", "window_size", "hidden_size", "patch_embeds_hidden_size", "mlp_ratio", "patch_size"],
)
def test_excessive_clap_sizes(clap, name):
    edit(clap / "config.json", "audio_config", name, value=HUGE)
    assert name in refusal(clap)


def test_many_stages_and_blocks(clap):
    edit(clap / "config.json", "audio_config", "depths", value=[2, HUGE])
    assert "at `$.audio_config.depths[1]`" in refusal(clap)
    edit(clap / "config.json", "audio_config", "depths", value=[2, 100])
    assert "asks for 100 layers in audio_model.audio_encoder.layers.1.blocks, but the weights have 2" in refusal(clap)
    edit(clap / "config.json", "audio_config", "depths", value=[2] * 1000)
    assert "depths" in refusal(clap)


def test_many_labels(clip):
    """transformers would create a name for each label."""
    expected = load_space(str(clip)).encode_text(["a dog"])
    edit(clip / "config.json", "num_labels", value=HUGE)
    edit(clip / "config.json", "text_config", "num_labels", value=HUGE)
    np.testing.assert_array_equal(load_space(str(clip)).encode_text(["a dog"]), expected)


def fields(content: dict[str, Any], parents: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in content.items():
        yield (*parents, key)
        if isinstance(value, dict):
            yield from fields(value, (*parents, key))


DELETED = object()
ODD = [DELETED, None, [], {}, "x", True, -1, 10**30, 1e300]
# Fields that do not change vectors in inference, or that default to the same value in transformers.
HARMLESS = {
    "architectures", "initializer_factor", "initializer_range", "logit_scale_init_value", "transformers_version",
    "attention_dropout", "bos_token_id", "projection_dim", "model_type", "pad_token_id",
}  # fmt: skip


@pytest.mark.slow
def test_every_config_field_replaced(clip):
    """The vision tower's vector does not change, equals that of transformers' default, or the config is refused."""
    original = json.loads((clip / "config.json").read_text())
    picture = [Image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3))]
    expected = load_space(str(clip), only="image").encode_images(picture)
    refused = 0
    for keys in (keys for keys in fields(original) if keys[0] != "text_config"):
        for value in ODD:
            content = copy.deepcopy(original)
            part = content
            for key in keys[:-1]:
                part = part[key]
            if value is DELETED:
                del part[keys[-1]]
            else:
                part[keys[-1]] = value
            (clip / "config.json").write_text(json.dumps(content))
            try:
                found = load_space(str(clip), only="image").encode_images(picture)
            except CheckpointError as error:
                assert "\n" not in str(error) and len(str(error)) < 1000
                refused += 1
                continue
            if keys[-1] == "num_attention_heads" and value is DELETED:
                continue  # transformers' default of 12 heads also divides 96 units
            np.testing.assert_array_equal(found, expected, err_msg=f"{keys} {value}")
            assert keys[-1] in HARMLESS or value is DELETED or (keys[-1], value) == ("vision_config", {})
    assert refused > 70


@pytest.mark.parametrize(
    "content",
    [b"[]", b"null", b"5", b'{"model_type": ["clip"]}', b'{"model_type": {}}', b"{" * 10**5, b'{"a": NaN}',
     b"\xff\xfe{}", b'{"projection_dim": ' + b"9" * 5000 + b"}"],
)  # fmt: skip
def test_configs_with_another_root(clip, content):
    (clip / "config.json").write_bytes(content)
    assert "config.json" in refusal(clip)


@pytest.mark.parametrize("value", [[], {}, "77", 0, -1, 1, 77.5, True, None])
def test_invalid_text_lengths(clip, value):
    edit(clip / "tokenizer_config.json", "model_max_length", value=value)
    if value is None:  # transformers' default: only the tower's limit applies
        assert load_space(str(clip)).max_tokens == 77
    else:
        assert "tokenizer" in refusal(clip)


def test_unlimited_text_length(clip):
    edit(clip / "tokenizer_config.json", "model_max_length", value=1000000000000000019884624838656)
    assert load_space(str(clip)).max_tokens == 77


@pytest.mark.parametrize(
    "content", [b"[" * 10**5, b"{}", b"[]", b'{"model": {"type": "BPE", "vocab": [], "merges": {}}}', b"\0"]
)
def test_invalid_tokenizers(clip, content):
    (clip / "tokenizer.json").write_bytes(content)
    assert "tokenizer" in refusal(clip)


def test_tokenizers_of_another_model(clip, clap):
    edit(clip / "config.json", "text_config", "eos_token_id", value=5)
    assert "does not end texts with eos_token_id 5" in refusal(clip)
    edit(clap / "config.json", "text_config", "pad_token_id", value=7)
    assert "pad_token_id 7, and the tokenizer" in refusal(clap)


def test_tokens_outside_the_vocabulary(clip):
    """JAX would not raise for them, but return a vector."""
    tensors = safetensors.numpy.load_file(clip / "model.safetensors")
    name = "text_model.embeddings.token_embedding.weight"
    tensors[name] = np.ascontiguousarray(tensors[name][:1000])
    safetensors.numpy.save_file(tensors, clip / "model.safetensors", {"format": "pt"})
    edit(clip / "config.json", "text_config", "vocab_size", value=1000)
    edit(clip / "config.json", "text_config", "eos_token_id", value=2)
    with pytest.raises(CheckpointError, match="gives token 1023, and its text tower has 1000"):
        load_space(str(clip)).encode_text(["a dog"])


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_weights_that_are_not_finite(clip, value):
    tensors = safetensors.numpy.load_file(clip / "model.safetensors")
    name = "vision_model.encoder.layers.0.mlp.fc1.weight"
    tensors[name] = tensors[name].astype(np.float64)
    tensors[name][3, 5] = value
    safetensors.numpy.save_file(tensors, clip / "model.safetensors", {"format": "pt"})
    assert f"tensor {name} has values that are not finite" in refusal(clip, only="image")


def test_weights_of_zeros_and_of_integers(clip):
    tensors = safetensors.numpy.load_file(clip / "model.safetensors")
    name = "visual_projection.weight"
    safetensors.numpy.save_file({**tensors, name: 0 * tensors[name]}, clip / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="vectors that are zero or not finite"):
        load_space(str(clip), only="image").encode_images([Image.new("RGB", (9, 9), "red")])
    tensors[name] = (100 * tensors[name]).astype(np.int8)
    safetensors.numpy.save_file(tensors, clip / "model.safetensors", {"format": "pt"})
    assert f"tensor {name} is int8; expected floats" in refusal(clip, only="image")


def shard(folder: Path, weight_map: Any) -> None:
    (folder / "model.safetensors").rename(folder / "whole.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        (None, "weight_map"),
        ([], "weight_map"),
        ({"a": 5}, "weight_map"),
        ({"a": "../clip/whole.safetensors"}, "expected names of files beside it"),
        ({"a": "/etc/passwd"}, "expected names of files beside it"),
        ({"a": ""}, "expected names of files beside it"),
        ({"a": "model-00002-of-00002.safetensors"}, "lacks model-00002-of-00002.safetensors"),
        ({"a": "config.json"}, "config.json"),
    ],
)  # fmt: skip
def test_invalid_shard_lists(clip, weight_map, message):
    shard(clip, weight_map)
    assert message in refusal(clip)


def test_tensor_in_two_shards(clip):
    shard(clip, {"a": "whole.safetensors", "b": "other.safetensors"})
    shutil.copy(clip / "whole.safetensors", clip / "other.safetensors")
    assert "of another shard" in refusal(clip)


def test_other_files_are_named(clip):
    (clip / "model.safetensors").rename(clip / "model.safetensors.incomplete")
    assert "found model.safetensors.incomplete" in refusal(clip)


@pytest.mark.parametrize(
    "name", ["a\0b", "a\nb", "x" * 5000, "~nosuchuser/clip", "~nosuchuser/clip:text_encoder", "\udcff"]
)
def test_invalid_names(name):
    for load in (load_space, checkpoint_folder):
        with pytest.raises(CheckpointError) as caught:
            load(name)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_a_missing_file_of_laion(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"no file .*630k-audioset-best.pt; .* `hf download lukewys/laion_clap 630k-"
    ):
        load_space("630k-audioset-best.pt")
    with pytest.raises(CheckpointError, match="no file .*; download it"):
        load_space(str(tmp_path / "audioldm-s-full.ckpt"))

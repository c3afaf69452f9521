"""The vision tower loaded alone, without transformers, gives the same vectors as the whole space."""

import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from c2c_jax.errors import CheckpointError
from c2c_jax.spaces.space import load_space


@pytest.fixture
def folder(tmp_path: Path, clip_folder: Path) -> Path:
    return Path(shutil.copytree(clip_folder, tmp_path / "copy"))


def example_images(count: int = 3) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)) for _ in range(count)]


def test_same_vectors_and_fingerprint(clip_folder):
    whole, alone = load_space(str(clip_folder)), load_space(str(clip_folder), only="image")
    assert (alone.id, alone.dim) == (whole.id, whole.dim)
    np.testing.assert_array_equal(alone.encode_images(example_images()), whole.encode_images(example_images()))
    with pytest.raises(CheckpointError, match="loaded without its text tower"):
        alone.encode_text(["a dog"])
    kept = sum(leaf.size for leaf in jax.tree.leaves(alone._replicated[1]))
    assert kept < 0.7 * sum(leaf.size for leaf in jax.tree.leaves(whole._replicated[1]))


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("vision_config", "hidden_size", "many", "Expected `int`, got `str` - at `$.hidden_size`"),
        ("vision_config", "num_hidden_layers", -1, "Expected `int` >= 1 - at `$.num_hidden_layers`"),
        ("vision_config", "num_attention_heads", 7, "not a multiple of num_attention_heads"),
        ("vision_config", "hidden_act", "swish2", "Invalid enum value 'swish2' - at `$.hidden_act`"),
        ("vision_config", "hidden_size", 32, "config.json"),  # differs from the weights
        (None, "model_type", "clap", "has no image tower"),
    ],
)
def test_invalid_configs(folder, part, field, value, message):
    config = json.loads((folder / "config.json").read_text())
    (config[part] if part else config)[field] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=re.escape(message)) as caught:
        load_space(str(folder), only="image")
    assert "\n" not in str(caught.value)


def test_loading_is_strict(folder):
    tensors = {name: x.clone() for name, x in load_file(folder / "model.safetensors").items()}  # not a view of the file
    kept = tensors.pop("visual_projection.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="visual_projection.weight"):
        load_space(str(folder), only="image")
    save_file(
        {**tensors, "visual_projection.weight": kept, "odd": kept.clone()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(CheckpointError, match="odd"):
        load_space(str(folder), only="image")


def test_bin_files(folder, clip_folder):
    import torch

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    found = load_space(str(folder), only="image").encode_images(example_images())
    np.testing.assert_array_equal(found, load_space(str(clip_folder)).encode_images(example_images()))

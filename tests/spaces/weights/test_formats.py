"""The registry of formats: configs equal to transformers', and registered formats."""

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import transformers
from safetensors.numpy import load_file, save_file

from c2c_jax.errors import CheckpointError
from c2c_jax.spaces.models.clip import CLIPModel
from c2c_jax.spaces.space import identify, load_space
from c2c_jax.spaces.weights import clip, formats
from c2c_jax.spaces.weights.formats import FORMATS, Format, register_file_format, register_format
from c2c_jax.spaces.weights.rules import WeightTable


def assert_same_fields(ours, theirs) -> None:
    """Compares every field with the attribute of the same name in transformers' config."""
    for field in dataclasses.fields(ours):
        found, expected = getattr(ours, field.name), getattr(theirs, field.name)
        if dataclasses.is_dataclass(found):
            assert_same_fields(found, expected)
        elif field.name in ("patch_size", "patch_stride") and isinstance(found, tuple):
            assert found == (tuple(expected) if isinstance(expected, list | tuple) else (expected, expected))
        else:
            assert found == (tuple(expected) if isinstance(expected, list) else expected), field.name


# Published variants: defaults omitted, sections repeated, fields of the whole model in its towers.
CONTENTS = [
    {},
    {"projection_dim": 64, "vision_config": {"hidden_size": 96, "patch_size": 8, "hidden_act": "gelu"}},
    {"vision_config": {"layer_norm_eps": 1e-3}, "vision_config_dict": {"num_hidden_layers": 3}},
    {"vision_config": {"hidden_size": 96}, "vision_config_dict": None, "text_config": None},
    {"text_config": {"hidden_size": 96, "eos_token_id": 2}, "text_config_dict": {}, "vision_config_dict": {}},
    {"text_config": {"projection_dim": 768, "pad_token_id": 5}, "audio_config": {"projection_dim": 768}},
    {"text_config": {"projection_hidden_act": "gelu", "layer_norm_eps": 1e-5}, "projection_hidden_act": "gelu"},
    {"audio_config": {"depths": [2, 2, 12, 2], "patch_embeds_hidden_size": 128, "hidden_size": 1024}},
    {"audio_config": {"enable_fusion": True, "fusion_type": "aff_2d", "patch_stride": 4}, "projection_dim": 96},
]


@pytest.mark.parametrize(
    ("kind", "content"),
    [("clip", content) for content in CONTENTS]
    + [("clap", content) for content in CONTENTS if not any(name.endswith("_dict") for name in content)],
    ids=str,
)
def test_configs_equal_transformers(kind, content):
    theirs = {"clip": transformers.CLIPConfig, "clap": transformers.ClapConfig}[kind](**content)
    ours = FORMATS[kind].config(content)
    if kind == "clip":  # transformers' ClapConfig also sets the width of its towers
        theirs.vision_config.projection_dim = theirs.projection_dim
    assert_same_fields(ours, theirs)
    assert ours.projection_dim == theirs.projection_dim


@pytest.mark.parametrize(
    ("model_type", "kind"),
    [
        ("clip_vision_model", transformers.CLIPVisionConfig),
        ("clap_text_model", transformers.ClapTextConfig),
        ("clap_audio_model", transformers.ClapAudioConfig),
    ],
)
def test_configs_of_one_tower(model_type, kind):
    assert_same_fields(FORMATS[model_type].config({}), kind())
    assert_same_fields(FORMATS[model_type].config({"projection_dim": 96}), kind(projection_dim=96))


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(formats, "FORMATS", dict(FORMATS))
    monkeypatch.setattr(formats, "FILE_FORMATS", list(formats.FILE_FORMATS))
    monkeypatch.setattr("c2c_jax.spaces.space.FORMATS", formats.FORMATS)


def test_registered_format(tmp_path, registry, clip_folder, caption_list):
    """CLIP with another model_type, whose tensors have the prefix `net.`."""
    folder = shutil.copytree(clip_folder, tmp_path / "mine")
    tensors = {f"net.{key}": value for key, value in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"model_type": "mine"}))
    with pytest.raises(CheckpointError, match="model_type 'mine'; expected clip, clip_vision_model, clap"):
        load_space(str(folder))
    rules = [dataclasses.replace(rule, torch=rf"net\.{rule.torch}") for rule in clip.TABLE.rules]
    register_format("mine", Format(config=clip.config, model=CLIPModel, table=WeightTable(rules=rules)))
    space, expected = load_space(str(folder)), load_space(str(clip_folder))
    np.testing.assert_array_equal(space.encode_text(caption_list[:3]), expected.encode_text(caption_list[:3]))
    assert space.id == identify(str(folder)) and space.image_preprocessor == expected.image_preprocessor
    space.save(tmp_path / "again")
    assert load_file(tmp_path / "again/model.safetensors").keys() == tensors.keys()


def test_registered_file_format(tmp_path, registry):
    (tmp_path / "a.own").write_bytes(b"own")
    opened = []
    register_file_format(lambda name, path: opened.append((name, path)) if path.suffix == ".own" else None)
    with pytest.raises(CheckpointError, match="holds the text 'own'"):
        load_space(str(tmp_path / "a.own"))
    assert opened == [(str(tmp_path / "a.own"), tmp_path / "a.own")]


def test_images_and_sounds_need_neither_transformers_nor_torch():
    """Only tokenizers need transformers, whose import takes seconds."""
    program = (
        "import sys\n"
        "from c2c_jax.spaces.space import identify, load_space\n"
        "import c2c_jax.spaces.encoding, c2c_jax.training.train\n"
        "assert load_space('miniworld/clip', only='image').dim == 64 == identify('miniworld/clap').dim\n"
        "load_space('miniworld/clap', only='audio')\n"
        "assert not {'transformers', 'torch'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

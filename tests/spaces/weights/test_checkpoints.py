"""Loading and saving checkpoints in all published variants, and damaged checkpoints."""

import json
import pickle
import re
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers
from safetensors.torch import load_file, save_file

from c2c_jax.errors import CheckpointError
from c2c_jax.spaces.models.clip import CLIPModel
from c2c_jax.spaces.space import identify, load_space
from c2c_jax.spaces.weights import clip
from c2c_jax.spaces.weights.rules import LINEAR, Rule, WeightTable, fill, leaf


@pytest.fixture
def folder(tmp_path: Path, clip_folder: Path) -> Path:
    return Path(shutil.copytree(clip_folder, tmp_path / "copy"))


def edit_config(folder: Path, edit) -> None:
    config = json.loads((folder / "config.json").read_text())
    edit(config)
    (folder / "config.json").write_text(json.dumps(config))


def rewrite(folder: Path, edit) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_space(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_old_bin_file_with_buffers_loads_the_same(folder, clip_folder, caption_list):
    tensors = load_file(folder / "model.safetensors")
    tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    tensors["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    space = load_space(str(folder))
    assert space.ignored == ["text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"]
    expected = load_space(str(clip_folder)).encode_text(caption_list[:4])
    np.testing.assert_array_equal(space.encode_text(caption_list[:4]), expected)


def test_shards_and_half_precision_load(folder, clip_folder, caption_list):
    tensors = {key: value.half() for key, value in load_file(folder / "model.safetensors").items()}
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[:20], "model-00002-of-00002.safetensors": names[20:]}
    for file, keys in shards.items():
        save_file({key: tensors[key] for key in keys}, folder / file)
    weight_map = {key: file for file, keys in shards.items() for key in keys}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "model.safetensors").unlink()
    got = load_space(str(folder)).encode_text(caption_list[:4])
    expected = load_space(str(clip_folder)).encode_text(caption_list[:4])
    assert np.abs(got - expected).max() < 0.05 * np.abs(expected).max()
    assert not np.array_equal(got, expected)


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_activation_comes_from_config(folder, caption_list, activation):
    def edit(config):
        config["text_config"]["hidden_act"] = config["vision_config"]["hidden_act"] = activation

    edit_config(folder, edit)
    space = load_space(str(folder))
    oracle = transformers.CLIPModel.from_pretrained(folder).eval()
    tokens = space.tokenizer(caption_list[:4], padding=True, return_tensors="pt")
    pixels = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    with torch.no_grad():
        text = oracle.get_text_features(**tokens).pooler_output.numpy()
        image = oracle.get_image_features(torch.from_numpy(pixels)).pooler_output.numpy()
    np.testing.assert_allclose(space.encode_text(caption_list[:4]), text, atol=1e-5, rtol=0)
    ours = space.model.encode_image(jnp.asarray(pixels.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(ours, image, atol=1e-5, rtol=0)


@pytest.mark.parametrize("tower", ["clip", "clap"])
def test_eps_and_projection_dim_come_from_config(tmp_path, clip_folder, audioldm_folder, caption_list, tower):
    """A large LayerNorm eps, and the default projection_dim 512, which config.json omits."""
    original = clip_folder if tower == "clip" else audioldm_folder / "text_encoder"
    kind = transformers.CLIPModel if tower == "clip" else transformers.ClapTextModelWithProjection
    config = kind.config_class.from_pretrained(original)
    config.projection_dim = 512
    for part in (config, getattr(config, "text_config", None), getattr(config, "vision_config", None)):
        if part is not None:
            part.layer_norm_eps, part.projection_dim = 0.05, 512
    folder = tmp_path / "text_encoder"
    torch.manual_seed(0)
    kind(config).save_pretrained(folder)
    for file in [*original.glob("token*"), *original.glob("preproc*"), *(audioldm_folder / "tokenizer").glob("*")]:
        if tower == "clap" or file.parent == original:
            shutil.copy(file, folder)

    def edit(config):
        for part in (config, config.get("text_config", {}), config.get("vision_config", {})):
            part.pop("projection_dim", None)

    edit_config(folder, edit)
    space, oracle = load_space(str(folder)), kind.from_pretrained(folder).eval()
    assert space.dim == 512
    tokens = space.tokenizer(caption_list[:4], padding=True, return_tensors="pt")
    with torch.no_grad():
        out = oracle.get_text_features(**tokens).pooler_output if tower == "clip" else oracle(**tokens).text_embeds
    np.testing.assert_allclose(space.encode_text(caption_list[:4]), out.numpy(), atol=1e-5, rtol=0)
    tight = kind.config_class.from_pretrained(folder)
    (tight.text_config if tower == "clip" else tight).layer_norm_eps = 1e-5
    with torch.no_grad():
        other = kind.from_pretrained(folder, config=tight).eval()
        other = other.get_text_features(**tokens).pooler_output if tower == "clip" else other(**tokens).text_embeds
    assert np.abs(other.numpy() - out.numpy()).max() > 1e-3


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "{}", "model_type None"),
        ("config.json", "{", "cannot be read as JSON"),
        (
            "config.json",
            '{"model_type": "clip", "text_config": {"hidden_act": "swish"}}',
            "'swish' - at `$.text_config.hidden_act`",
        ),
        ("config.json", '{"model_type": "clip", "text_config": {"num_attention_heads": 7}}', "sizes are invalid"),
        ("tokenizer.json", "{", "tokenizer.json cannot be read as JSON"),
    ],
)
def test_invalid_config_and_tokenizer(folder, file, content, message):
    (folder / file).write_text(content)
    assert message in refusal(folder)
    if file == "config.json":
        with pytest.raises(CheckpointError, match=re.escape(message)):
            identify(str(folder))


def test_whole_generator_instead_of_its_clap(audioldm_folder):
    assert f"its CLAP is {audioldm_folder}:text_encoder" in refusal(audioldm_folder)


def test_default_sizes_are_those_of_vit_b_32(folder):
    """Published files omit defaults: an empty config is ViT-B/32 with projection_dim 512."""

    def edit(config):
        config.clear()
        sizes = {"image_size": 32}  # of the tiny checkpoint's preprocessor, which is checked first
        config.update({"model_type": "clip", "text_config": {}, "vision_config": sizes})

    edit_config(folder, edit)
    message = refusal(folder)  # the tiny tensors do not fit
    assert "config.json asks for 12 layers in text_model.encoder.layers, but the weights have 2" in message

    def edit_layers(config):
        config["text_config"] = {"num_hidden_layers": 2}
        config["vision_config"] = {"num_hidden_layers": 2, "image_size": 32}

    edit_config(folder, edit_layers)
    message = refusal(folder)
    assert "512" in message and "config.json" in message


def test_text_config_dict_takes_precedence(folder, clip_folder):
    """openai/clip-vit-large-patch14 keeps its true sizes in `text_config_dict`."""

    def edit(config):
        config["text_config_dict"] = dict(config["text_config"])
        config["text_config"]["num_hidden_layers"] = 1

    edit_config(folder, edit)
    assert len(load_space(str(folder)).model.text_model.encoder.layers) == 2


def test_saved_space_loads_in_transformers(tmp_path, clip_folder, audioldm_folder, caption_list):
    for name, oracle in (
        (str(clip_folder), transformers.CLIPModel),
        (f"{audioldm_folder}:text_encoder", transformers.ClapTextModelWithProjection),
    ):
        space = load_space(name)
        space.save(tmp_path / "back")
        model, info = oracle.from_pretrained(tmp_path / "back", output_loading_info=True)
        assert not any(info.values()), info
        again = load_space(str(tmp_path / "back"))
        np.testing.assert_array_equal(again.encode_text(caption_list[:3]), space.encode_text(caption_list[:3]))
        original = safetensors.numpy.load_file(
            (clip_folder if oracle is transformers.CLIPModel else audioldm_folder / "text_encoder")
            / "model.safetensors"
        )
        saved = safetensors.numpy.load_file(tmp_path / "back" / "model.safetensors")
        assert saved.keys() == original.keys()
        for key in saved:
            np.testing.assert_array_equal(saved[key], original[key], err_msg=key)
        shutil.rmtree(tmp_path / "back")


def test_whole_clap_model_gives_its_text_tower(tmp_path, audioldm_folder, caption_list):
    """laion/clap-htsat-unfused is a whole ClapModel: the same text keys, and an audio tower."""
    text = transformers.ClapTextModelWithProjection.from_pretrained(audioldm_folder / "text_encoder")
    sizes = {key: value for key, value in text.config.to_dict().items() if key != "model_type"}
    audio = dict(
        spec_size=64, patch_embeds_hidden_size=8, depths=[1, 1], num_attention_heads=[1, 2], hidden_size=16,
        window_size=4, num_mel_bins=64, patch_size=4, patch_stride=[4, 4],
    )  # fmt: skip
    config = transformers.ClapConfig(text_config=sizes, audio_config=audio, projection_dim=64)
    whole = transformers.ClapModel(config)
    whole.text_model.load_state_dict(text.text_model.state_dict())
    whole.text_projection.load_state_dict(text.text_projection.state_dict())
    whole.save_pretrained(tmp_path / "clap")
    shutil.copytree(audioldm_folder / "tokenizer", tmp_path / "clap", dirs_exist_ok=True)
    space = load_space(str(tmp_path / "clap"), only="text")
    assert "logit_scale_a" in space.ignored and any(key.startswith("audio_model.") for key in space.ignored)
    expected = load_space(f"{audioldm_folder}:text_encoder").encode_text(caption_list[:4])
    np.testing.assert_array_equal(space.encode_text(caption_list[:4]), expected)


def test_missing_tensor(folder):
    rewrite(folder, lambda tensors: tensors.pop("text_model.final_layer_norm.weight"))
    assert "text_model.final_layer_norm.weight" in refusal(folder)


def test_unknown_tensor(folder):
    rewrite(folder, lambda tensors: tensors.update({"text_model.extra.weight": torch.zeros(3)}))
    assert "text_model.extra.weight" in refusal(folder)


def test_wrong_shape(folder):
    rewrite(folder, lambda tensors: tensors.update({"visual_projection.weight": torch.zeros(64, 63)}))
    message = refusal(folder)
    assert "visual_projection.weight" in message and "(64, 63)" in message and "(64, 64)" in message


def test_transposed_square_tensor_changes_outputs(folder, clip_folder, caption_list):
    """A square matrix and its transpose have the same shape."""
    edit = lambda tensors: tensors.update(  # noqa: E731
        {"text_projection.weight": tensors["text_projection.weight"].T.contiguous()}
    )
    rewrite(folder, edit)
    got, expected = (load_space(str(f)).encode_text(caption_list[:2]) for f in (folder, clip_folder))
    assert np.abs(got - expected).max() > 0.1


def test_truncated_files(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    assert "model.safetensors" in refusal(folder)
    torch.save(load_file_from(content), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    whole = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(whole[: len(whole) // 2])
    assert "pytorch_model.bin" in refusal(folder)


def load_file_from(content: bytes) -> dict[str, torch.Tensor]:
    from safetensors.torch import load

    return load(content)


class Trap:
    def __reduce__(self):
        return (open, ("trapped", "w"))


def test_pickled_code_is_not_run(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Trap()}, protocol=2))
    assert "pytorch_model.bin" in refusal(folder)
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_missing_file_is_named(folder, name):
    (folder / name).unlink()
    assert name in refusal(folder)


def test_no_tokenizer(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert "tokenizer.json" in refusal(folder)


def test_other_model_type(folder):
    edit_config(folder, lambda config: config.update(model_type="bert"))
    assert "'bert'" in refusal(folder) and "clip" in refusal(folder)


def build_of(folder: Path):
    config = clip.config(json.loads((folder / "config.json").read_text()))
    return lambda rngs: CLIPModel(config, rngs=rngs)


def test_two_rules_for_one_tensor(clip_folder):
    build, tensors = build_of(clip_folder), safetensors.numpy.load_file(clip_folder / "model.safetensors")
    table = WeightTable(rules=(*clip.TABLE.rules, leaf("text_projection", "weight", "kernel", LINEAR)))
    with pytest.raises(CheckpointError, match=r"text_projection\.weight is matched by two rules"):
        fill(build, tensors, table, "here")


def test_two_tensors_for_one_parameter(clip_folder):
    build, tensors = build_of(clip_folder), safetensors.numpy.load_file(clip_folder / "model.safetensors")
    tensors["other_scale"] = tensors["logit_scale"]
    table = WeightTable(rules=(*clip.TABLE.rules, Rule("other_scale", "logit_scale")))
    with pytest.raises(CheckpointError, match="two tensors match parameter logit_scale"):
        fill(build, tensors, table, "here")

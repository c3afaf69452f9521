"""CLIP's towers against transformers' torch classes: submodules and the whole, with random tensors."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx

from bench.checkpoints import build_clip
from c2c_jax.spaces.models.layers import ACTIVATIONS
from c2c_jax.spaces.space import Space, load_space

TOLERANCE = dict(atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def space(clip_folder: Path) -> Space:
    return load_space(str(clip_folder))


@pytest.fixture(scope="module")
def oracle(clip_folder: Path) -> transformers.CLIPModel:
    return transformers.CLIPModel.from_pretrained(clip_folder, attn_implementation="eager").eval()


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", ["gelu", "quick_gelu", "relu"])
def test_activation(name):
    x = np.linspace(-6, 6, 1001, dtype=np.float32)
    expected = transformers.activations.ACT2FN[name](torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ACTIVATIONS[name](jnp.asarray(x)), expected, atol=1e-6, rtol=0)


def test_text_embeddings(space, oracle):
    ids = np.random.default_rng(0).integers(0, 700, (3, 9))
    with torch.no_grad():
        expected = oracle.text_model.embeddings(torch.from_numpy(ids)).numpy()
    np.testing.assert_allclose(space.model.text_model.embeddings(jnp.asarray(ids)), expected, **TOLERANCE)


def test_vision_embeddings(space, oracle):
    pixels = random(2, 3, 32, 32)
    with torch.no_grad():
        expected = oracle.vision_model.embeddings(torch.from_numpy(pixels)).numpy()
    ours = space.model.vision_model.embeddings(jnp.asarray(pixels.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(ours, expected, **TOLERANCE)


@pytest.mark.parametrize("is_causal", [True, False])
def test_attention(space, oracle, is_causal):
    hidden = random(2, 7, 64)
    mask = torch.full((7, 7), -torch.inf).triu(1)[None, None] if is_causal else None
    with torch.no_grad():
        expected, _ = oracle.text_model.encoder.layers[1].self_attn(torch.from_numpy(hidden), attention_mask=mask)
    attention, hidden = space.model.text_model.encoder.layers[1].self_attn, jnp.asarray(hidden)
    mask = jnp.tril(jnp.ones((2, 1, 7, 7), bool)) if is_causal else None
    np.testing.assert_allclose(attention(hidden, hidden, mask), expected.numpy(), **TOLERANCE)
    some = attention(hidden[:, 2:5], hidden, mask[:, :, 2:5] if is_causal else None)
    np.testing.assert_allclose(some, expected.numpy()[:, 2:5], **TOLERANCE)


@pytest.mark.parametrize("part", ["mlp", "layer_norm1", "layer_norm2"])
def test_layer_parts(space, oracle, part):
    hidden = random(2, 7, 64)
    for tower in ("text_model", "vision_model"):
        with torch.no_grad():
            expected = getattr(getattr(oracle, tower).encoder.layers[0], part)(torch.from_numpy(hidden)).numpy()
        ours = getattr(getattr(space.model, tower).encoder.layers[0], part)(jnp.asarray(hidden))
        np.testing.assert_allclose(ours, expected, **TOLERANCE)


def test_whole_text_tower(space, oracle, clip_folder, caption_list):
    texts = [*caption_list[:20], "", "🚗 Über قطة 猫", "very " * 100, "an end<|endoftext|> and more"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(clip_folder)
    tokens = tokenizer(texts, padding="max_length", truncation=True, max_length=77, return_tensors="pt")
    with torch.no_grad():
        expected = oracle.get_text_features(**tokens).pooler_output.numpy()
    np.testing.assert_allclose(space.encode_text(texts, batch_tokens=256), expected, **TOLERANCE)


def test_padded_and_packed_calls_agree(space, oracle, caption_list):
    """With padding on either side. Without a mask, only states after the end token change, which are not pooled."""
    texts = [*caption_list[:5], "", "an end<|endoftext|> and more"]
    for side in ("right", "left"):
        tokens = space.tokenizer(texts, padding=True, padding_side=side, return_tensors="pt")
        with torch.no_grad():
            expected = oracle.text_projection(oracle.text_model(**tokens).pooler_output).numpy()
        ids_BL, mask_BL = (jnp.asarray(tokens[name].numpy()) for name in ("input_ids", "attention_mask"))
        found = space.model.encode_text(ids_BL, mask_BL)
        assert found.shape == (7, space.dim)
        np.testing.assert_allclose(found, expected, **TOLERANCE)
        np.testing.assert_array_equal(space.model.encode_text(ids_BL, mask_BL == 1), found)
        if side == "right":
            np.testing.assert_allclose(space.model.encode_text(ids_BL), expected, **TOLERANCE)
            np.testing.assert_allclose(space.encode_text(texts), expected, **TOLERANCE)


def test_text_states_at_any_positions(space, oracle):
    """One and several positions a row, with other position ids."""
    ids = np.random.default_rng(0).integers(0, 700, (3, 9))
    positions = np.random.default_rng(1).integers(0, 77, (3, 9))
    with torch.no_grad():
        states = oracle.text_model(torch.from_numpy(ids), position_ids=torch.from_numpy(positions)).last_hidden_state
        expected = oracle.text_projection(states).numpy()
    arguments = dict(position_ids_BL=jnp.asarray(positions))
    encode = space.model.encode_text
    some = encode(jnp.asarray(ids), pool_positions=jnp.array([[8, 3], [0, 1], [5, 5]]), **arguments)
    np.testing.assert_allclose(some, expected[[[0], [1], [2]], [[8, 3], [0, 1], [5, 5]]], **TOLERANCE)
    one = encode(jnp.asarray(ids), pool_positions=jnp.array([8, 0, 5]), **arguments)
    np.testing.assert_allclose(one, expected[[0, 1, 2], [8, 0, 5]], **TOLERANCE)


def test_eos_token_id_2_pools_at_the_largest_id(tmp_path, caption_list):
    """As published by OpenAI: config.json has eos_token_id 2, but the end token is the largest id."""
    build_clip(tmp_path / "clip", caption_list)
    config_file = tmp_path / "clip" / "config.json"
    config_file.write_text(config_file.read_text().replace('"eos_token_id": 999', '"eos_token_id": 2'))
    assert '"eos_token_id": 2' in config_file.read_text()
    oracle = transformers.CLIPModel.from_pretrained(tmp_path / "clip").eval()
    space = load_space(str(tmp_path / "clip"))
    tokens = space.tokenizer(caption_list[:5], padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = oracle.get_text_features(**tokens).pooler_output.numpy()
    np.testing.assert_allclose(space.encode_text(caption_list[:5]), expected, **TOLERANCE)
    plain = space.model.encode_text(*(jnp.asarray(tokens[name].numpy()) for name in ("input_ids", "attention_mask")))
    np.testing.assert_allclose(plain, expected, **TOLERANCE)
    assert np.abs(expected).max() > 0.5


def test_whole_vision_tower(space, oracle):
    pixels = random(3, 3, 32, 32)
    with torch.no_grad():
        expected = oracle.get_image_features(torch.from_numpy(pixels)).pooler_output.numpy()
    ours = space.model.encode_image(jnp.asarray(pixels.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(ours, expected, **TOLERANCE)


@pytest.mark.slow
def test_published_size(tmp_path, caption_list):
    """ViT-B/32 as published, whole, on unit vectors."""
    build_clip(tmp_path / "clip", caption_list, "published")
    space = load_space(str(tmp_path / "clip"))
    oracle = transformers.CLIPModel.from_pretrained(tmp_path / "clip").eval()
    texts = [*caption_list[:6], "", "猫 🚗"]
    tokens = space.tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt")
    pixels = random(2, 3, 224, 224)
    with torch.no_grad():
        text = torch.nn.functional.normalize(oracle.get_text_features(**tokens).pooler_output).numpy()
        image = torch.nn.functional.normalize(oracle.get_image_features(torch.from_numpy(pixels)).pooler_output).numpy()
    ours = space.encode_text(texts)
    assert ours.shape == (8, 512)
    np.testing.assert_allclose(ours / np.linalg.norm(ours, axis=1, keepdims=True), text, **TOLERANCE)
    graphdef, weights = nnx.split(space.model)  # as arguments: constants would compile slowly
    encode = jax.jit(lambda weights, pixels: nnx.merge(graphdef, weights).encode_image(pixels))
    ours = np.asarray(encode(weights, jnp.asarray(pixels.transpose(0, 2, 3, 1))))
    np.testing.assert_allclose(ours / np.linalg.norm(ours, axis=1, keepdims=True), image, **TOLERANCE)

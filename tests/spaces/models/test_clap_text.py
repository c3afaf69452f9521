"""CLAP's text tower against transformers' torch class: submodules and the whole, with random tensors."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from bench.checkpoints import build_audioldm
from c2c_jax.spaces.space import Space, load_space

TOLERANCE = dict(atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def space(audioldm_folder: Path) -> Space:
    return load_space(f"{audioldm_folder}:text_encoder")


@pytest.fixture(scope="module")
def oracle(audioldm_folder: Path) -> transformers.ClapTextModelWithProjection:
    return transformers.ClapTextModelWithProjection.from_pretrained(audioldm_folder / "text_encoder").eval()


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def padded_ids(lengths: list[int], length: int) -> np.ndarray:
    ids = np.random.default_rng(0).integers(4, 500, (len(lengths), length))
    for row, tokens in enumerate(lengths):
        ids[row, tokens:] = 1
    return ids


def test_embeddings_count_positions_over_unpadded_tokens(space, oracle):
    ids = padded_ids([9, 4, 7], 9)
    with torch.no_grad():
        expected = oracle.text_model.embeddings(torch.from_numpy(ids)).numpy()
    np.testing.assert_allclose(space.model.text_model.embeddings(jnp.asarray(ids)), expected, **TOLERANCE)


def test_layer_with_mask(space, oracle):
    hidden = random(3, 9, 64)
    keep = padded_ids([9, 4, 7], 9) != 1
    mask = torch.where(torch.from_numpy(keep), 0.0, -torch.inf)[:, None, None, :]
    with torch.no_grad():
        theirs = oracle.text_model.encoder.layer[1]
        expected = theirs(torch.from_numpy(hidden), attention_mask=mask)
        expected = (expected[0] if isinstance(expected, tuple) else expected).numpy()
    layer, hidden = space.model.text_model.encoder.layer[1], jnp.asarray(hidden)
    mask_B1LL = jnp.broadcast_to(jnp.asarray(keep)[:, None, None, :], (3, 1, 9, 9))
    np.testing.assert_allclose(layer(hidden, mask_B1LL), expected, **TOLERANCE)
    first = layer(hidden, mask_B1LL[:, :, :1], jnp.zeros((3, 1), int))
    np.testing.assert_allclose(first, expected[:, :1], **TOLERANCE)


def test_intermediate_pooler_and_projection(space, oracle):
    hidden = random(3, 9, 64)
    with torch.no_grad():
        x = torch.from_numpy(hidden)
        intermediate = oracle.text_model.encoder.layer[0].intermediate(x).numpy()
        pooled = oracle.text_model.pooler(x).numpy()
        projected = oracle.text_projection(x[:, 0]).numpy()
    ours = space.model
    x = jnp.asarray(hidden)
    np.testing.assert_allclose(ours.text_model.encoder.layer[0].intermediate(x), intermediate, **TOLERANCE)
    np.testing.assert_allclose(ours.text_model.pooler(x[:, :1])[:, 0], pooled, **TOLERANCE)
    np.testing.assert_allclose(ours.text_projection(x[:, :1])[:, 0], projected, **TOLERANCE)


def test_padded_and_packed_calls_agree(space, oracle, caption_list):
    """With padding on either side."""
    texts = [*caption_list[:5], "", "a<pad>gap"]
    for side in ("right", "left"):
        tokens = space.tokenizer(texts, padding=True, padding_side=side, return_tensors="pt")
        with torch.no_grad():
            expected = oracle(**tokens).text_embeds.numpy()
        ids_BL, mask_BL = (jnp.asarray(tokens[name].numpy()) for name in ("input_ids", "attention_mask"))
        found = space.model.encode_text(ids_BL, mask_BL)
        assert found.shape == (7, space.dim)
        np.testing.assert_allclose(found, expected, **TOLERANCE)
        if side == "right":
            np.testing.assert_allclose(space.encode_text(texts), found, **TOLERANCE)
    alone = jnp.asarray(space.tokenizer(texts[:1])["input_ids"])
    np.testing.assert_allclose(space.model.encode_text(alone), space.encode_text(texts[:1]), **TOLERANCE)


def test_whole_tower(space, oracle, audioldm_folder, caption_list):
    texts = [*caption_list[:20], "", "🚗 Über قطة 猫", "very " * 600, "a<pad>gap"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(audioldm_folder / "tokenizer")
    tokens = tokenizer(texts, padding="max_length", truncation=True, max_length=512, return_tensors="pt")
    with torch.no_grad():
        expected = oracle(**tokens).text_embeds.numpy()
    np.testing.assert_allclose(space.encode_text(texts, batch_tokens=256), expected, **TOLERANCE)


@pytest.mark.slow
def test_published_size(tmp_path, caption_list):
    """RoBERTa-base with CLAP's projection as published, whole, on unit vectors."""
    build_audioldm(tmp_path / "audioldm", caption_list, "published")
    space = load_space(f"{tmp_path / 'audioldm'}:text_encoder")
    oracle = transformers.ClapTextModelWithProjection.from_pretrained(tmp_path / "audioldm" / "text_encoder").eval()
    texts = [*caption_list[:6], "", "猫 🚗"]
    tokens = space.tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt")
    with torch.no_grad():
        expected = torch.nn.functional.normalize(oracle(**tokens).text_embeds).numpy()
    ours = space.encode_text(texts)
    assert ours.shape == (8, 512)
    np.testing.assert_allclose(ours / np.linalg.norm(ours, axis=1, keepdims=True), expected, **TOLERANCE)

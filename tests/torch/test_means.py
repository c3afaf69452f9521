"""Shifts by the modality means: Flax and torch against numpy, through a bundle on disk."""

import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import torch

from c2c_jax.errors import BundleError
from c2c_jax.torch import Translator
from c2c_jax.torch.translator import ModalityMeans as TwinMeans
from c2c_jax.translator.bundle import load_bundle, save_bundle
from c2c_jax.translator.centring import ModalityMeans, translate_image
from c2c_jax.translator.kinds import KINDS
from tests.torch.test_translator import random_bundle, spec

S, E = 24, 16


def means(*names: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    drawn = {name: rng.normal(size=S if "source" in name else E).astype(np.float32) / 5 for name in ALL}
    return {name: drawn[name] for name in names}


ALL = ("source_text", "source_image", "target_text", "target_audio")


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("known", [(), ALL[:2], ALL[2:], ALL], ids=["none", "source", "target", "both"])
@pytest.mark.parametrize("input_norm", ["none", "unit"])
def test_by_hand_on_a_linear_translator(tmp_path, input_norm, known):
    statistics = means(*known)
    bundle = random_bundle(spec("ridge", S, E, input_norm=input_norm), means=ModalityMeans(**statistics))
    save_bundle(tmp_path / "bundle", bundle)
    source = 3 * np.random.default_rng(0).normal(size=(5, S)).astype(np.float32)
    weights = safetensors.numpy.load_file(tmp_path / "bundle" / "model.safetensors")

    x = source.astype(np.float64)
    if input_norm == "unit" and "source_text" in known:
        x = unit(x)
    if "source_text" in known:
        x = x - statistics["source_image"] + statistics["source_text"]
    if input_norm == "unit":
        x = unit(x) * np.sqrt(S)
    y = x @ weights["linear.weight"].T.astype(np.float64) + weights["linear.bias"]
    if "target_text" in known:
        y = unit(y) - statistics["target_text"] + statistics["target_audio"]

    loaded = load_bundle(tmp_path / "bundle")
    twin = Translator.from_pretrained(tmp_path / "bundle")
    with torch.no_grad():
        np.testing.assert_allclose(twin.from_image(torch.from_numpy(source)), y, atol=1e-5, rtol=0)
        plain = twin(torch.from_numpy(source)).numpy()
    np.testing.assert_allclose(
        translate_image(loaded.translator, loaded.means, jnp.asarray(source)), y, atol=1e-5, rtol=0
    )
    np.testing.assert_allclose(loaded.translator(jnp.asarray(source)), plain, atol=1e-5, rtol=0)
    assert (np.abs(plain - y).max() > 0.05) == bool(known)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_agrees(tmp_path, kind):
    input_norm = "unit" if len(kind) % 2 else "none"
    fields = {"depth": 1} if kind == "transformer" else {}
    bundle = random_bundle(spec(kind, S, E, input_norm=input_norm, **fields), means=ModalityMeans(**means(*ALL)))
    save_bundle(tmp_path / "bundle", bundle)
    source = np.random.default_rng(0).normal(size=(9, S)).astype(np.float32)
    loaded, twin = load_bundle(tmp_path / "bundle"), Translator.from_pretrained(tmp_path / "bundle")
    with torch.no_grad():
        expected = twin.from_image(torch.from_numpy(source)).numpy()
    found = translate_image(loaded.translator, loaded.means, jnp.asarray(source))
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def test_bundle_stores_means(tmp_path):
    statistics = means(*ALL)
    save_bundle(tmp_path / "bundle", random_bundle(spec("linear", S, E), means=ModalityMeans(**statistics)))
    tensors = safetensors.numpy.load_file(tmp_path / "bundle" / "model.safetensors")
    assert {name for name in tensors if name.startswith("gap.")} == {f"gap.{name}" for name in ALL}
    for name, mean in statistics.items():
        np.testing.assert_array_equal(tensors[f"gap.{name}"], mean)
        np.testing.assert_array_equal(getattr(load_bundle(tmp_path / "bundle").means, name), mean)


@pytest.mark.parametrize("pair", [ALL[:2], ALL[2:]])
def test_other_means_need_caption_means(pair):
    text, other = pair
    with pytest.raises(ValueError, match=f"{other} needs the mean {text}"):
        ModalityMeans(**means(other))
    width = {"source_text": S, "target_text": E}[text]
    with pytest.raises(ValueError, match=f"{other} needs the mean {text}"):
        TwinMeans(S, E, **{other: torch.zeros(width)})


@pytest.mark.parametrize("known", [ALL[::2], ALL[:1], ALL[:3]], ids=["both", "source", "and an image's"])
def test_caption_means_have_no_effect_alone(tmp_path, known):
    """A captions' mean without its counterpart is stored but not used."""
    statistics = means(*known)
    bundle = random_bundle(spec("mlp", S, E, input_norm="unit"), means=ModalityMeans(**statistics))
    save_bundle(tmp_path / "bundle", bundle)
    loaded, twin = load_bundle(tmp_path / "bundle"), Translator.from_pretrained(tmp_path / "bundle")
    assert loaded.means.known == list(known)
    assert loaded.means.used == [name for name in ALL[:2] if len(known) == 3] and twin.gap.corrects == (len(known) == 3)
    source = np.random.default_rng(0).normal(size=(5, S)).astype(np.float32)
    x = source
    if len(known) == 3:
        x = unit(source) - statistics["source_image"] + statistics["source_text"]
    found = np.asarray(translate_image(loaded.translator, loaded.means, jnp.asarray(source)))
    np.testing.assert_allclose(found, loaded.translator(jnp.asarray(x)), atol=1e-6, rtol=0)
    with torch.no_grad():
        np.testing.assert_allclose(found, twin.from_image(torch.from_numpy(source)), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gap.source_text": None}, "source_image needs the mean source_text"),
        ({"gap.target_audio": np.zeros(E + 1, np.float32)}, f"expected finite float32 of shape ({E},)"),
        ({"gap.target_audio": np.full(E, np.nan, np.float32)}, "expected finite float32"),
        ({"gap.source_image": np.zeros(S, np.float16)}, "source_image is float16"),
        ({"gap.middle": np.zeros(S, np.float32)}, "unknown mean 'middle'"),
    ],
)
def test_invalid_means(tmp_path, change: dict[str, Any], message):
    save_bundle(tmp_path / "bundle", random_bundle(spec("linear", S, E), means=ModalityMeans(**means(*ALL))))
    file = tmp_path / "bundle" / "model.safetensors"
    tensors = {**safetensors.numpy.load_file(file), **change}
    safetensors.numpy.save_file({key: value for key, value in tensors.items() if value is not None}, file)
    with pytest.raises(BundleError, match=re.escape(message)):
        load_bundle(tmp_path / "bundle")
    if "float" not in message:  # the torch translator checks names, pairs and shapes
        with pytest.raises(ValueError, match="mean middle|unknown means|has shape|needs the mean"):
            Translator.from_pretrained(tmp_path / "bundle")

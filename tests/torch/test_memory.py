"""The caption memory in Flax, torch and ONNX against numpy, through a bundle on disk, and invalid memories."""

import dataclasses
import json
import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
import safetensors.numpy
import torch

from c2c_jax.errors import BundleError, ExportError
from c2c_jax.evaluation.methods import as_method
from c2c_jax.publishing import onnx
from c2c_jax.publishing.card import model_card
from c2c_jax.torch import Translator
from c2c_jax.torch import translator as translator_module
from c2c_jax.translator.bundle import load_bundle, save_bundle, write_modality_means
from c2c_jax.translator.centring import ModalityMeans, shift_to_audio, shift_to_captions
from c2c_jax.translator.inference import means_in_use, translate
from c2c_jax.translator.memory import Memory
from tests.torch.test_means import ALL, E, S, means
from tests.torch.test_translator import random_bundle, spec
from tests.translator.test_memory import by_hand, captions, unit

M, WEIGHT, TEMPERATURE = 40, 0.6, 0.1
SOURCE = 3 * np.random.default_rng(0).normal(size=(5, S)).astype(np.float32)


@pytest.fixture(params=["none", "unit"])
def bundle(request):
    memory = Memory(source=captions(M, S), weight=WEIGHT, temperature=TEMPERATURE)
    return random_bundle(
        spec("residual", S, E, input_norm=request.param), means=ModalityMeans(**means(*ALL)), memory=memory
    )


@pytest.fixture
def folder(bundle, tmp_path):
    save_bundle(tmp_path / "bundle", bundle)
    return tmp_path / "bundle"


def expected(bundle) -> np.ndarray:
    """Unit target vectors: the memory comes behind the source's statistics and before the translator."""
    shifted = np.asarray(shift_to_captions(bundle.means, bundle.spec.input_norm, jnp.asarray(SOURCE)))
    moved = by_hand(captions(M, S), WEIGHT, TEMPERATURE, shifted).astype(np.float32)
    return unit(np.asarray(shift_to_audio(bundle.means, bundle.translator(jnp.asarray(moved)))))


@pytest.mark.parametrize(
    ("bundle", "block"), [("none", translator_module.CAPTIONS_AT_ONCE), ("unit", 7)], indirect=["bundle"]
)
def test_all_implementations_agree(bundle, folder, block, monkeypatch):
    """In one block and in six. Captions' vectors do not use the memory."""
    monkeypatch.setattr(translator_module, "CAPTIONS_AT_ONCE", block)
    loaded, twin, reference = load_bundle(folder), Translator.from_pretrained(folder), expected(bundle)
    method = as_method("translator", loaded.translator, loaded.means, loaded.memory)
    np.testing.assert_allclose(translate(loaded, SOURCE), reference, atol=1e-5, rtol=0)
    np.testing.assert_allclose(method.of_images(SOURCE), reference, atol=1e-5, rtol=0)
    with torch.no_grad():
        np.testing.assert_allclose(
            unit(twin.from_image(torch.from_numpy(SOURCE)).numpy()), reference, atol=1e-5, rtol=0
        )
        plain = twin(torch.from_numpy(SOURCE)).numpy()
    np.testing.assert_allclose(loaded.translator(jnp.asarray(SOURCE)), plain, atol=1e-5, rtol=0)
    np.testing.assert_allclose(method.of_texts(SOURCE), unit(plain), atol=1e-5, rtol=0)
    assert np.abs(reference - translate(dataclasses.replace(loaded, memory=None), SOURCE)).max() > 0.05


def test_weight_0_changes_nothing(bundle, tmp_path):
    """With weight 0, captions are only references: translations equal those without a memory bit for bit."""
    references = dataclasses.replace(bundle, memory=dataclasses.replace(bundle.memory, weight=0.0))
    save_bundle(tmp_path / "bundle", references)
    loaded, twin = load_bundle(tmp_path / "bundle"), Translator.from_pretrained(tmp_path / "bundle")
    assert loaded.memory.weight == twin.memory.weight == 0
    assert not any("memory" in line for line in means_in_use(loaded))
    np.testing.assert_array_equal(loaded.memory.source, captions(M, S))
    without = dataclasses.replace(loaded, memory=None)
    np.testing.assert_array_equal(translate(loaded, SOURCE), translate(without, SOURCE))
    with torch.no_grad():
        found = twin.from_image(torch.from_numpy(SOURCE))
        twin.memory = None
        np.testing.assert_array_equal(found, twin.from_image(torch.from_numpy(SOURCE)))
    np.testing.assert_allclose(unit(found.numpy()), translate(loaded, SOURCE), atol=1e-5, rtol=0)


@pytest.mark.parametrize("bundle", ["unit"], indirect=True)
def test_onnx(bundle, folder, monkeypatch):
    """In six blocks. The graph for captions does not contain the memory."""
    monkeypatch.setattr(translator_module, "CAPTIONS_AT_ONCE", 7)
    own, of_images = onnx.write_onnx(folder)
    session = onnxruntime.InferenceSession(of_images, providers=["CPUExecutionProvider"])
    (found,) = session.run(["target"], {"source": SOURCE})
    np.testing.assert_allclose(unit(found), expected(bundle), atol=1e-5, rtol=0)
    assert captions(M, S).tobytes() not in own.read_bytes()


def test_bundle_stores_the_memory(bundle, folder, tmp_path):
    """Bit for bit, also when the means change. A bundle without a memory has no trace of it."""
    config = json.loads((folder / "config.json").read_text())
    assert config["format"] == 2 and config["memory"] == {"weight": WEIGHT, "temperature": TEMPERATURE}
    write_modality_means(folder, ModalityMeans(), tmp_path / "other")
    for bundle_path in (folder, tmp_path / "other"):
        stored = safetensors.numpy.load_file(bundle_path / "model.safetensors")["memory.source"]
        assert stored.dtype == np.float16
        memory = load_bundle(bundle_path).memory
        for found in (stored, memory.source):
            np.testing.assert_array_equal(found, captions(M, S))
        assert memory.record == {"captions": M, "share": WEIGHT, "temperature": TEMPERATURE}
        assert means_in_use(load_bundle(bundle_path))[-1] == f"caption memory of {M} captions, weight {WEIGHT} in use"
    save_bundle(tmp_path / "without", dataclasses.replace(bundle, memory=None))
    assert "memory" not in (tmp_path / "without/config.json").read_text()
    assert load_bundle(tmp_path / "without").memory is None
    assert "memory.source" not in safetensors.numpy.load_file(tmp_path / "without/model.safetensors")


def test_card_describes_the_memory(bundle):
    memory = Memory(source=captions(2000, 512), weight=0.5, temperature=0.01)
    card = model_card(dataclasses.replace(bundle, memory=memory, means=ModalityMeans()), "x")
    assert "source vectors of 2,000 of these captions (2.0 MiB; no text)" in card
    assert "with weight 0.5, since" in card and "does not change an image's vector" not in card
    card = model_card(
        dataclasses.replace(bundle, memory=dataclasses.replace(memory, weight=0.0), means=ModalityMeans()), "x"
    )
    assert "2,000 of these captions (2.0 MiB; no text). They are reference queries for `c2c search`" in card
    assert "with weight 0" not in card and "does not change an image's vector" in card
    assert "memory" not in model_card(dataclasses.replace(bundle, memory=None), "x").lower()


@pytest.mark.parametrize(
    ("settings", "tensor", "message"),
    [
        ({"weight": 0.5, "temperature": 0.01}, None, "the caption memory lacks its captions"),
        (None, captions(M, S), "the caption memory lacks its settings"),
        ({"weight": -0.1, "temperature": 0.01}, captions(M, S), "Expected `float` >= 0.0 - at `$.memory.weight`"),
        ({"weight": 1.5, "temperature": 0.01}, captions(M, S), "Expected `float` <= 1.0 - at `$.memory.weight`"),
        ({"weight": 0.5, "temperature": -1.0}, captions(M, S), "Expected `float` >= 1e-06 - at `$.memory.temperature`"),
        ({"weight": 0.5}, captions(M, S), "missing required field `temperature`"),
        ({"weight": 0.5, "temperature": 0.01}, captions(M, S + 1), f"unit vectors of shape (M, {S})"),
        ({"weight": 0.5, "temperature": 0.01}, captions(M, S)[:0], f"unit vectors of shape (M, {S})"),
        ({"weight": 0.5, "temperature": 0.01}, captions(M, S).astype(np.float32), "caption memory is float32"),
        ({"weight": 0.5, "temperature": 0.01}, 2 * captions(M, S), "expected float16 unit vectors"),
        ({"weight": 0.5, "temperature": 0.01}, captions(M, S) * np.float16(np.nan), "expected float16 unit vectors"),
    ],
)
@pytest.mark.parametrize("bundle", ["unit"], indirect=True)
def test_invalid_memories(folder, settings: Any, tensor: Any, message: str):
    config = json.loads((folder / "config.json").read_text()) | {"memory": settings}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    tensors = safetensors.numpy.load_file(folder / "model.safetensors") | {"memory.source": tensor}
    tensors = {name: x for name, x in tensors.items() if x is not None}
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    with pytest.raises(BundleError, match=re.escape(message)):
        load_bundle(folder)
    if "float16 unit" not in message:  # the torch translator does not check lengths
        with pytest.raises(ValueError, match="has no readable translator"):
            Translator.from_pretrained(folder)


@pytest.mark.parametrize("bundle", ["unit"], indirect=True)
def test_memory_too_large_for_onnx(folder, monkeypatch):
    monkeypatch.setattr(onnx, "GRAPH_BYTES", 1000)
    with pytest.raises(
        ExportError, match=r"export it without --onnx, or train one with a smaller config\.memory\.size"
    ):
        onnx.write_onnx(folder)
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}

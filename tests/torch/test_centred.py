"""Translators of centred vectors: Flax, torch and ONNX against numpy, through a bundle on disk."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
import safetensors.numpy
import torch

from c2c_jax.errors import ConfigError
from c2c_jax.publishing import onnx
from c2c_jax.torch import Translator
from c2c_jax.torch import translator as torch_translator
from c2c_jax.translator.bundle import Bundle, load_bundle, save_bundle
from c2c_jax.translator.centring import ModalityMeans, centred, translate_image, translate_text, uncentred
from c2c_jax.translator.inference import means_in_use, require_output_mean, translate
from c2c_jax.translator.kinds import KINDS
from c2c_jax.translator.memory import Memory
from tests.fixtures.programs import ROOT
from tests.torch.test_means import ALL, E, S, means, unit
from tests.torch.test_translator import random_bundle, spec
from tests.translator.test_memory import by_hand as remembered
from tests.translator.test_memory import captions

M, TEMPERATURE = 40, 0.1
TEXTS = ("source_text", "target_text")
SOURCE = 3 * np.random.default_rng(0).normal(size=(5, S)).astype(np.float32)


def short(*names: str) -> dict[str, np.ndarray]:
    """Means with lengths of .5 to .8, which unit vectors can have."""
    lengths = dict(zip(ALL, (0.7, 0.8, 0.5, 0.6), strict=True))
    return {name: lengths[name] * mean / np.linalg.norm(mean) for name, mean in means(*names).items()}


def centre(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    return unit(unit(x) - mean)


def uncentre(u: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """The point where the ray from the mean along u meets the unit sphere."""
    mean, u = mean.astype(np.float64), unit(u)
    roots = [np.roots([1, 2 * output @ mean, mean @ mean - 1]).max() for output in u]
    return mean + np.array(roots)[:, None] * u


def written(folder: Path, kind: str = "ridge", known: tuple[str, ...] = ALL, weight: float | None = None) -> Bundle:
    fields = {"depth": 1} if kind == "transformer" else {}
    memory = None if weight is None else Memory(source=captions(M, S), weight=weight, temperature=TEMPERATURE)
    bundle = random_bundle(
        spec(kind, S, E, input_norm="centred", **fields), means=ModalityMeans(**short(*known)), memory=memory
    )  # fmt: skip
    save_bundle(folder, bundle)
    return load_bundle(folder)


def linear(folder: Path, x: np.ndarray) -> np.ndarray:
    weights = safetensors.numpy.load_file(folder / "model.safetensors")
    return np.sqrt(S) * unit(x) @ weights["linear.weight"].T.astype(np.float64) + weights["linear.bias"]


def of_images(folder: Path, known: tuple[str, ...], weight: float | None, output_mean: str) -> np.ndarray:
    """Translations of SOURCE by numpy with a ridge translator."""
    statistics, x = short(*known), SOURCE.astype(np.float64)
    if "source_image" in known:
        x = centre(x, statistics["source_image"])
    else:
        along = unit(statistics["source_text"].astype(np.float64))
        x = unit(unit(x) - (unit(x) @ along)[:, None] * along)
    if weight:
        x = remembered(captions(M, S), weight, TEMPERATURE, x)
    return uncentre(linear(folder, x), statistics[f"target_{output_mean}"])


@pytest.mark.parametrize("weight", [None, 0.0, 0.6])
@pytest.mark.parametrize("known", [TEXTS, ALL[:3], ALL], ids=["texts", "a mean of images", "all"])
def test_images_by_hand(tmp_path, known, weight):
    """With a memory, without one, and with weight 0; un-centred with the mean of captions and of sounds."""
    bundle, twin = (
        written(tmp_path / "bundle", known=known, weight=weight),
        Translator.from_pretrained(tmp_path / "bundle"),
    )
    for output_mean in ("text", "audio") if "target_audio" in known else ("text",):
        expected = of_images(tmp_path / "bundle", known, weight, output_mean)
        np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-12)
        found = translate_image(bundle.translator, bundle.means, jnp.asarray(SOURCE), bundle.memory, output_mean)
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
        np.testing.assert_allclose(translate(bundle, SOURCE, output_mean), expected, atol=1e-5, rtol=0)
        with torch.no_grad():
            np.testing.assert_allclose(
                twin.from_image(torch.from_numpy(SOURCE), output_mean), expected, atol=1e-5, rtol=0
            )
    assert np.abs(expected - of_images(tmp_path / "bundle", TEXTS, None, "text")).max() > 0.05 or known == TEXTS


@pytest.mark.parametrize("weight", [None, 0.6])
def test_texts_by_hand(tmp_path, weight):
    """Captions only use captions' means."""
    bundle, twin = written(tmp_path / "bundle", weight=weight), Translator.from_pretrained(tmp_path / "bundle")
    x = centre(SOURCE.astype(np.float64), short(*ALL)["source_text"])
    expected = uncentre(linear(tmp_path / "bundle", x), short(*ALL)["target_text"])
    found = translate_text(bundle.translator, bundle.means, jnp.asarray(SOURCE))
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
    with torch.no_grad():
        np.testing.assert_allclose(twin(torch.from_numpy(SOURCE)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("length", [0.0, 0.1, 0.7, 0.99])
def test_uncentring_inverts_centring(length):
    """In Flax and torch, for means of several lengths: to 1e-6, and to 1e-5 if the mean is almost 1 long."""
    rng = np.random.default_rng(1)
    mean = (length * unit(rng.normal(size=S))).astype(np.float32)
    x = unit(rng.normal(size=(100, S))).astype(np.float32)
    atol = 1e-6 if length < 0.9 else 1e-5
    np.testing.assert_allclose(uncentred(centred(jnp.asarray(5 * x), mean), mean), x, atol=atol, rtol=0)
    inputs = torch.from_numpy(5 * x), torch.from_numpy(mean)
    found = torch_translator.uncentred(torch_translator.centred(*inputs), inputs[1])
    np.testing.assert_allclose(found, x, atol=atol, rtol=0)
    u = unit(rng.normal(size=(100, S))).astype(np.float32)
    np.testing.assert_allclose(centred(uncentred(jnp.asarray(3 * u), mean), mean), u, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_agrees(tmp_path, kind):
    bundle, twin = written(tmp_path / "bundle", kind, weight=0.4), Translator.from_pretrained(tmp_path / "bundle")
    source = torch.from_numpy(SOURCE)
    with torch.no_grad():
        texts, images = (
            twin(source).numpy(),
            [twin.from_image(source, output_mean).numpy() for output_mean in ("text", "audio")],
        )
    assert np.abs(texts - images[0]).max() > 0.01 and np.abs(images[0] - images[1]).max() > 0.01
    found = translate_text(bundle.translator, bundle.means, jnp.asarray(SOURCE))
    np.testing.assert_allclose(found, texts, atol=1e-5, rtol=0)
    for output_mean, expected in zip(("text", "audio"), images, strict=True):
        found = translate_image(bundle.translator, bundle.means, jnp.asarray(SOURCE), bundle.memory, output_mean)
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("known", [TEXTS, ALL], ids=["texts", "all"])
def test_onnx(tmp_path, known):
    """There is always a graph for images, with a second output if the mean of sounds is known."""
    written(tmp_path, "residual", known, weight=0.5)
    twin, files = Translator.from_pretrained(tmp_path), onnx.write_onnx(tmp_path)
    assert [file.name for file in files] == ["model.onnx", "model_from_image.onnx"]
    texts, images = (onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]) for file in files)
    output_mean = ["text", "audio"][: 1 + (known == ALL)]
    assert [output.name for output in texts.get_outputs()] == ["target"]
    assert [output.name for output in images.get_outputs()] == ["target", "target_audio"][: len(output_mean)]
    for rows in (1, 5):
        source = torch.from_numpy(SOURCE[:rows])
        with torch.no_grad():
            expected = [twin(source), *(twin.from_image(source, output) for output in output_mean)]
        found = [*texts.run(None, {"source": SOURCE[:rows]}), *images.run(None, {"source": SOURCE[:rows]})]
        for output, reference in zip(found, expected, strict=True):
            np.testing.assert_allclose(output, reference, atol=1e-5, rtol=0)


def test_values_without_jax(tmp_path):
    bundle = written(tmp_path / "bundle", "residual")
    np.save(tmp_path / "source.npy", SOURCE)
    code = (
        "import sys\nsys.modules['jax'] = sys.modules['flax'] = None\n"
        "import numpy, torch\nfrom c2c_jax.torch import Translator\n"
        "translator = Translator.from_pretrained('bundle')\n"
        "with torch.no_grad(): found = translator.from_image(torch.from_numpy(numpy.load('source.npy')), 'audio')\n"
        "numpy.save('found.npy', found.numpy())"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), translate(bundle, SOURCE, "audio"), atol=1e-5, rtol=0)


@torch.no_grad()
def test_torch_in_float64(tmp_path):
    written(tmp_path / "bundle", "residual", weight=0.5)
    twin = Translator.from_pretrained(tmp_path / "bundle")
    single = twin.from_image(torch.from_numpy(SOURCE), "audio")
    double = twin.double().from_image(torch.from_numpy(SOURCE).double(), "audio")
    assert double.dtype == torch.float64
    np.testing.assert_allclose(single, double, atol=1e-5, rtol=0)


def test_missing_means(tmp_path):
    bundle, twin = written(tmp_path / "bundle", known=TEXTS), Translator.from_pretrained(tmp_path / "bundle")
    for output_mean in ("audio", "image", ""):
        with pytest.raises(ValueError, match=f"the translator has no mean 'target_{output_mean}'"):
            twin.from_image(torch.from_numpy(SOURCE), output_mean)
    with pytest.raises(ValueError, match="the mean target_audio is unknown"):
        translate_image(bundle.translator, bundle.means, jnp.asarray(SOURCE), output_mean="audio")
    with pytest.raises(ConfigError, match=r"stores no mean of sounds .* c2c calibrate --sounds"):
        require_output_mean(bundle, "audio")
    with pytest.raises(ConfigError, match="pass text or audio"):
        require_output_mean(bundle, "images")
    require_output_mean(bundle, "text")
    whole = dataclasses.replace(bundle, means=ModalityMeans(**short(*ALL)))
    require_output_mean(whole, "audio")
    with pytest.raises(ConfigError, match="is for translators of centred vectors"):
        require_output_mean(random_bundle(spec("ridge", S, E), means=whole.means), "audio")


def test_means_in_use(tmp_path):
    memory = Memory(source=captions(M, S), weight=0.5, temperature=TEMPERATURE)
    bundle = written(tmp_path / "bundle", known=TEXTS)
    (line,) = means_in_use(bundle)
    assert "stores no mean of images" in line and "c2c calibrate RUN --images" in line
    whole = dataclasses.replace(bundle, means=ModalityMeans(**short(*ALL)), memory=memory)
    assert means_in_use(whole, "audio") == [
        "centring images with the mean stored in the translator",
        "un-centring results with the mean of sounds stored in the translator",
        f"caption memory of {M} captions, weight 0.5 in use",
    ]
    references = dataclasses.replace(memory, weight=0.0)
    assert means_in_use(dataclasses.replace(whole, memory=references)) == [
        "centring images with the mean stored in the translator"
    ]

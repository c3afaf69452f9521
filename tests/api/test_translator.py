"""`load` and `Translator`, compared with the torch module, which is an implementation of its own."""

import logging
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from PIL import Image

import c2c_jax
from c2c_jax.errors import BundleError, ConfigError, ExportError, ImageError, VectorError
from c2c_jax.io.resolve import bundle_folder
from c2c_jax.torch import Translator as TorchTranslator
from tests.fixtures.hub import TOKEN, stand_in

NAME = "miniworld/translator"


@pytest.fixture(scope="module")
def translator() -> c2c_jax.Translator:
    return c2c_jax.load(NAME)


@pytest.fixture(scope="module")
def twin() -> TorchTranslator:
    return TorchTranslator.from_pretrained(bundle_folder(Path(NAME)))


@pytest.fixture
def vectors_BS() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(70, 64)).astype(np.float32)


def unit(x: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(x, dim=-1).numpy()


def test_images_and_texts_are_translated_as_in_torch(translator, twin, vectors_BS):
    with torch.no_grad():
        images, texts = twin.from_image(torch.tensor(vectors_BS)), twin(torch.tensor(vectors_BS))
    np.testing.assert_allclose(translator.translate(vectors_BS), unit(images), atol=1e-5)
    np.testing.assert_allclose(translator.translate(vectors_BS, kind="text"), unit(texts), atol=1e-5)


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.astype(np.float64), lambda x: x.astype(np.float16), lambda x: x.astype(ml_dtypes.bfloat16),
        jnp.asarray, lambda x: jnp.asarray(x, jnp.bfloat16), lambda x: torch.tensor(x, requires_grad=True),
        lambda x: torch.tensor(x, dtype=torch.bfloat16), lambda x: x.tolist(),
    ],
)  # fmt: skip
def test_any_library_and_float_type_is_translated(translator, vectors_BS, convert):
    vectors = convert(vectors_BS)
    is_tensor = isinstance(vectors, torch.Tensor)
    exact_BS = vectors.detach().float().numpy() if is_tensor else np.asarray(vectors).astype(np.float32)
    found_BE = translator.translate(vectors)
    assert isinstance(found_BE, np.ndarray) and found_BE.dtype == np.float32
    np.testing.assert_array_equal(found_BE, translator.translate(exact_BS))


def test_memory_mapped_files_are_translated(translator, vectors_BS, tmp_path):
    np.save(tmp_path / "x.npy", vectors_BS)
    expected_BE = translator.translate(vectors_BS)
    np.testing.assert_array_equal(translator.translate(np.load(tmp_path / "x.npy", mmap_mode="r")), expected_BE)
    np.testing.assert_array_equal(translator.translate(tmp_path / "x.npy"), expected_BE)


def test_many_vectors_are_translated_in_blocks(translator, vectors_BS, monkeypatch):
    expected_BE = translator.translate(vectors_BS)
    monkeypatch.setattr("c2c_jax.api.translator.CHECKED_AT_ONCE", 32)
    monkeypatch.setattr("c2c_jax.translator.inference.TRANSLATED_AT_ONCE", 7)
    np.testing.assert_allclose(translator.translate(vectors_BS), expected_BE, atol=1e-5)
    assert translator.translate(vectors_BS[:0]).shape == (0, 64)
    vectors_BS[65] = 0
    with pytest.raises(VectorError, match="row 65 is zero"):
        translator.translate(vectors_BS)


@pytest.mark.parametrize(
    ("vectors", "words"),
    [
        (np.ones((3, 65)), r"\[N, 64\].*\(3, 65\)"),
        (np.ones(64), r"vector\[None\]"),
        (np.full((2, 64), np.nan), "row 0 is zero or not finite"),
        (np.ones((2, 64), complex), "complex128"),
        ([["a"] * 64], "list"),
        ("nofile.npy", "no file"),
        (None, "NoneType"),
    ],
)
def test_unusable_vectors_are_refused(translator, vectors, words):
    with pytest.raises(VectorError, match=words):
        translator.translate(vectors)


def test_messages_name_arguments(translator):
    with pytest.raises(ConfigError, match="^output_mean is 'x': pass text or audio"):
        translator.translate(np.ones((1, 64)), output_mean="x")
    with pytest.raises(ConfigError, match="kind is 'sound'"):
        translator.translate(np.ones((1, 64)), kind="sound")


def test_images_come_as_paths_pil_images_and_arrays(translator):
    with Image.open("examples/dog.png") as file:
        image = file.copy()
    array = np.asarray(image.convert("RGB"))
    expected_E = translator.encode_images("examples/dog.png")[0]
    expected = c2c_jax.load_space("miniworld/clip").encode_images(["examples/dog.png"])
    np.testing.assert_allclose(expected_E, translator.translate(expected)[0], atol=1e-6)
    batch = [image, array, array / 255, jnp.asarray(array), torch.tensor(array)]
    np.testing.assert_allclose(translator.encode_images(batch), np.tile(expected_E, (5, 1)), atol=1e-6)
    np.testing.assert_allclose(translator.encode_images(np.stack([array] * 2))[1], expected_E, atol=1e-6)
    grey = translator.encode_images([array[:, :, 0], Image.fromarray(array[:, :, 0])])
    np.testing.assert_allclose(grey[0], grey[1], atol=1e-6)
    for wrong, words in (
        (array[None, :, :2], "shape"),
        (array * 1.0, "0 to 1"),
        (3, "int"),
        (np.ones((0, 0)), "0 to 1"),
    ):
        with pytest.raises(ImageError, match=words):
            translator.encode_images([wrong])


def test_saved_translators_load_again(translator, vectors_BS, tmp_path):
    folder = translator.save(tmp_path / "out")
    again = c2c_jax.load(folder)
    np.testing.assert_array_equal(again.translate(vectors_BS), translator.translate(vectors_BS))
    assert again.metrics == translator.metrics and again.metrics["held_out"] == 1000
    assert repr(again) == "Translator('out', residual, miniworld/clip [64] → miniworld/clap [64])"
    translator.save(folder)  # replaces an earlier one
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="not a saved translator"):
        translator.save(folder)
    assert (folder / "notes.txt").read_text() == "mine"


def test_pushed_translators_load_by_name(translator, vectors_BS, monkeypatch, tmp_path):
    with stand_in() as hub:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        template = f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        assert translator.push_to_hub("me/name") == f"{hub.address}/me/name"
        again = c2c_jax.load("me/name")
        assert {"config.json", "model.safetensors", "README.md"} == set(hub.files["me/name"])
    assert again.name == "me/name"
    np.testing.assert_array_equal(again.translate(vectors_BS), translator.translate(vectors_BS))


def test_missing_translators_are_one_line(tmp_path):
    with pytest.raises(BundleError, match="no translator bundle") as error:
        c2c_jax.load(tmp_path)
    assert "\n" not in str(error.value)


def test_nothing_is_printed(translator, vectors_BS, capfd, caplog):
    caplog.set_level(logging.INFO)
    translator.translate(vectors_BS)
    translator.encode_images("examples/dog.png")
    assert capfd.readouterr() == ("", "")


def test_a_loaded_clip_is_used(translator, clip_folder):
    clip = c2c_jax.load_space("miniworld/clip")
    expected_BE = translator.encode_images("examples/dog.png")
    np.testing.assert_array_equal(translator.encode_images(Path("examples/dog.png"), clip=clip), expected_BE)
    with pytest.raises(BundleError, match="another space"):
        translator.encode_images("examples/dog.png", clip=c2c_jax.load_space(clip_folder))


def test_images_may_come_from_a_generator(translator):
    files = sorted(Path("examples").glob("*.png"))
    expected_BE = translator.encode_images([str(path) for path in files])
    np.testing.assert_array_equal(translator.encode_images(path for path in files), expected_BE)


def test_pushed_translators_name_their_spaces_and_owner(translator):
    arrays = np.random.default_rng(0).normal(size=(2, 100, 64))
    fitted = c2c_jax.fit(*arrays, "mlp", steps=1, batch_size=64, progress=False)
    with pytest.raises(ExportError, match="pass spaces= to fit"):
        fitted.push_to_hub("me/name")
    with pytest.raises(ExportError, match="pass OWNER/NAME"):
        translator.push_to_hub("name")

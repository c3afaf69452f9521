"""Spaces: names, fingerprints, the hub's cache, and encoding in batches."""

import re
import shutil
from pathlib import Path

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from PIL import Image

from c2c_jax.errors import CheckpointError
from c2c_jax.spaces.packing import encode_packed
from c2c_jax.spaces.space import _encoder, identify, load_space


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache; the hub is offline (HF_HUB_OFFLINE=1)."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def put_in_cache(cache: Path, name: str, folder: Path) -> None:
    """Puts a folder into the hub's cache as a download does."""
    repository = cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, repository / "snapshots" / "0123abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abc")


def test_hub_names(hub_cache, clip_folder, audioldm_folder, caption_list):
    put_in_cache(hub_cache, "some/clip", clip_folder)
    put_in_cache(hub_cache, "some/audioldm", audioldm_folder)
    for name, folder in (
        ("some/clip", f"{clip_folder}"),
        ("some/audioldm:text_encoder", f"{audioldm_folder}:text_encoder"),
    ):
        ours, local = load_space(name), load_space(folder)
        assert (ours.name, ours.fingerprint) == (name, local.fingerprint)
        np.testing.assert_array_equal(ours.encode_text(caption_list[:2]), local.encode_text(caption_list[:2]))


def test_unreachable_hub(hub_cache):
    with pytest.raises(CheckpointError) as caught:
        load_space("cvssp/audioldm-s-full-v2:text_encoder")
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "cvssp/audioldm-s-full-v2",
        "hf download",
        "--include 'text_encoder/*'",
        "--include 'tokenizer/*'",
        "FOLDER",
    ):
        assert part in message


def test_missing_folder(tmp_path):
    with pytest.raises(CheckpointError, match="the folder .* does not exist"):
        load_space(str(tmp_path / "nothing"))
    with pytest.raises(CheckpointError, match="has no folder 'text_encoder'"):
        load_space(f"{tmp_path}:text_encoder")


def test_fingerprint_covers_weights_config_and_tokenizer(tmp_path, clip_folder):
    original = identify(str(clip_folder)).fingerprint
    copy = Path(shutil.copytree(clip_folder, tmp_path / "copy"))
    assert identify(str(copy)).fingerprint == original == load_space(str(copy)).fingerprint
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(
            content.replace(b" ", b"  ", 1) if name != "model.safetensors" else content[:-1] + b"\x7f"
        )
        assert identify(str(copy)).fingerprint != original
        (copy / name).write_bytes(content)
    assert identify(str(copy)).fingerprint == original


def test_images_equal_transformers(clip_folder):
    space = load_space(str(clip_folder))
    rng = np.random.default_rng(0)
    sizes = ((70, 50), (32, 200), (333, 40), (31, 31), (64, 64))
    images = [Image.fromarray(rng.integers(0, 255, (h, w, 3), dtype=np.uint8)) for h, w in sizes]
    processor = transformers.models.clip.image_processing_pil_clip.CLIPImageProcessorPil.from_pretrained(clip_folder)
    pixels = processor(images=images, return_tensors="np")["pixel_values"]
    expected = np.asarray(space.model.encode_image(jnp.asarray(pixels.transpose(0, 2, 3, 1))))
    np.testing.assert_allclose(space.encode_images(images, batch_size=2), expected, atol=1e-5, rtol=0)


def test_order_and_batch_size_do_not_matter(clip_folder, caption_list):
    space = load_space(str(clip_folder))
    texts = [*sorted(caption_list, key=len)[:30:5], caption_list[0], "", "long " * 90]
    assert space.encode_text([]).shape == (0, space.dim)
    one_by_one = np.concatenate([space.encode_text([text]) for text in texts])
    np.testing.assert_allclose(space.encode_text(texts, batch_tokens=64), one_by_one, atol=1e-5, rtol=0)
    np.testing.assert_allclose(space.encode_text(texts[::-1], batch_tokens=4096)[::-1], one_by_one, atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", ["clip", "clap"])
def test_text_tower_has_no_collectives(clip_folder, audioldm_folder, side):
    """A collective would deadlock on CPU devices with one thread each."""
    space = load_space(str(clip_folder) if side == "clip" else f"{audioldm_folder}:text_encoder")
    (batch,) = space.text_batches(["a dog barks"], 256)
    assert jax.device_count() == 4 == len(batch.tokens.ids_RL)
    graphdef, state, over_data = space._replicated
    tokens = jax.device_put(batch.tokens, over_data)
    compiled = _encoder().lower(encode_packed, graphdef, state, tokens).compile().as_text()
    assert "dot" in compiled or "custom-call" in compiled
    assert not re.search(r"all-gather|all-reduce|all-to-all|reduce-scatter|collective", compiled)


def test_clap_has_no_image_tower(audioldm_folder):
    with pytest.raises(CheckpointError, match="no image tower"):
        load_space(f"{audioldm_folder}:text_encoder").encode_images([Image.new("RGB", (8, 8))])


def test_zero_vectors_are_errors(tmp_path, clip_folder):
    from safetensors.numpy import load_file, save_file

    folder = Path(shutil.copytree(clip_folder, tmp_path / "clip"))
    weights = load_file(folder / "model.safetensors")
    for name, factor in (("visual", 0.0), ("text", 0.0)):
        spoiled = {
            key: x * np.float32(factor) if key == f"{name}_projection.weight" else x for key, x in weights.items()
        }
        save_file(spoiled, folder / "model.safetensors", metadata={"format": "pt"})
        space = load_space(str(folder))
        with pytest.raises(CheckpointError, match=f"{folder} gives vectors that are zero or not finite"):
            space.encode_text(["a dog"]) if name == "text" else space.encode_images([Image.new("RGB", (8, 8), "red")])


def test_single_texts_and_images(clip_folder):
    space = load_space(clip_folder)
    np.testing.assert_allclose(space.encode_text("a dog"), space.encode_text(["a dog"]), atol=1e-6)
    image = Image.new("RGB", (40, 40), "red")
    expected = space.encode_images([image])
    for single in (image, np.asarray(image), np.asarray(image)[None], (each for each in [image])):
        np.testing.assert_allclose(space.encode_images(single), expected, atol=1e-6)

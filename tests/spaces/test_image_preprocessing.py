"""Image preprocessing equals transformers' bit for bit, for configuration files of all years."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import transformers
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from c2c_jax.errors import CheckpointError, ImageError
from c2c_jax.io.resolve import EMBEDDED
from c2c_jax.spaces.image_preprocessing import ImagePreprocessor
from c2c_jax.spaces.preprocessors import FILE, PROCESSOR_FILE
from c2c_jax.spaces.space import load_space

SIZES = [(40, 30), (30, 40), (33, 33), (7, 90), (224, 224), (640, 427), (20, 21)]
# Files of 2021 and of today, square resizing, missing steps, and a crop larger than the image.
FILES = [
    {"feature_extractor_type": "CLIPFeatureExtractor", "size": 32, "crop_size": 32, "resample": 3, "do_resize": True},
    {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 24}, "rescale_factor": 0.00392156862745098},
    {"size": {"height": 20, "width": 50}, "do_center_crop": False, "resample": 2},
    {"do_resize": False, "crop_size": {"height": 60, "width": 60}},
    {"size": {"shortest_edge": 32}, "crop_size": 32, "do_normalize": False},
    {"size": [32, 32], "crop_size": [24, 32]},
    {"size": {"shortest_edge": 32, "longest_edge": 50}, "crop_size": 32},
    {"size": {"shortest_edge": 40, "longest_edge": 1000}, "crop_size": 32},
    {"size": {"max_height": 30, "max_width": 45}, "crop_size": 32},
    {"size": 32, "default_to_square": True, "crop_size": 32},
    {"size": {"shortest_edge": 32}, "crop_size": 32, "image_mean": 0.5, "image_std": 0.25},
    {"size": {"shortest_edge": 32}, "crop_size": 32, "do_resize": None, "do_pad": None, "do_normalize": None},
    {"size": {"shortest_edge": 32}, "crop_size": 32, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.25, 0.125]},
    {},
]


def example_images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)) for width, height in SIZES]


@pytest.mark.parametrize("content", FILES, ids=str)
def test_equals_transformers(tmp_path, content):
    (tmp_path / FILE).write_text(json.dumps(content))
    ours, theirs = ImagePreprocessor.read(tmp_path), CLIPImageProcessorPil.from_pretrained(tmp_path)
    for image in example_images():
        (expected,) = theirs(images=[image], return_tensors="np")["pixel_values"]
        (actual,) = ours([image])
        assert actual.dtype == np.float32
        np.testing.assert_array_equal(actual, expected.transpose(1, 2, 0))


def test_processor_config_of_transformers_5(tmp_path):
    """Its image_processor takes precedence over an older file, as in transformers."""
    theirs = CLIPImageProcessorPil(size=[32, 32], crop_size=[32, 24], image_mean=[0.1, 0.2, 0.3])
    (tmp_path / PROCESSOR_FILE).write_text(json.dumps({"image_processor": theirs.to_dict(), "processor_class": "X"}))
    for older in ({}, {"size": 64, "crop_size": 64}):
        if older:
            (tmp_path / FILE).write_text(json.dumps(older))
        for image in example_images():
            (expected,) = theirs(images=[image], return_tensors="np")["pixel_values"]
            np.testing.assert_array_equal(ImagePreprocessor.read(tmp_path)([image])[0], expected.transpose(1, 2, 0))
    (tmp_path / PROCESSOR_FILE).write_text(json.dumps({"processor_class": "CLIPProcessor"}))
    assert ImagePreprocessor.read(tmp_path)(example_images()[:1]).shape == (1, 64, 64, 3)


def test_processor_saved_by_transformers(tmp_path):
    tokenizer = transformers.AutoTokenizer.from_pretrained(EMBEDDED / "clip")
    processor = transformers.CLIPProcessor(CLIPImageProcessorPil(size=40, crop_size=32), tokenizer)
    processor.save_pretrained(tmp_path)
    assert not (tmp_path / FILE).exists()
    expected = processor.image_processor(images=example_images()[:1], return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(
        ImagePreprocessor.read(tmp_path)(example_images()[:1]), expected.transpose(0, 2, 3, 1)
    )


def test_defaults_are_transformers():
    theirs, ours = CLIPImageProcessorPil().to_dict(), dataclasses.asdict(ImagePreprocessor())
    for name in theirs.keys() & ours.keys():
        assert theirs[name] == (pytest.approx(ours[name]) if isinstance(ours[name], list) else ours[name]), name


@pytest.mark.parametrize(
    "content",
    [
        {"size": {"longest_edge": 3}},
        {"size": {}},
        {"size": {"shortest_edge": 3, "height": 3}},
        {"size": {"min_pixels": 3, "max_pixels": 5}},
        {"size": [32]},
        {"size": [32, 32, 3]},
        {"size": 10**5},
        {"size": {"shortest_edge": 10**5}},
        {"size": 0},
        {"size": -3},
        {"size": 32.5},
        {"size": True},
        {"size": "32"},
        {"size": None, "crop_size": {"height": 10**9, "width": 10**9}},
        {"crop_size": {"shortest_edge": 3}},
        {"crop_size": {"height": 3}},
        {"resample": 77},
        {"resample": "bicubic"},
        {"resample": 2.5},
        {"image_mean": [1.0, 2.0]},
        {"image_mean": [1.0, 2.0, "x"]},
        {"image_std": [1.0, 2.0, 0.0]},
        {"image_std": 1e30},
        {"rescale_factor": 1e30},
        {"rescale_factor": -1},
        {"do_resize": "yes"},
        {"do_pad": True},
        {"image_processor_type": "ViTImageProcessor"},
    ],
)
def test_invalid_files(tmp_path, content):
    (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=f"{tmp_path / FILE} cannot be used as an image preprocessor") as caught:
        ImagePreprocessor.read(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ['{"rescale_factor": NaN}', "[]", "null", "{", '{"size": ' + "[" * 9999])
def test_files_without_json_object(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(CheckpointError, match=f"{tmp_path / FILE} cannot be read as JSON"):
        ImagePreprocessor.read(tmp_path)
    (tmp_path / FILE).unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        ImagePreprocessor.read(tmp_path)


@pytest.mark.parametrize(
    ("content", "actual"),
    [
        ({"size": {"shortest_edge": 128}, "crop_size": 128}, "128 x 128"),
        ({"size": {"height": 64, "width": 32}, "do_center_crop": False}, "32 x 64"),
        ({"size": {"shortest_edge": 64}, "do_center_crop": False}, "size depends on the image"),
        ({"do_resize": False, "do_center_crop": False}, "size depends on the image"),
    ],
)
def test_pixels_that_do_not_fit_the_tower(tmp_path, content, actual):
    """For a checkpoint of 64-pixel images."""
    folder = shutil.copytree(EMBEDDED / "clip", tmp_path / "clip")
    assert load_space(str(folder), only="image").encode_images(example_images()[:1]).shape == (1, 64)
    (folder / FILE).write_text(json.dumps(content))
    for only in ("image", None):
        with pytest.raises(CheckpointError, match=f"makes .*{actual}.*; config.json asks for 64 x 64"):
            load_space(str(folder), only=only)


def test_images_too_long_to_resize():
    content = ImagePreprocessor.from_dict({"size": {"shortest_edge": 2048}, "crop_size": 64})
    with pytest.raises(ImageError, match="20000 x 100 pixels cannot be resized to 409600 x 2048"):
        content([Image.new("RGB", (20_000, 100))])
    with pytest.raises(ImageError, match="cannot be resized to 32 x 0"):
        ImagePreprocessor.from_dict({"size": {"max_height": 32, "max_width": 32}})([Image.new("RGB", (100, 1))])

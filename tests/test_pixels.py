"""Pictures to pixels, bit for bit as transformers does it, by files as they were written over the years."""

import json

import numpy as np
import pytest
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from c2c_jax.errors import CheckpointError
from c2c_jax.pixels import DEFAULTS, FILE, PixelRecipe

SIZES = [(40, 30), (30, 40), (33, 33), (7, 90), (224, 224), (640, 427), (20, 21)]
# As in files of 2021, of today, with square resizing, with parts left out, and with a crop beyond the picture.
RECIPES = [
    {"feature_extractor_type": "CLIPFeatureExtractor", "size": 32, "crop_size": 32, "resample": 3, "do_resize": True},
    {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 24}, "rescale_factor": 0.00392156862745098},
    {"size": {"height": 20, "width": 50}, "do_center_crop": False, "resample": 2},
    {"do_resize": False, "crop_size": {"height": 60, "width": 60}},
    {"size": {"shortest_edge": 32}, "crop_size": 32, "do_normalize": False},
    {"size": {"shortest_edge": 32}, "crop_size": 32, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.25, 0.125]},
    {},
]


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)) for width, height in SIZES]


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_pixels_are_transformers(tmp_path, recipe):
    (tmp_path / FILE).write_text(json.dumps(recipe))
    ours, theirs = PixelRecipe.read(tmp_path), CLIPImageProcessorPil.from_pretrained(tmp_path)
    for picture in pictures():
        (expected,) = theirs(images=[picture], return_tensors="np")["pixel_values"]
        (found,) = ours([picture])
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected.transpose(1, 2, 0))


def test_defaults_are_transformers():
    theirs = CLIPImageProcessorPil().to_dict()
    for name, value in DEFAULTS.items():
        assert theirs[name] == (pytest.approx(value) if isinstance(value, list) else value), name


@pytest.mark.parametrize(
    "content",
    [{"size": {"longest_edge": 3}}, {"crop_size": {"shortest_edge": 3}}, {"resample": 77}, {"image_mean": [1.0, 2.0]}],
)
def test_what_makes_no_pixels_is_refused(tmp_path, content):
    (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=f"{tmp_path / FILE} makes no pixels"):
        PixelRecipe.read(tmp_path)

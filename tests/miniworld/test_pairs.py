"""Image, sound and captions of a scene are functions of its index, with separate random numbers."""

import numpy as np

from c2c_jax.miniworld.audio import synthesise
from c2c_jax.miniworld.captions import STYLES
from c2c_jax.miniworld.images import draw
from c2c_jax.miniworld.pairs import audio_at, caption_at, image_at
from c2c_jax.miniworld.world import scene_at


def test_same_number_same_scene():
    for _ in range(2):
        np.testing.assert_array_equal(image_at("train", 5), np.asarray(draw(*scene_at("train", 5))))
    np.testing.assert_array_equal(audio_at("train", 5), audio_at("train", 5))
    assert not np.array_equal(audio_at("train", 5), audio_at("train", 5, seed=1))
    assert len({caption_at("train", 5, style) for style in STYLES}) == 3
    assert caption_at("train", 5, "mixed") == caption_at("train", 5, "mixed")


def test_image_and_sound_have_separate_random_numbers():
    scene, rng = scene_at("test", 7)
    assert not np.array_equal(audio_at("test", 7), synthesise(scene, rng))

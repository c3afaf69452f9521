"""Lists of files as arrays: groups, files without counterpart, and captions."""

from pathlib import Path

import numpy as np
import pytest

from c2c_jax.evaluation.pairs import Item, Pairs
from c2c_jax.evaluation.vectors import NONE, connected_groups, pair_vectors


@pytest.mark.parametrize(
    ("pairs", "images", "audio"),
    [
        ([], [NONE, NONE, NONE], [NONE, NONE, NONE]),
        ([(0, 0), (1, 1)], [0, 1, NONE], [0, 1, NONE]),
        ([(0, 0), (0, 1), (1, 2)], [1, 2, NONE], [1, 1, 2]),  # one image, two sounds
        ([(0, 0), (1, 1), (2, 0), (2, 1)], [3, 3, 3], [3, 3, NONE]),  # the third image holds all together
    ],
)
def test_groups_by_hand(pairs, images, audio):
    found = connected_groups(np.array(pairs, int).reshape(-1, 2), 3, 3)
    assert [x.tolist() for x in found] == [images, audio]


def vector(number, dim):
    return np.full(dim, number, np.float32)


def test_arrays_by_hand():
    """a.png with a.wav, and again with b.wav, first without label, later as cat; c.png unread; d.wav without
    image; labels cat 0, dog 1."""
    a, c, wavs = Path("a.png"), Path("c.png"), [Path(f"{name}.wav") for name in "abd"]
    items = [
        Item(image=a, audio=wavs[0], label="dog", caption="a dog"),
        Item(image=a, audio=wavs[1], label="dog"),
        Item(audio=wavs[1], label="cat", caption="a second caption"),
        Item(image=c, audio=wavs[2], label="cat", caption="a cat"),
    ]
    prompts = [f"{what} {label}" for what in ("a photo of a", "the sound of a") for label in ("cat", "dog")]
    texts = ["a dog", "a cat", "a second caption", *prompts]
    found = pair_vectors(
        Pairs(items=items, description="", skipped=[]),
        {a: vector(1, 3)},
        {path: vector(number, 2) for number, path in enumerate(wavs)},
        {text: vector(number, 3) for number, text in enumerate(texts)},
        {text: vector(10 + number, 2) for number, text in enumerate(texts)},
        (3, 2),
    )
    images, audio = found.images, found.audio
    np.testing.assert_array_equal(images.vectors_NE, [[1, 1, 1]])
    np.testing.assert_array_equal(audio.vectors_NE, [[0, 0], [1, 1], [2, 2]])
    assert images.groups_N.tolist() == [1] and audio.groups_N.tolist() == [1, 1, NONE]
    assert images.labels_N.tolist() == [1] and audio.labels_N.tolist() == [1, 1, 0]
    np.testing.assert_array_equal(audio.prompts_CE, [[15, 15], [16, 16]])
    np.testing.assert_array_equal(images.prompts_CE, [[3, 3, 3], [4, 4, 4]])
    assert found.pairs_P2.tolist() == [[0, 0], [0, 1]]
    np.testing.assert_array_equal(found.paired_images, [[1, 1, 1], [1, 1, 1]])
    np.testing.assert_array_equal(found.paired_audio, [[0, 0], [1, 1]])
    assert images.captioned_A.tolist() == [0] and audio.captioned_A.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(images.caption_AE, [[0, 0, 0]])
    np.testing.assert_array_equal(found.image_caption_AE, [[10, 10]])
    np.testing.assert_array_equal(audio.caption_AE, [[10, 10], [12, 12], [11, 11]])


def test_without_labels_and_captions():
    a = Path("a.png")
    pairs = Pairs(items=[Item(image=a)], description="", skipped=[])
    found = pair_vectors(pairs, {a: vector(1, 3)}, {}, {}, {}, (3, 2))
    assert found.images.prompts_CE is None and found.audio.prompts_CE is None
    assert found.audio.vectors_NE.shape == (0, 2) and found.images.caption_AE.shape == (0, 3)
    assert found.pairs_P2.shape == (0, 2)

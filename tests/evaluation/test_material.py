"""Lists of files to arrays: what belongs together, what has no counterpart, which captions are whose."""

from pathlib import Path

import numpy as np
import pytest

from c2c_jax.evaluation.image_sound import NONE
from c2c_jax.evaluation.manifest import Item
from c2c_jax.evaluation.material import Encoded, groups, pair_material


@pytest.mark.parametrize(
    ("pairs", "images", "audios"),
    [
        ([], [NONE, NONE, NONE], [NONE, NONE, NONE]),
        ([(0, 0), (1, 1)], [0, 1, NONE], [0, 1, NONE]),
        ([(0, 0), (0, 1), (1, 2)], [1, 2, NONE], [1, 1, 2]),  # one picture, two sounds
        ([(0, 0), (1, 1), (2, 0), (2, 1)], [3, 3, 3], [3, 3, NONE]),  # the third picture holds all together
    ],
)
def test_groups_by_hand(pairs, images, audios):
    found = groups(pairs, 3, 3)
    assert [x.tolist() for x in found] == [images, audios]


def vector(number, dim):
    return np.full(dim, number, np.float32)


def test_arrays_by_hand():
    """a.png with a.wav, again with b.wav, a cat later on; c.png unread; d.wav alone; labels cat 0, dog 1."""
    a, c, wavs = Path("a.png"), Path("c.png"), [Path(f"{name}.wav") for name in "abd"]
    items = [
        Item(image=a, audio=wavs[0], label="dog", caption="a dog"),
        Item(image=a, audio=wavs[1], label="dog"),
        Item(audio=wavs[1], label="cat", caption="a second caption"),
        Item(image=c, audio=wavs[2], label="cat", caption="a cat"),
    ]
    prompts = ["photo cat", "photo dog"], ["sound cat", "sound dog"]
    texts = ["a dog", "a cat", "a second caption", *prompts[0], *prompts[1]]
    encoded = Encoded(
        images={a: vector(1, 3)},
        audios={path: vector(number, 2) for number, path in enumerate(wavs)},
        source_texts={text: vector(number, 3) for number, text in enumerate(texts)},
        target_texts={text: vector(10 + number, 2) for number, text in enumerate(texts)},
    )
    found = pair_material(items, ["cat", "dog"], prompts, encoded, (3, 2))
    given = found.given
    np.testing.assert_array_equal(given.image_BS, [[1, 1, 1]])
    np.testing.assert_array_equal(given.audio_NE, [[0, 0], [1, 1], [2, 2]])
    assert given.image_groups.tolist() == [1] and given.audio_groups.tolist() == [1, 1, NONE]
    assert given.image_labels.tolist() == [1] and given.audio_labels.tolist() == [1, 1, 0]
    np.testing.assert_array_equal(given.prompts_CE, [[15, 15], [16, 16]])
    np.testing.assert_array_equal(found.label_prompts_CS, [[3, 3, 3], [4, 4, 4]])
    assert found.pairs_P2.tolist() == [[0, 0], [0, 1]]
    np.testing.assert_array_equal(found.paired_images, [[1, 1, 1], [1, 1, 1]])
    np.testing.assert_array_equal(found.paired_audios, [[0, 0], [1, 1]])
    assert found.captioned_images.tolist() == [0] and found.captioned_audios.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(found.image_caption_AS, [[0, 0, 0]])
    np.testing.assert_array_equal(found.image_caption_AE, [[10, 10]])
    np.testing.assert_array_equal(found.audio_caption_DE, [[10, 10], [12, 12], [11, 11]])


def test_without_labels_and_captions():
    a = Path("a.png")
    encoded = Encoded(images={a: vector(1, 3)}, audios={}, source_texts={}, target_texts={})
    found = pair_material([Item(image=a)], [], ([], []), encoded, (3, 2))
    assert found.given.prompts_CE is None and found.label_prompts_CS is None
    assert found.given.audio_NE.shape == (0, 2) and found.image_caption_AS.shape == (0, 3)
    assert found.pairs_P2.shape == (0, 2)

"""The caption grammar: captions agree with their scenes, according to separate word lists."""

import hashlib
import json
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from c2c_jax.errors import CaptionError
from c2c_jax.miniworld.captions import (
    NAMED,
    STYLES,
    captioned_scenes,
    captions,
    cell_prompts,
    paraphrases,
)
from c2c_jax.miniworld.words import SOURCE_WORDS
from c2c_jax.miniworld.world import CELLS, COLOURS, SHARED, SKIES, SOURCES, is_held_out, scene_at

ROOT = Path(__file__).parents[2]
COUNT_OF = {
    **dict.fromkeys(("one", "once", "single", "lone", "only"), 1),
    **dict.fromkeys(("two", "twice", "pair", "couple", "both"), 2),
    **dict.fromkeys(("three", "thrice", "trio"), 3),
}
SIZE_OF = {
    **dict.fromkeys(("small", "little", "tiny", "high", "shrill", "treble"), "small"),
    **dict.fromkeys(("large", "big", "huge", "low", "deep", "bass"), "large"),
}
PLACE_OF = {
    **dict.fromkeys(("grass", "grassland", "field", "meadow", "lawn", "quiet"), "field"),
    **dict.fromkeys(("sea", "seaside", "shore", "beach", "coast", "water", "surf", "waves"), "shore"),
}

# Words of attributes that are not part of a cell.
UNSHARED = {*COLOURS, *SKIES, "hiss", "hum", "mains", "echo", "echoing", "reverberation"}

SCRIPT = """
import dataclasses, json
from c2c_jax.miniworld.captions import captioned_scenes
examples = captioned_scenes("train", 20_000, seed=1)
print(json.dumps([({**dataclasses.asdict(scene), "cell": scene.cell}, style, text) for scene, style, text in examples]))
"""


@pytest.fixture(scope="module")
def examples():
    """20,000 (scene, style, caption) of the training split, generated in another process without type checks."""
    run = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True)
    return [(types.SimpleNamespace(**scene), style, text) for scene, style, text in json.loads(run.stdout)]


def named(text, table):
    return {table[word] for word in text.split() if word in table}


def test_captions_stay_the_same():
    """The checkpoints were trained on these words: a change of the grammar needs new checkpoints."""
    text = "\n".join(text for split in ("train", "validation", "test") for text in captions(split, 2000, 3))
    assert hashlib.sha256(text.encode()).hexdigest().startswith("326ec455c01ffac8")


def test_caption_is_a_function_of_seed_split_and_number(examples):
    first = [text for _, _, text in examples]
    assert list(captions("train", 10, seed=1)) == first[:10]
    assert list(captions("train", 4100, seed=1)) == first[:4100]  # more than one generator draws
    for other in (captions("train", 100), captions("test", 100, 1), captions("train", 100, 1, ("sound",))):
        assert list(other) != first[:100]


def test_named_attributes_agree_with_the_scene(examples):
    for scene, _, text in examples:
        assert named(text, SIZE_OF) <= {scene.size}, text
        assert named(text, PLACE_OF) <= {scene.place}, text
        assert named(text, COUNT_OF) <= {scene.count}, text
        assert set(text.split()) & set(COLOURS) <= {scene.colour}, text
        assert set(text.split()) & set(SKIES) <= {scene.sky}, text
        assert scene.count == 1 or named(text, COUNT_OF), text  # otherwise an article implies one


def test_echo_and_noise_agree_with_the_scene(examples):
    for scene, style, text in examples:
        if re.search("without an echo|no reverberation|dry sound|close to the ear", text):
            assert scene.echo == "dry" and style != "picture"
        elif re.search("echo|reverberation", text):
            assert scene.echo == "echo" and style != "picture"
        noises = {"hum": "hum|mains", "hiss": "hiss", "none": "clean|clearly|without any noise"}
        for noise, pattern in noises.items():
            if re.search(rf"\b({pattern})", text):
                assert scene.noise == noise and style != "picture", text


@pytest.mark.parametrize("style", STYLES)
def test_fractions_of_named_attributes(examples, style):
    texts = [text for _, of, text in examples if of == style]
    assert len(texts) == pytest.approx(len(examples) / 3, rel=0.03)
    for name, table in (
        ("size", SIZE_OF),
        ("place", PLACE_OF),
        ("colour", dict.fromkeys(COLOURS, 1)),
        ("sky", dict.fromkeys(SKIES, 1)),
    ):
        fraction = np.mean([bool(named(text, table)) for text in texts])
        assert fraction == pytest.approx(NAMED[style].get(name, 0.0), abs=0.02), name


def test_colour_and_sky_are_rarely_named():
    assert (NAMED["picture"]["colour"], NAMED["picture"]["sky"]) == (0.35, 0.25)


def test_size_of_the_vocabulary(examples):
    assert len({word for _, _, text in examples for word in text.split()}) == 445


def test_captions_are_single_spaced_lower_case(examples):
    assert all(re.fullmatch("[a-z]+( [a-z]+)+", text) for _, _, text in examples)
    assert len({text for _, _, text in examples}) > 0.98 * len(examples)


def test_articles_and_plurals(examples):
    for scene, style, text in examples:
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|\b(a|an) (a|an|the|one|two|three)\b", text), text
        nouns = SOURCE_WORDS[scene.source].nouns
        is_plural = scene.count > 1 and style != "sound"  # in sound style there is one thing with several events
        pattern = "|".join(rf"\b{noun}{'s' if is_plural else ''}\b" for noun in nouns)
        assert re.search(pattern, text), text
        assert not re.search(r"\b(one|a single|a lone|a) \w+s (is|are)\b", text), text
        if style != "sound":
            subject, verb = ("(two|three|both)", "is") if is_plural else ("(one|only|single|lone)", "are")
            assert not re.search(rf"\b{subject} \w+ {verb}\b|\bthere {verb} {subject}", text), text


def test_words_name_one_source_each():
    owners: dict[str, set[str]] = {}
    for source, words in SOURCE_WORDS.items():
        for word in (*words.nouns, *(form for verb in words.verbs for form in verb)):
            owners.setdefault(word, set()).add(source)
    assert set(SOURCE_WORDS) == set(SOURCES)
    assert all(len(sources) == 1 for sources in owners.values())


def test_splits(examples):
    assert {scene.cell for scene, _, _ in examples} == {cell for cell in range(CELLS) if not is_held_out(cell)}
    for split in ("validation", "test"):
        assert [scene.cell for scene, _, _ in captioned_scenes(split, 400)] == [i % CELLS for i in range(400)]


@pytest.mark.parametrize("style", STYLES)
def test_cell_prompts_name_only_shared_attributes(style):
    everything = set()
    for cell in range(0, CELLS, 5):
        prompts = cell_prompts(cell, style)
        everything |= set(prompts)
        assert len(set(prompts)) == 8
        for text in prompts:
            count, size, place = SHARED[cell % len(SHARED)]
            assert named(text, SIZE_OF) == {size} and named(text, PLACE_OF) == {place}
            assert named(text, COUNT_OF) in ({count}, set() if count == 1 else {count})
            assert not set(text.split()) & UNSHARED
    assert len(everything) == 8 * len(range(0, CELLS, 5))


def test_prompts_of_cells_differ_only_in_meaning():
    small, large = cell_prompts(0, "picture"), cell_prompts(2, "picture")
    assert SHARED[:3:2] == ((1, "small", "field"), (1, "large", "field"))
    to_large = {"small": "large", "little": "big", "tiny": "huge"}
    assert [" ".join(to_large.get(word, word) for word in text.split()) for text in small] == large


@pytest.mark.parametrize("style", STYLES)
def test_paraphrases_of_one_scene(style):
    scene, rng = scene_at("validation", 31)
    texts = paraphrases(scene, style, 300, rng)
    assert len(set(texts)) == 300
    assert set().union(*(named(text, SIZE_OF) for text in texts)) == {scene.size}
    assert set().union(*(named(text, PLACE_OF) for text in texts)) == {scene.place}


def test_misuse():
    with pytest.raises(CaptionError, match="no split 'dev' .* train, validation, test"):
        captions("dev", 1)
    with pytest.raises(CaptionError, match="no style smell .* picture, sound, mixed"):
        captions("train", 1, styles=("smell",))

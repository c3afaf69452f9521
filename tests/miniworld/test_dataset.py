"""The mini world as TFDS data sets: written as ArrayRecord, read in another process without TensorFlow."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from c2c_jax.data.captions import open_sources
from c2c_jax.errors import CaptionError
from c2c_jax.miniworld.captions import captions
from c2c_jax.miniworld.dataset import Miniworld, MiniworldConfig, prepared
from c2c_jax.miniworld.pairs import audio_at, caption_at, image_at
from c2c_jax.miniworld.world import SOURCES, scene_at

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Small sets of all three kinds."""
    folder = tmp_path_factory.mktemp("tfds")
    for kind in ("captions", "images", "sounds"):
        prepared(MiniworldConfig(name=f"small_{kind}", kind=kind, train=20, validation=3, test=15), folder)
    return folder


def test_sizes_of_the_sets():
    sizes = {config.name: (config.train, config.validation, config.test) for config in Miniworld.BUILDER_CONFIGS}
    pairs = (6000, 1440, 1440)
    assert sizes == {"captions": (100_000, 1440, 1440), "images": pairs, "sounds": pairs}


READ = """
import json, sys
import tensorflow_datasets as tfds
sets = {kind: tfds.data_source(f"miniworld/small_{kind}:1.0.0", data_dir=sys.argv[1]) for kind in ("images", "sounds")}
rows = [[split, len(rows), [int(row["cell"]) for row in rows]] for kind in sets for split, rows in sets[kind].items()]
print(json.dumps([rows, "tensorflow" in sys.modules, "c2c_jax" in sys.modules]))
"""


def test_read_in_a_fresh_process_without_tensorflow(folder):
    run = subprocess.run([sys.executable, "-c", READ, folder], cwd=ROOT, capture_output=True, text=True, check=True)
    rows, tensorflow, ours = json.loads(run.stdout)
    assert not tensorflow and not ours
    images, audio = rows[:3], rows[3:]
    assert images == audio  # image i and sound i are of one cell
    assert {split: count for split, count, _ in images} == {"train": 20, "validation": 3, "test": 15}
    for split, count, cells in images:
        assert cells == [scene_at(split, index)[0].cell for index in range(count)]


def test_examples_agree_with_their_scenes(folder):
    images = _builder("images", folder)
    image, audio_example = (_builder(kind, folder).as_data_source(split="test")[14] for kind in ("images", "sounds"))
    scene, _ = scene_at("test", 14)
    for example in (image, audio_example):
        assert SOURCES[example["source"]] == scene.source == "bird"
        assert (example["count"], example["cell"]) == (scene.count, 14)
        for name in ("size", "place", "colour", "sky", "echo", "noise"):
            assert images.info.features[name].int2str(example[name]) == getattr(scene, name)
    assert image["caption"].decode() == caption_at("test", 14, "picture")
    assert audio_example["caption"].decode() == caption_at("test", 14, "sound")
    np.testing.assert_array_equal(image["image"], np.asarray(image_at("test", 14)))
    assert audio_example["sound"].dtype == np.int16 and audio_example["sample_rate"] == 16_000
    np.testing.assert_allclose(audio_example["sound"] / 32767, audio_at("test", 14), atol=0.51 / 32767, rtol=0)


def test_captions_of_the_data_set(folder):
    rows = _builder("captions", folder).as_data_source(split="train")
    assert [row["caption"].decode() for row in rows] == list(captions("train", 20))


def test_caption_source_prepares_the_set_at_first_use(tmp_path, monkeypatch):
    for config in Miniworld.BUILDER_CONFIGS:
        for split in ("train", "validation", "test"):
            monkeypatch.setattr(config, split, 7)
    (source,) = open_sources("tfds:miniworld/captions:train", str(tmp_path))
    assert list(source.rows()) == list(captions("train", 7))
    assert (tmp_path / "miniworld" / "captions" / "1.0.0").is_dir()
    stamp = source.stamp()
    (again,) = open_sources("tfds:miniworld/captions:train[:3]:caption", str(tmp_path))
    assert list(again.rows()) == list(captions("train", 3)) and again.stamp() == stamp
    (image_captions,) = open_sources("tfds:miniworld/images:test", str(tmp_path))
    assert list(image_captions.rows()) == [caption_at("test", index, "picture") for index in range(7)]


def test_unknown_set(tmp_path):
    (source,) = open_sources("tfds:miniworld/smells:train", str(tmp_path))
    with pytest.raises(
        CaptionError, match="no data set miniworld/smells; there are miniworld/captions, miniworld/images"
    ):
        list(source.rows())


def test_captions_without_files():
    (source,) = open_sources("miniworld:50")
    assert list(source.rows()) == list(captions("train", 50)) and not source.skipped.counts
    (longer,) = open_sources("miniworld:60")
    (tested,) = open_sources("miniworld:test:50:picture")
    assert list(tested.rows()) == list(captions("test", 50, styles=("picture",)))
    assert len({source.stamp(), longer.stamp(), tested.stamp()}) == 3
    assert source.stamp() == open_sources("miniworld:50")[0].stamp()
    weighed = open_sources("2*miniworld:50 + 1*miniworld:50:sound")
    assert [source.weight for source in weighed] == [2.0, 1.0]


@pytest.mark.parametrize(
    "spec",
    ["miniworld:", "miniworld:0", "miniworld:dev:5", "miniworld:5:smell", "miniworld:train", "miniworld:" + "9" * 5000],
    ids=lambda spec: spec[:20],
)
def test_invalid_specs_of_captions_without_files(spec):
    with pytest.raises(
        CaptionError, match=r"write miniworld:\[train\|validation\|test:\]COUNT\[:picture\|sound\|mixed\]"
    ):
        open_sources(spec)


def _builder(kind, folder):
    return prepared(MiniworldConfig(name=f"small_{kind}", kind=kind), folder)

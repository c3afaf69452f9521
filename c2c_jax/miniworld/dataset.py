"""The mini world as TFDS data sets: once imported, `tfds.builder` knows `miniworld/captions`, images and sounds."""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from c2c_jax.errors import CaptionError
from c2c_jax.io.tfds import prepare
from c2c_jax.miniworld.captions import STYLES, captioned_scenes
from c2c_jax.miniworld.pairs import caption_at, picture_at, sound_at
from c2c_jax.miniworld.sounds import SAMPLES
from c2c_jax.miniworld.voices.event import SAMPLE_RATE
from c2c_jax.miniworld.world import (
    CELLS,
    COLOURS,
    ECHOES,
    NOISES,
    PLACES,
    SIZES,
    SKIES,
    SOURCES,
    SPLITS,
    Scene,
    scene_at,
)

ROUNDS = 5  # of all cells, in validation and test
FULL_SCALE = 32767  # of a sound's int16


@dataclasses.dataclass(eq=False)
class MiniworldConfig(tfds.core.BuilderConfig):
    """kind: "captions", "images" or "sounds". train, validation, test: examples of each split. seed: of all scenes.

    For other sizes make a config with a name of its own: `Miniworld(config=MiniworldConfig(name="captions_1m",
    kind="captions", train=1_000_000), file_format="array_record")`.
    """

    kind: str = ""
    train: int = 6_000
    validation: int = ROUNDS * CELLS
    test: int = ROUNDS * CELLS
    seed: int = 0


class Miniworld(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of the mini world, which is drawn and not downloaded.

    `captions` has texts of scenes of its own in all styles; image i and sound i of a split are of one scene, which is
    `world.scene_at(split, i)`. Attributes are class labels, whose names the features know; `cell` counts the
    combinations of source, count, size and place, 0 to 287. Sounds are int16: divide by 32,767.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        MiniworldConfig(name="captions", kind="captions", train=100_000, description="Captions in three styles."),
        MiniworldConfig(name="images", kind="images", description="Pictures of 64 by 64 pixels and captions of them."),
        MiniworldConfig(name="sounds", kind="sounds", description="Sounds of 2.56 s at 16 kHz and captions of them."),
    ]
    url_infos = None  # nothing is downloaded, so there are no checksums to look for

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="A procedural world of pictures, sounds and captions of 24 sources of sound.",
            features=tfds.features.FeaturesDict(features_of(self.builder_config.kind)),
            disable_shuffling=True,  # example i is scene i
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        config = self.builder_config
        count = getattr(config, split)
        if config.kind == "captions":
            for index, (scene, style, text) in enumerate(captioned_scenes(split, count, config.seed)):
                shared = {"source": scene.source, "count": scene.count, "size": scene.size, "place": scene.place}
                yield index, {"caption": text, "style": style, **shared, "cell": scene.cell}
            return
        example = image_example if config.kind == "images" else sound_example
        for index in range(count):
            yield index, example(split, index, config.seed)


def features_of(kind: str) -> dict[str, Any]:
    label, number = tfds.features.ClassLabel, tfds.features.Scalar(np.int64)
    shared = {
        "source": label(names=SOURCES),
        "count": number,
        "size": label(names=SIZES),
        "place": label(names=PLACES),
        "cell": number,
        "caption": tfds.features.Text(),
    }
    if kind == "captions":
        return {**shared, "style": label(names=STYLES)}
    alone = {"colour": COLOURS, "sky": SKIES, "echo": ECHOES, "noise": NOISES}
    labels = {name: label(names=values) for name, values in alone.items()}
    if kind == "images":
        return {**shared, **labels, "image": tfds.features.Image(shape=(64, 64, 3), encoding_format="png")}
    # As bytes: TFDS writes numbers of a list one by one, a negative one in ten bytes.
    waveform = tfds.features.Tensor(shape=(SAMPLES,), dtype=np.int16, encoding=tfds.features.Encoding.BYTES)
    return {**shared, **labels, "sound": waveform, "sample_rate": number}


def image_example(split: str, index: int, seed: int) -> dict[str, Any]:
    text = caption_at(split, index, "picture", seed)
    return {**_fields(scene_at(split, index, seed)[0]), "caption": text, "image": picture_at(split, index, seed)}


def sound_example(split: str, index: int, seed: int) -> dict[str, Any]:
    samples = np.round(sound_at(split, index, seed) * FULL_SCALE).astype(np.int16)
    text = caption_at(split, index, "sound", seed)
    scene = scene_at(split, index, seed)[0]
    return {**_fields(scene), "caption": text, "sound": samples, "sample_rate": SAMPLE_RATE}


def _fields(scene: Scene) -> dict[str, Any]:
    return {**dataclasses.asdict(scene), "cell": scene.cell}


def prepared(config: str | MiniworldConfig, data_dir: str | os.PathLike | None = None) -> Miniworld:
    """The builder of a set on disk, which is made there first where it is missing, without a network: 10 s of one core
    and 21 MB for the captions, 30 s and 74 MB for the images, 45 s and 560 MB for the sounds.

    data_dir: where TFDS keeps prepared sets; None: its own default. Raises CaptionError for a name that no set has.
    """
    known = [one.name for one in Miniworld.BUILDER_CONFIGS]
    if isinstance(config, str) and config not in known:
        raise CaptionError(f"no set miniworld/{config}; there are {', '.join(f'miniworld/{name}' for name in known)}")
    builder = Miniworld(config=config, data_dir=data_dir, file_format="array_record")
    if not builder.data_path.exists():
        prepare(builder, tfds.download.DownloadConfig(try_download_gcs=False))
    return builder

"""TFDS data sets of the mini world. Importing this module registers `miniworld/captions`, `/images` and `/sounds`."""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from c2c_jax.errors import CaptionError
from c2c_jax.io.tfds import prepare
from c2c_jax.miniworld import world
from c2c_jax.miniworld.audio import SAMPLES
from c2c_jax.miniworld.captions import STYLES, captioned_scenes
from c2c_jax.miniworld.event import SAMPLE_RATE
from c2c_jax.miniworld.pairs import audio_at, caption_at, image_at

HELD_OUT_ROWS = 5 * world.CELLS  # in validation, and in test
FULL_SCALE = 32767  # of int16 sounds


@dataclasses.dataclass(eq=False)
class MiniworldConfig(tfds.core.BuilderConfig):
    """Kind ("captions", "images" or "sounds"), number of examples in each split, and seed of the scenes.

    For other sizes, create a config with another name: `Miniworld(config=MiniworldConfig(name="captions_1m",
    kind="captions", train=1_000_000), file_format="array_record")`.
    """

    kind: str = ""
    train: int = 6_000
    validation: int = HELD_OUT_ROWS
    test: int = HELD_OUT_ROWS
    seed: int = 0


class Miniworld(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of the mini world. Examples are generated, not downloaded.

    `captions` contains texts in all styles, each with its own scene. Image i and sound i of a split show scene
    `world.scene_at(split, i)`. Attributes are class labels; `cell` is the index of the combination of source, count,
    size and place, 0 to 287. Sounds are int16: divide by 32,767.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        MiniworldConfig(name="captions", kind="captions", train=100_000, description="Captions in three styles."),
        MiniworldConfig(name="images", kind="images", description="Images of 64 by 64 pixels and captions of them."),
        MiniworldConfig(name="sounds", kind="sounds", description="Sounds of 2.56 s at 16 kHz and captions of them."),
    ]
    url_infos = None  # no downloads, so no checksums

    def _info(self) -> tfds.core.DatasetInfo:
        label, number = tfds.features.ClassLabel, tfds.features.Scalar(np.int64)
        features = {
            "source": label(names=world.SOURCES), "count": number, "size": label(names=world.SIZES),
            "place": label(names=world.PLACES), "cell": number, "caption": tfds.features.Text(),
        }  # fmt: skip
        if self.builder_config.kind == "captions":
            features["style"] = label(names=STYLES)
        else:
            unshared = {"colour": world.COLOURS, "sky": world.SKIES, "echo": world.ECHOES, "noise": world.NOISES}
            features |= {name: label(names=values) for name, values in unshared.items()}
        if self.builder_config.kind == "images":
            features["image"] = tfds.features.Image(shape=(64, 64, 3), encoding_format="png")
        if self.builder_config.kind == "sounds":
            # As bytes: TFDS would encode each number of a list separately, and negative ones in ten bytes.
            encoding = tfds.features.Encoding.BYTES
            features["sound"] = tfds.features.Tensor(shape=(SAMPLES,), dtype=np.int16, encoding=encoding)
            features["sample_rate"] = number
        return tfds.core.DatasetInfo(
            builder=self,
            description="A procedural world of images, sounds and captions of 24 sources of sound.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # example i is scene i
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in world.SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        config = self.builder_config
        count, seed = getattr(config, split), config.seed
        if config.kind == "captions":
            for index, (scene, style, text) in enumerate(captioned_scenes(split, count, seed)):
                shared = {"source": scene.source, "count": scene.count, "size": scene.size, "place": scene.place}
                yield index, {**shared, "cell": scene.cell, "caption": text, "style": style}
            return
        for index in range(count):
            scene = world.scene_at(split, index, seed)[0]
            example = {**dataclasses.asdict(scene), "cell": scene.cell}
            if config.kind == "images":
                example |= {"image": image_at(split, index, seed)}
                example |= {"caption": caption_at(split, index, "picture", seed)}
            else:
                samples = np.round(audio_at(split, index, seed) * FULL_SCALE).astype(np.int16)
                example |= {"sound": samples, "sample_rate": SAMPLE_RATE}
                example |= {"caption": caption_at(split, index, "sound", seed)}
            yield index, example


def prepared(config: str | MiniworldConfig, data_dir: str | os.PathLike | None = None) -> Miniworld:
    """Returns the builder of a data set, and prepares the data set if it is missing.

    Needs no network. On one core captions take 10 s and 21 MB, images 30 s and 74 MB, sounds 45 s and 560 MB.
    data_dir: folder of prepared data sets; None: TFDS's default. Raises CaptionError for an unknown name.
    """
    known = [config.name for config in Miniworld.BUILDER_CONFIGS]
    if isinstance(config, str) and config not in known:
        raise CaptionError(
            f"no data set miniworld/{config}; there are {', '.join(f'miniworld/{name}' for name in known)}"
        )
    builder = Miniworld(config=config, data_dir=data_dir, file_format="array_record")
    if not builder.data_path.exists():
        prepare(builder, tfds.download.DownloadConfig(try_download_gcs=False))
    return builder

"""The vectors that are evaluated: captions in both spaces, and images and sounds with their pairs and classes."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse.csgraph
from jaxtyping import Float, Int, Shaped

from c2c_jax.errors import C2CError
from c2c_jax.evaluation.pairs import Pairs
from c2c_jax.evaluation.results import SkippedFile
from c2c_jax.io.progress import Progress
from c2c_jax.io.scratch import empty_vectors
from c2c_jax.spaces.encoding import encode_audio_files, encode_image_files
from c2c_jax.spaces.space import Space

IMAGE_PROMPT, AUDIO_PROMPT = "a photo of a {}", "the sound of a {}"  # for the name of a class
TEXTS_AT_ONCE = 1024
NONE = -1  # group or label of an image or sound that has none

FileVectors = dict[Path, Float[np.ndarray, "_"]]
TextVectors = Mapping[str, Float[np.ndarray, "_"]]


def text_rows(texts: Sequence[str], space: Space, bar: Progress, task: str) -> Float[np.ndarray, "N E"]:
    """Encodes texts; row i is the raw projection of text i. Large arrays are kept in a file, see `io.scratch`."""
    number = bar.add_task(task, total=len(texts), visible=bool(texts))
    vectors_NE = empty_vectors(len(texts), space.dim)
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        block = texts[start : start + TEXTS_AT_ONCE]
        vectors_NE[start : start + len(block)] = space.encode_text(block)
        bar.advance(number, len(block))
    return vectors_NE


def text_vectors(texts: Iterable[str], space: Space, bar: Progress, task: str) -> TextVectors:
    """Encodes each different text once; returns raw projections by text."""
    distinct = list(dict.fromkeys(texts))
    return dict(zip(distinct, text_rows(distinct, space, bar, task), strict=True))


def file_vectors(
    kind: str, paths: Sequence[Path], space: Space, bar: Progress
) -> tuple[FileVectors, list[SkippedFile]]:
    """Encodes "images" or "sounds"; returns the raw projections of those that can be read, and the other files."""
    if not paths:  # the space may lack the encoder
        return {}, []
    number = bar.add_task(f"encoding {kind}", total=len(paths))
    errors: Sequence[C2CError]
    if kind == "images":
        vectors, errors = encode_image_files(paths, space, lambda: bar.advance(number))
    else:
        vectors, errors = encode_audio_files(paths, space, on_audio=lambda: bar.advance(number))
    unread = zip([path for path in paths if path not in vectors], errors, strict=True)
    return vectors, [SkippedFile(file=str(path), why=str(error).removeprefix(f"{path} ")) for path, error in unread]


@dataclasses.dataclass(frozen=True, eq=False)
class Captions:
    """Raw vectors of captions in both spaces: row i of both is caption i."""

    source_NS: Float[np.ndarray, "N S"]
    target_NE: Float[np.ndarray, "N E"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Media:
    """Vectors, of any length, of N different images or of N different sounds, with their pairs, classes and captions.

    groups_N: index of each item's group; items linked by pairs, directly or indirectly, share a group. labels_N:
    numbers of classes. Both are NONE for an image or sound without a counterpart or class. prompts_CE: vectors of the
    classes' prompts in the same space, in the order of the labels; None without classes. captioned_A: indices of the
    images or sounds with a caption. caption_AE: vectors of these captions.
    """

    vectors_NE: Float[np.ndarray, "N E"]
    groups_N: Int[np.ndarray, "N"]
    labels_N: Int[np.ndarray, "N"]
    prompts_CE: Float[np.ndarray, "C E"] | None
    captioned_A: Int[np.ndarray, "A"]
    caption_AE: Float[np.ndarray, "A E"]

    @classmethod
    def of(
        cls,
        vectors_NE: Float[np.ndarray, "N E"],
        labels_N: Int[np.ndarray, "N"] | None = None,
        prompts_CE: Float[np.ndarray, "C E"] | None = None,
    ) -> "Media":
        """The images or the sounds of N pairs, in the order of the pairs, without captions."""
        return cls(
            vectors_NE=vectors_NE,
            groups_N=np.arange(len(vectors_NE)),
            labels_N=np.full(len(vectors_NE), NONE) if labels_N is None else labels_N,
            prompts_CE=prompts_CE,
            captioned_A=np.zeros(0, int),
            caption_AE=vectors_NE[:0],
        )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PairVectors:
    """Images and sounds. pairs_P2: indices of the image and the sound of each pair. image_caption_AE: the images'
    captions in the target space, in the order of `images.captioned_A`."""

    images: Media
    audio: Media
    pairs_P2: Int[np.ndarray, "P 2"]
    image_caption_AE: Float[np.ndarray, "A E"]

    @classmethod
    def of(cls, images: Media, audio: Media) -> "PairVectors":
        """Pairs image i with sound i; no image has a caption."""
        pairs_P2 = np.stack([images.groups_N, audio.groups_N], axis=1)
        return cls(images=images, audio=audio, pairs_P2=pairs_P2, image_caption_AE=audio.vectors_NE[:0])

    @property
    def paired_images(self) -> Float[np.ndarray, "P S"]:
        """Raw source vectors of the pairs' images."""
        return self.images.vectors_NE[self.pairs_P2[:, 0]]

    @property
    def paired_audio(self) -> Float[np.ndarray, "P E"]:
        """Audio vectors of the pairs' sounds."""
        return self.audio.vectors_NE[self.pairs_P2[:, 1]]


def pair_vectors(
    pairs: Pairs,
    images: FileVectors,
    audio: FileVectors,
    source_texts: TextVectors,
    target_texts: TextVectors,
    dims: tuple[int, int],
) -> PairVectors:
    """Arranges encoded images and sounds as arrays.

    images, audio: raw vectors of the files that could be read. source_texts, target_texts: raw vectors of all captions
    and class prompts. dims: widths of both spaces. A file that is listed more than once gets its first label and its
    first caption.
    """
    image_index, audio_index = (
        {path: number for number, path in enumerate(dict.fromkeys(path for path in paths if path in vectors))}
        for vectors, paths in (
            (images, [item.image for item in pairs.items]),
            (audio, [item.audio for item in pairs.items]),
        )
    )
    both = [
        (image_index[item.image], audio_index[item.audio])
        for item in pairs.items
        if item.image in image_index and item.audio in audio_index
    ]
    pairs_P2 = np.array(list(dict.fromkeys(both)), int).reshape(-1, 2)
    image_groups, audio_groups = connected_groups(pairs_P2, len(image_index), len(audio_index))
    label_of = {label: number for number, label in enumerate(pairs.labels)}

    def media(
        kind: str, index: Mapping[Path, int], groups_N: np.ndarray, vectors: FileVectors, texts: TextVectors, dim: int
    ) -> tuple[Media, list[str]]:
        """The images or sounds, and their captions."""
        labels_N = np.full(len(index), NONE)
        captions: dict[int, str] = {}
        for item in pairs.items:
            if (number := index.get(getattr(item, kind))) is not None:
                if item.label and labels_N[number] == NONE:
                    labels_N[number] = label_of[item.label]
                if item.caption:
                    captions.setdefault(number, item.caption)
        prompt = IMAGE_PROMPT if kind == "image" else AUDIO_PROMPT
        return Media(
            vectors_NE=_stacked(vectors, index, dim),
            groups_N=groups_N,
            labels_N=labels_N,
            prompts_CE=_stacked(texts, map(prompt.format, label_of), dim) if label_of else None,
            captioned_A=np.array(list(captions), int),
            caption_AE=_stacked(texts, captions.values(), dim),
        ), list(captions.values())

    image_media, captions = media("image", image_index, image_groups, images, source_texts, dims[0])
    audio_media, _ = media("audio", audio_index, audio_groups, audio, target_texts, dims[1])
    image_caption_AE = _stacked(target_texts, captions, dims[1])
    return PairVectors(images=image_media, audio=audio_media, pairs_P2=pairs_P2, image_caption_AE=image_caption_AE)


def _stacked(vectors: Mapping[Any, np.ndarray], keys: Iterable[Any], dim: int) -> Float[np.ndarray, "N E"]:
    rows = [vectors[key] for key in keys]
    return np.stack(rows).astype(np.float32) if rows else np.zeros((0, dim), np.float32)


def connected_groups(
    pairs_P2: Int[np.ndarray, "P 2"], image_count: int, audio_count: int
) -> tuple[Int[np.ndarray, "B"], Int[np.ndarray, "N"]]:
    """Numbers the groups of images and sounds that pairs connect, directly or through others. Returns the group of
    each image and of each sound; NONE without a pair."""
    ends, count = (pairs_P2[:, 0], image_count + pairs_P2[:, 1]), image_count + audio_count
    links = scipy.sparse.coo_array((np.ones(len(pairs_P2)), ends), shape=(count, count))
    components, component_of = scipy.sparse.csgraph.connected_components(links, directed=False)
    number_of = np.full(components, NONE)
    number_of[component_of[pairs_P2[:, 0]]] = np.arange(len(pairs_P2))  # the number of a group's last pair
    return number_of[component_of[:image_count]], number_of[component_of[image_count:]]


class Side(NamedTuple):
    """The raw vectors of one space, "source" or "target": the evaluated captions, and the images or sounds.

    text, other: names of the captions and of the images or sounds in `vectors.npz`.
    """

    space: str
    text: str
    other: str
    text_NE: Shaped[np.ndarray, "N E"]
    media: Media

    @property
    def captioned_media_AE(self) -> Float[np.ndarray, "A E"]:
        """The images or sounds that have a caption, in the order of `media.caption_AE`."""
        return self.media.vectors_NE[self.media.captioned_A]

    @property
    def any_text_NE(self) -> Shaped[np.ndarray, "_ E"]:
        """The evaluated captions or, if there are none, the captions of images or sounds."""
        return self.text_NE if len(self.text_NE) else self.media.caption_AE


def both_sides(captions: Captions | None, pairs: PairVectors | None) -> list[Side]:
    """The source space and the target space; empty without captions and pairs."""
    if captions is None:
        if pairs is None:
            return []
        captions = Captions(pairs.images.vectors_NE[:0], pairs.audio.vectors_NE[:0])
    if pairs is None:
        pairs = PairVectors.of(Media.of(captions.source_NS[:0]), Media.of(captions.target_NE[:0]))
    return [
        Side("source", "source_text", "source_image", captions.source_NS, pairs.images),
        Side("target", "target_text", "target_audio", captions.target_NE, pairs.audio),
    ]

"""The vectors that are evaluated: captions in both spaces, and images and sounds with their pairs and classes."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse.csgraph
from jaxtyping import Float, Int, Shaped

from c2c_jax.evaluation.pairs import Pairs
from c2c_jax.evaluation.rows import SkippedFile
from c2c_jax.io.progress import Progress
from c2c_jax.io.scratch import empty_vectors
from c2c_jax.spaces.encoding import encode_audio_files, encode_image_files
from c2c_jax.spaces.space import Space

IMAGE_PROMPT, SOUND_PROMPT = "a photo of a {}", "the sound of a {}"  # for the name of a class
TEXTS_AT_ONCE = 1024
NONE = -1  # the group or label of what has none

FileVectors = dict[Path, Float[np.ndarray, "_"]]
TextVectors = Mapping[str, Float[np.ndarray, "_"]]


def text_rows(texts: Sequence[str], space: Space, bar: Progress, task: str) -> Float[np.ndarray, "N E"]:
    """The raw projections of texts, row by row; large arrays are kept in a file, see `io.scratch`."""
    number = bar.add_task(task, total=len(texts), visible=bool(texts))
    vectors_NE = empty_vectors(len(texts), space.dim)
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        block = texts[start : start + TEXTS_AT_ONCE]
        vectors_NE[start : start + len(block)] = space.encode_text(block)
        bar.advance(number, len(block))
    return vectors_NE


def text_vectors(texts: Iterable[str], space: Space, bar: Progress, task: str) -> TextVectors:
    """The raw projections of texts by text, each encoded once."""
    different = list(dict.fromkeys(texts))
    return dict(zip(different, text_rows(different, space, bar, task), strict=True))


def image_vectors(paths: Sequence[Path], space: Space, bar: Progress) -> tuple[FileVectors, list[SkippedFile]]:
    """The raw projections of the images that can be read, and the other files."""
    return _encoded(paths, bar, "encoding images", lambda on_file: encode_image_files(paths, space, on_file))


def audio_vectors(paths: Sequence[Path], space: Space, bar: Progress) -> tuple[FileVectors, list[SkippedFile]]:
    """The raw projections of the sounds that can be read, and the other files."""
    return _encoded(paths, bar, "encoding sounds", lambda on_file: encode_audio_files(paths, space, on_audio=on_file))


def _encoded(
    paths: Sequence[Path], bar: Progress, task: str, encode: Callable[[Callable[[], None]], tuple[FileVectors, Any]]
) -> tuple[FileVectors, list[SkippedFile]]:
    number = bar.add_task(task, total=len(paths), visible=bool(paths))
    vectors, errors = encode(lambda: bar.advance(number))
    unread = [path for path in paths if path not in vectors]
    return vectors, [
        SkippedFile(file=str(path), why=str(error).removeprefix(f"{path} "))
        for path, error in zip(unread, errors, strict=True)
    ]


@dataclasses.dataclass(frozen=True, eq=False)
class Captions:
    """Raw vectors of captions in both spaces: row i of both is caption i."""

    source_NS: Float[np.ndarray, "N S"]
    target_NE: Float[np.ndarray, "N E"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Media:
    """N different images or sounds, vectors of any length in one space, and what is known of them.

    groups_N: numbers; an image and its sound, and all others that share either of them, have the same. labels_N:
    numbers of classes. NONE is for those without a counterpart or class. prompts_CE: the classes' prompts by label, as
    vectors of the same space; None without classes. captioned_A: those that have a caption, and caption_AE: its vector.
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
        """The images or the sounds of pairs, in the same order, without captions."""
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
    """Images and sounds. pairs_P2: the image and the sound of each pair. image_caption_AE: the images' captions in the
    target space, in the order of `images.captioned_A`."""

    images: Media
    sounds: Media
    pairs_P2: Int[np.ndarray, "P 2"]
    image_caption_AE: Float[np.ndarray, "A E"]

    @classmethod
    def of(cls, images: Media, sounds: Media) -> "PairVectors":
        """Image i and sound i are a pair; no image has a caption."""
        pairs_P2 = np.stack([images.groups_N, sounds.groups_N], axis=1)
        return cls(images=images, sounds=sounds, pairs_P2=pairs_P2, image_caption_AE=sounds.vectors_NE[:0])

    @property
    def paired_images(self) -> Float[np.ndarray, "P S"]:
        """Raw source vectors of the pairs' images."""
        return self.images.vectors_NE[self.pairs_P2[:, 0]]

    @property
    def paired_audio(self) -> Float[np.ndarray, "P E"]:
        """Audio vectors of the pairs' sounds."""
        return self.sounds.vectors_NE[self.pairs_P2[:, 1]]


def pair_vectors(
    pairs: Pairs,
    images: FileVectors,
    sounds: FileVectors,
    source_texts: TextVectors,
    target_texts: TextVectors,
    dims: tuple[int, int],
) -> PairVectors:
    """The arrays of a list of images and sounds.

    images, sounds: raw vectors of the files that could be read. source_texts, target_texts: raw vectors of all captions
    and of the classes' prompts. dims: widths of both spaces. A file that is listed more than once has the first label
    and the first caption that it is given.
    """
    image_at, sound_at = (
        {path: number for number, path in enumerate(dict.fromkeys(path for path in paths if path in vectors))}
        for vectors, paths in (
            (images, [item.image for item in pairs.items]),
            (sounds, [item.audio for item in pairs.items]),
        )
    )
    both = [
        (image_at[item.image], sound_at[item.audio])
        for item in pairs.items
        if item.image in image_at and item.audio in sound_at
    ]
    pairs_P2 = np.array(list(dict.fromkeys(both)), int).reshape(-1, 2)
    image_groups, sound_groups = groups(pairs_P2, len(image_at), len(sound_at))
    label_of = {label: number for number, label in enumerate(pairs.labels)}

    def media(
        kind: str, at: Mapping[Path, int], groups_N: np.ndarray, vectors: FileVectors, texts: TextVectors, dim: int
    ) -> tuple[Media, list[str]]:
        """The images or sounds, and the captions of those that have one."""
        labels_N = np.full(len(at), NONE)
        captions: dict[int, str] = {}
        for item in pairs.items:
            if (number := at.get(getattr(item, kind))) is not None:
                if item.label and labels_N[number] == NONE:
                    labels_N[number] = label_of[item.label]
                if item.caption:
                    captions.setdefault(number, item.caption)
        prompt = IMAGE_PROMPT if kind == "image" else SOUND_PROMPT
        return Media(
            vectors_NE=_stacked(vectors, at, dim),
            groups_N=groups_N,
            labels_N=labels_N,
            prompts_CE=_stacked(texts, map(prompt.format, label_of), dim) if label_of else None,
            captioned_A=np.array(list(captions), int),
            caption_AE=_stacked(texts, captions.values(), dim),
        ), list(captions.values())

    image_media, captions = media("image", image_at, image_groups, images, source_texts, dims[0])
    sound_media, _ = media("audio", sound_at, sound_groups, sounds, target_texts, dims[1])
    image_caption_AE = _stacked(target_texts, captions, dims[1])
    return PairVectors(images=image_media, sounds=sound_media, pairs_P2=pairs_P2, image_caption_AE=image_caption_AE)


def _stacked(vectors: Mapping[Any, np.ndarray], keys: Iterable[Any], dim: int) -> Float[np.ndarray, "N E"]:
    rows = [vectors[key] for key in keys]
    return np.stack(rows).astype(np.float32) if rows else np.zeros((0, dim), np.float32)


def groups(
    pairs_P2: Int[np.ndarray, "P 2"], images: int, sounds: int
) -> tuple[Int[np.ndarray, "B"], Int[np.ndarray, "N"]]:
    """Gives all images and sounds that pairs connect, directly or through others, one number; NONE to all else."""
    ends = pairs_P2[:, 0], images + pairs_P2[:, 1]
    links = scipy.sparse.coo_array((np.ones(len(pairs_P2)), ends), shape=(images + sounds, images + sounds))
    count, component_of = scipy.sparse.csgraph.connected_components(links, directed=False)
    number_of = np.full(count, NONE)
    number_of[component_of[pairs_P2[:, 0]]] = np.arange(len(pairs_P2))  # the number of a group's last pair
    return number_of[component_of[:images]], number_of[component_of[images:]]


class Side(NamedTuple):
    """The raw vectors of one space: the evaluated captions, and images ("source") or sounds ("target"). text, other:
    the names of both in `vectors.npz`."""

    space: str
    text: str
    other: str
    text_NE: Shaped[np.ndarray, "N E"]
    media: Media

    @property
    def own_other_AE(self) -> Float[np.ndarray, "A E"]:
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
        captions = Captions(pairs.images.vectors_NE[:0], pairs.sounds.vectors_NE[:0])
    if pairs is None:
        pairs = PairVectors.of(Media.of(captions.source_NS[:0]), Media.of(captions.target_NE[:0]))
    return [
        Side("source", "source_text", "source_image", captions.source_NS, pairs.images),
        Side("target", "target_text", "target_audio", captions.target_NE, pairs.sounds),
    ]

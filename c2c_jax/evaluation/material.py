"""What an evaluation looks at, as arrays: held-out captions, and pictures and sounds with what is known of them."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Shaped

from c2c_jax.evaluation.image_sound import NONE, ImageSounds
from c2c_jax.evaluation.manifest import Item


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Captions:
    """Raw vectors of captions in both spaces, row i of one and row i of the other. told: where they are from."""

    source_NS: Float[np.ndarray, "N S"]
    target_NE: Float[np.ndarray, "N E"]
    told: str


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PairMaterial:
    """Pictures and sounds, and what belongs to them.

    given: different pictures and sounds. pairs_P2: numbers of a picture and of its sound. captioned_images,
    captioned_audios: numbers of pictures, and of sounds, with a caption, in the order of image_caption_AS and
    audio_caption_DE, its vectors in the source and the target space; image_caption_AE: those of the pictures' captions
    in the target space. label_prompts_CS: source vectors of the classes' prompts, by label; None without classes.
    """

    given: ImageSounds
    pairs_P2: Int[np.ndarray, "P 2"]
    captioned_images: Int[np.ndarray, "A"]
    image_caption_AS: Float[np.ndarray, "A S"]
    image_caption_AE: Float[np.ndarray, "A E"]
    captioned_audios: Int[np.ndarray, "D"]
    audio_caption_DE: Float[np.ndarray, "D E"]
    label_prompts_CS: Float[np.ndarray, "C S"] | None

    @property
    def paired_images(self) -> Float[np.ndarray, "P S"]:
        """Raw source vectors of the pairs' pictures."""
        return self.given.image_BS[self.pairs_P2[:, 0]]

    @property
    def paired_audios(self) -> Float[np.ndarray, "P E"]:
        """Audio vectors of the pairs' sounds."""
        return self.given.audio_NE[self.pairs_P2[:, 1]]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Side:
    """The raw vectors of one space: texts, and pictures (source space) or sounds (target space).

    text_NE: the evaluated captions. other_ME: all pictures or sounds. own_text_AE, own_other_AE: captions of pictures
    or sounds, and the pictures or sounds that they describe, row by row.
    """

    space: str
    text: str
    other: str
    text_NE: Shaped[np.ndarray, "N E"]
    other_ME: Float[np.ndarray, "M E"]
    own_text_AE: Float[np.ndarray, "A E"]
    own_other_AE: Float[np.ndarray, "A E"]

    @property
    def any_text_NE(self) -> Shaped[np.ndarray, "_ E"]:
        """The evaluated captions or, if there are none, the captions of pictures or sounds."""
        return self.text_NE if len(self.text_NE) else self.own_text_AE


def both_sides(captions: Captions | None, pairs: PairMaterial | None) -> tuple[Side, Side]:
    """The source space and the target space."""
    images = sounds = None
    if pairs:
        image_BS, audio_NE = pairs.given.image_BS, pairs.given.audio_NE
        images = image_BS, pairs.image_caption_AS, image_BS[pairs.captioned_images]
        sounds = audio_NE, pairs.audio_caption_DE, audio_NE[pairs.captioned_audios]
    return (
        _side("source", "source_image", captions.source_NS if captions else None, images),
        _side("target", "target_audio", captions.target_NE if captions else None, sounds),
    )


def _side(
    space: str, other: str, text_NE: np.ndarray | None, others: tuple[np.ndarray, np.ndarray, np.ndarray] | None
) -> Side:
    known = next((x.shape[1] for x in (text_NE, others and others[0]) if x is not None), 1)
    none = np.zeros((0, known), np.float32)
    other_ME, own_text_AE, own_other_AE = others or (none, none, none)
    return Side(
        space=space,
        text=f"{space}_text",
        other=other,
        text_NE=none if text_NE is None else text_NE,
        other_ME=other_ME,
        own_text_AE=own_text_AE,
        own_other_AE=own_other_AE,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoded:
    """Raw vectors by file and by text; what could not be read is not there. captions: of the captions to score, in
    their order, in both spaces."""

    images: Mapping[Path, Float[np.ndarray, "S"]]
    audios: Mapping[Path, Float[np.ndarray, "E"]]
    source_texts: Mapping[str, Float[np.ndarray, "S"]]
    target_texts: Mapping[str, Float[np.ndarray, "E"]]
    captions: tuple[Float[np.ndarray, "N S"], Float[np.ndarray, "N E"]] | None = None


def pair_material(
    items: Sequence[Item],
    labels: Sequence[str],
    prompts: tuple[Sequence[str], Sequence[str]],
    encoded: Encoded,
    dims: tuple[int, int],
) -> PairMaterial:
    """The arrays of a list of pictures and sounds.

    prompts: of each label, in the source space and in the target space. dims: widths of both. A file that comes more
    than once has the first label and the first caption that it is given.
    """
    S, E = dims
    images = list(dict.fromkeys(item.image for item in items if item.image and item.image in encoded.images))
    audios = list(dict.fromkeys(item.audio for item in items if item.audio and item.audio in encoded.audios))
    image_at, audio_at = ({path: number for number, path in enumerate(paths)} for paths in (images, audios))
    pairs = list(
        dict.fromkeys(
            (image_at[item.image], audio_at[item.audio])
            for item in items
            if item.image in image_at and item.audio in audio_at
        )
    )
    image_groups, audio_groups = groups(pairs, len(images), len(audios))
    image_labels, audio_labels = np.full(len(images), NONE), np.full(len(audios), NONE)
    label_at = {label: number for number, label in enumerate(labels)}
    image_captions: dict[int, str] = {}
    audio_captions: dict[int, str] = {}
    for item in items:
        for file, at, found, captions in (
            (item.image, image_at, image_labels, image_captions),
            (item.audio, audio_at, audio_labels, audio_captions),
        ):
            if file in at:
                if item.label and found[at[file]] == NONE:
                    found[at[file]] = label_at[item.label]
                if item.caption:
                    captions.setdefault(at[file], item.caption)
    source, target = encoded.source_texts, encoded.target_texts
    return PairMaterial(
        given=ImageSounds(
            image_BS=_stacked([encoded.images[path] for path in images], S),
            audio_NE=_stacked([encoded.audios[path] for path in audios], E),
            image_groups=image_groups,
            audio_groups=audio_groups,
            image_labels=image_labels,
            audio_labels=audio_labels,
            prompts_CE=_stacked([target[prompt] for prompt in prompts[1]], E) if labels else None,
        ),
        pairs_P2=np.array(pairs, int).reshape(-1, 2),
        captioned_images=np.array(list(image_captions), int),
        image_caption_AS=_stacked([source[text] for text in image_captions.values()], S),
        image_caption_AE=_stacked([target[text] for text in image_captions.values()], E),
        captioned_audios=np.array(list(audio_captions), int),
        audio_caption_DE=_stacked([target[text] for text in audio_captions.values()], E),
        label_prompts_CS=_stacked([source[prompt] for prompt in prompts[0]], S) if labels else None,
    )


def groups(
    pairs: Sequence[tuple[int, int]], images: int, audios: int
) -> tuple[Int[np.ndarray, "B"], Int[np.ndarray, "N"]]:
    """One number for all pictures, and all sounds, that pairs hold together, directly or through others; NONE for what
    is in no pair."""
    image_groups, audio_groups = np.full(images, NONE), np.full(audios, NONE)
    for number, (image, audio) in enumerate(pairs):
        for before in {int(image_groups[image]), int(audio_groups[audio])} - {NONE}:
            image_groups[image_groups == before] = number
            audio_groups[audio_groups == before] = number
        image_groups[image] = audio_groups[audio] = number
    return image_groups, audio_groups


def _stacked(vectors: Sequence[np.ndarray], dim: int) -> Float[np.ndarray, "N E"]:
    return np.stack(vectors).astype(np.float32) if vectors else np.zeros((0, dim), np.float32)

"""Reads published vectors from a folder of .npz files, and centres them by the means of their modalities."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from c2c_jax.data.arrays import space_of_array, store_of_arrays
from c2c_jax.data.store import Store
from c2c_jax.errors import StoreError
from c2c_jax.io.arrays import read_npz
from c2c_jax.io.vectors import unit_rows

MAX_BYTES = 2**28  # of the arrays of one file
ADVICE = "docs/recipe.md says where each file comes from"
# CIFAR-10's classes that have a counterpart among ESC-50's.
COUNTERPARTS = {
    "airplane": ("airplane",),
    "automobile": ("car_horn", "engine"),
    "bird": ("chirping_birds", "crow"),
    "cat": ("cat",),
    "dog": ("dog",),
    "frog": ("frog",),
    "truck": ("engine", "car_horn"),
}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Material:
    """Unit vectors, float32. S: CLIP ViT-B/32, 512 wide; E: e5-small, 384 wide; A: LAION CLAP, 512 wide.

    text_NS, text_NE: of the same 2,646 texts, object names and captions of photographs.
    image_PS, caption_PE: 990 photographs and a caption of each, none of them among the texts. general_S: the mean of
    images of all kinds. small_CS: CIFAR-10 images; small_classes_C: their classes. audio_QA, written_QA,
    written_QE: 497 sounds of AudioCaps and their captions. audio_NA: 1,600 sounds of ESC-50; audio_classes_N: their
    classes; class_text_KA: those classes as texts, by `classes`.
    """

    text_NS: Float[np.ndarray, "N S"]
    text_NE: Float[np.ndarray, "N E"]
    image_PS: Float[np.ndarray, "P S"]
    caption_PE: Float[np.ndarray, "P E"]
    general_S: Float[np.ndarray, "S"]
    small_CS: Float[np.ndarray, "C S"]
    small_classes_C: Sequence[str]
    audio_QA: Float[np.ndarray, "Q A"]
    written_QA: Float[np.ndarray, "Q A"]
    written_QE: Float[np.ndarray, "Q E"]
    audio_NA: Float[np.ndarray, "M A"]
    audio_classes_N: Int[np.ndarray, "M"]
    class_text_KA: Float[np.ndarray, "K A"]
    classes: Sequence[str]

    @classmethod
    def read(cls, folder: Path) -> "Material":
        """Reads all files. Raises StoreError for a file that is missing or damaged."""

        def arrays(name: str, *keys: str) -> list[np.ndarray]:
            contents = read_npz(folder / f"{name}.npz", keys, MAX_BYTES, StoreError, ADVICE)
            if missing := [key for key in keys if key not in contents]:
                raise StoreError(f"{folder / name}.npz holds no {', '.join(missing)}: {ADVICE}")
            return [contents[key] for key in keys]

        (label_NS,) = arrays("clip_b32_text_labels", "text")
        caption_NS, captions = arrays("clip_b32_flickr8k_100x5", "text", "caption")
        image_PS, of_photographs = arrays("clip_b32_flickr8k_1000img", "image", "caption")
        label_NE, caption_NE, photograph_PE, written_QE = arrays(
            "e5_texts", "labels", "flickr8k_100x5", "flickr8k_1000img", "audiocaps497"
        )
        (general_S,) = arrays("clip_image_means_splice", "clip_ViT-B-32")
        small_CS, small_C, small_classes = arrays("clip_b32_cifar10_250", "image", "label", "classes")
        audio_QA, written_QA = arrays("clap_audiocaps497", "audio", "text")
        audio_NA, audio_N, classes, class_text_KA = arrays(
            "clap_esc50_folds1to4", "audio", "label", "classes", "class_text"
        )
        is_new_P = ~np.isin(of_photographs, captions)
        return cls(
            text_NS=unit32(np.concatenate([label_NS, caption_NS])),
            text_NE=unit32(np.concatenate([label_NE, caption_NE])),
            image_PS=unit32(image_PS[is_new_P]),
            caption_PE=unit32(photograph_PE[is_new_P]),
            general_S=general_S.astype(np.float32),
            small_CS=unit32(small_CS),
            small_classes_C=[str(small_classes[label]) for label in small_C],
            audio_QA=unit32(audio_QA),
            written_QA=unit32(written_QA),
            written_QE=unit32(written_QE),
            audio_NA=unit32(audio_NA),
            audio_classes_N=audio_N,
            class_text_KA=unit32(class_text_KA),
            classes=[str(name) for name in classes],
        )


def unit32(x_ND: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    return unit_rows(x_ND).astype(np.float32)


def centred(x_ND: Float[np.ndarray, "N D"], mean_D: Float[np.ndarray, "D"]) -> Float[np.ndarray, "N D"]:
    """Unit vectors minus the mean of their modality, scaled to unit length again."""
    return unit32(unit_rows(x_ND) - mean_D[None])


def mean_of(x_ND: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "D"]:
    """The mean of unit vectors."""
    return unit_rows(x_ND).mean(axis=0).astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """How a recipe gets vectors of texts and images. "raw": unchanged; "moved": images are shifted by the
    difference of the means of texts and images; "centred": all are centred by the mean of their own modality."""

    kind: str
    source_mean_S: Float[np.ndarray, "S"]
    target_mean_E: Float[np.ndarray, "E"]

    @classmethod
    def of(cls, kind: str, text_NS: Float[np.ndarray, "N S"], text_NE: Float[np.ndarray, "N E"]) -> "View":
        return cls(kind=kind, source_mean_S=mean_of(text_NS), target_mean_E=mean_of(text_NE))

    def texts(
        self, text_NS: Float[np.ndarray, "N S"], text_NE: Float[np.ndarray, "N E"]
    ) -> tuple[Float[np.ndarray, "N S"], Float[np.ndarray, "N E"]]:
        """The vectors to train on."""
        if self.kind != "centred":
            return text_NS, text_NE
        return centred(text_NS, self.source_mean_S), centred(text_NE, self.target_mean_E)

    def images(self, image_PS: Float[np.ndarray, "P S"], mean_S: Float[np.ndarray, "S"]) -> Float[np.ndarray, "P S"]:
        """The vectors to translate. mean_S: mean of images."""
        if self.kind == "raw":
            return image_PS
        if self.kind == "moved":
            return (image_PS - mean_S[None] + self.source_mean_S[None]).astype(np.float32)
        return centred(image_PS, mean_S)

    def translated(self, vector_PE: Float[np.ndarray, "P E"]) -> Float[np.ndarray, "P E"]:
        """Translations for the comparison with centred targets."""
        return vector_PE if self.kind == "centred" else centred(vector_PE, self.target_mean_E)


def store_of(text_NS: Float[np.ndarray, "N S"], text_NE: Float[np.ndarray, "N E"], workdir: Path) -> Store:
    """Writes the texts' vectors to a store in the workdir, unless it exists."""
    spaces = space_of_array("source", text_NS), space_of_array("target", text_NE)
    key = hashlib.sha256("".join(space.fingerprint for space in spaces).encode()).hexdigest()[:16]
    return store_of_arrays(workdir / f"store-{key}", text_NS, text_NE, spaces, dtype="float32")

"""All rows of an evaluation from arrays: every method in every task, and reference scores that need no translator."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from c2c_jax.evaluation.bootstrap import Bootstrap
from c2c_jax.evaluation.geometry import gap_rows, uniformity_rows, unpaired_rows
from c2c_jax.evaluation.methods import MIN_PAIRS, Method, oracle
from c2c_jax.evaluation.results import TASKS, Missing, Row
from c2c_jax.evaluation.retrieval import Scorer, chance_caption_rows, chance_image_audio_rows
from c2c_jax.evaluation.scoring import Centring, ScoringMeans
from c2c_jax.evaluation.vectors import NONE, Captions, Media, PairVectors, both_sides
from c2c_jax.io.vectors import unit_rows


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Tasks:
    """The vectors to evaluate on, and how to score.

    csls: number of neighbours for CSLS scores; None: no such scores. means: for centred scores; None: no such scores.
    """

    captions: Captions | None = None
    pairs: PairVectors | None = None
    bootstrap: Bootstrap = Bootstrap()
    csls: int | None = None
    means: ScoringMeans | None = None

    def method_rows(self, method: Method) -> tuple[list[Row], dict[str, np.ndarray]]:
        """Scores a method in all tasks. Also returns its translated vectors by their names in `vectors.npz`."""
        rows: list[Row] = []
        vectors: dict[str, np.ndarray] = {}
        centring = self.means.of_method(method) if self.means else Centring()
        if captions := self.captions:
            text_NE = vectors["translated_text"] = method.of_texts(captions.source_NS)
            caption_centring = centring
            if self.means and not self.means.is_stored:  # the references are the evaluated captions themselves
                caption_centring = dataclasses.replace(centring, reference_RE=None)
            rows += self._scorer(method.name, caption_centring).caption_rows(text_NE, captions.target_NE)
            gap = "translated_text", text_NE, "target_text", captions.target_NE
            rows += gap_rows(method.name, *gap, self.bootstrap)
            rows += uniformity_rows(method.name, "translated_text", text_NE, self.bootstrap)
        if not (pairs := self.pairs):
            return rows, vectors
        image_BS, prompts_CE, audio = pairs.images.vectors_NE, None, pairs.audio
        image_BE = method.of_images(image_BS) if len(image_BS) else audio.vectors_NE[:0]
        if pairs.images.prompts_CE is not None and (audio.labels_N != NONE).any():
            prompts_CE = method.of_texts(pairs.images.prompts_CE)
        rows += self._scorer(method.name, centring).image_audio_rows(image_BE, pairs, prompts_CE)
        if len(image_BE):
            paired_PE = image_BE[pairs.pairs_P2[:, 0]] if len(pairs.pairs_P2) else image_BE
            vectors["translated_image"] = paired_PE
            if len(pairs.pairs_P2) > 1:
                gap = "translated_image", paired_PE, "target_audio", pairs.paired_audio
                rows += gap_rows(method.name, *gap, self.bootstrap)
                image_BE = paired_PE
            rows += uniformity_rows(method.name, "translated_image", image_BE, self.bootstrap)
        return rows, vectors

    def space_rows(self) -> list[Row]:
        """Measures the gaps of the two spaces before translation, as method "spaces".

        Texts are the captions of the images and sounds. If these have none, the evaluated captions are used, unpaired.
        """
        rows: list[Row] = []
        for side in both_sides(self.captions, self.pairs):
            media_ME, caption_AE = side.media.vectors_NE, side.media.caption_AE
            if len(caption_AE) > 1:
                gap = side.text, caption_AE, side.other, side.captioned_media_AE
                rows += gap_rows("spaces", *gap, self.bootstrap)
            elif len(side.text_NE) and len(media_ME):
                gap = side.text, side.text_NE, side.other, media_ME
                rows += gap_rows("spaces", *gap, self.bootstrap, is_paired=False)
            rows += uniformity_rows("spaces", side.text, side.any_text_NE, self.bootstrap)
            rows += uniformity_rows("spaces", side.other, media_ME, self.bootstrap)
            rows += unpaired_rows("spaces", side.text, side.any_text_NE)
        return rows

    def reference_rows(self) -> tuple[list[Row], list[Missing]]:
        """Scores references that need no translator; also returns what could not be computed.

        The methods: "label_prompts": the sound prompt of the class whose image prompt is nearest to the image.
        "caption": the image's caption. "sound": the sound itself. "oracle": see `methods.oracle`. "chance": a random
        ranking.
        """
        rows: list[Row] = []
        missing: list[Missing] = []
        if self.captions:
            rows += chance_caption_rows(len(self.captions.source_NS))
            if len(self.captions.source_NS) == 1:
                missing.append(Missing(what="captions: recall@k", why="one caption: nothing to retrieve among"))
        if not (pairs := self.pairs):
            return rows, missing
        centring, means, images, audio = Centring(), self.means, pairs.images, pairs.audio
        if means:  # texts take the place of translated images
            centring = Centring(text_E=means.text_E, image_E=means.text_E, reference_RE=means.reference_HE)
        if len({*audio.groups_N.tolist()} - {NONE}) == 1:
            missing.append(Missing(what="images and sounds: recall@k", why="one pair: nothing to retrieve among"))
        if audio.prompts_CE is None or images.prompts_CE is None:
            missing.append(Missing(what="label_prompts", why="no labels; pass --pairs with a label column"))
        else:
            nearest_B = np.argmax(unit_rows(images.vectors_NE) @ unit_rows(images.prompts_CE).T, axis=1)
            scorer = self._scorer("label_prompts", centring)
            rows += scorer.image_audio_rows(audio.prompts_CE[nearest_B], pairs, audio.prompts_CE)
        scorer = self._scorer("caption", centring)
        rows += scorer.audio_caption_rows(audio)
        if len(images.captioned_A):
            order_A = np.argsort(images.captioned_A)
            images_A = images.captioned_A[order_A]
            rows += scorer.image_audio_rows(pairs.image_caption_AE[order_A], pairs, images_B=images_A)
            missing += _incomplete("caption", images, images_A)
        elif len(images.vectors_NE) or not len(audio.captioned_A):
            missing.append(Missing(what="caption", why="no captions; pass --pairs with a caption column"))
        rows += self._scorer("sound", centring).audio_rows(audio)
        if why := _no_oracle(pairs):
            missing.append(Missing(what="oracle", why=why))
        else:
            if means:  # the oracle places images among sounds; captions lie elsewhere and cannot be references
                centring = Centring(text_E=means.text_E, image_E=centring.modality_mean(audio.vectors_NE))
            groups_P = images.groups_N[pairs.pairs_P2[:, 0]]
            mapped_PE = oracle(pairs.paired_images, pairs.paired_audio, groups_P, self.bootstrap.seed)
            images_A, first_A = np.unique(pairs.pairs_P2[:, 0], return_index=True)
            rows += self._scorer("oracle", centring).image_audio_rows(mapped_PE[first_A], pairs, images_B=images_A)
            missing += _incomplete("oracle", images, images_A)
        return rows + chance_image_audio_rows(pairs), missing

    def _scorer(self, method: str, centring: Centring) -> Scorer:
        return Scorer(method, self.bootstrap, self.csls, centring)


def _incomplete(method: str, images: Media, images_A: Int[np.ndarray, "A"]) -> list[Missing]:
    """The direction in which a method cannot be scored because it translates only some of the images."""
    numbers = images.groups_N, images.labels_N
    if all(np.isin(np.flatnonzero(numbers_N != NONE), images_A).all() for numbers_N in numbers):
        return []
    has = f"it has {len(images_A):,} of {len(images.vectors_NE):,} images"
    return [Missing(what=f"{method}, sounds → images", why=f"{has}; among fewer candidates it would score too high")]


def _no_oracle(pairs: PairVectors) -> str:
    """The reason why there is no oracle; "" if there is one."""
    if not len(pairs.images.vectors_NE):
        return "no images"
    if not len(pairs.audio.vectors_NE):
        return "no sounds that could be read"
    count = len({*pairs.images.groups_N[pairs.pairs_P2[:, 0]].tolist()})
    return f"{count} different pairs; it learns from {MIN_PAIRS} or more" if count < MIN_PAIRS else ""


def in_order(rows: Sequence[Row]) -> list[Row]:
    """Sorts rows by task and direction, and keeps their order otherwise."""
    order = list(TASKS)
    return sorted(rows, key=lambda row: (order.index(row.task), row.direction or ""))

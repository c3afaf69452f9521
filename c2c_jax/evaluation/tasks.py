"""All rows of an evaluation from arrays: every method in every task that there is material for."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from c2c_jax.evaluation import captions as of_captions
from c2c_jax.evaluation import image_sound as of_pairs
from c2c_jax.evaluation.bootstrap import Bootstrap
from c2c_jax.evaluation.gaps import ROWS as GAP_ROWS
from c2c_jax.evaluation.gaps import frechet_rows, paired_rows, stranger_rows, uniformity_rows, unpaired_rows
from c2c_jax.evaluation.material import Captions, PairMaterial, both_sides
from c2c_jax.evaluation.oracle import MIN_PAIRS, oracle
from c2c_jax.evaluation.references import Means
from c2c_jax.evaluation.rows import TASKS, Missing, Row, scoring_of
from c2c_jax.evaluation.scored import Centring
from c2c_jax.evaluation.text_sound import text_sound_rows
from c2c_jax.evaluation.translation import Method
from c2c_jax.io.vectors import unit_rows

NO_CAPTIONS = "no captions; pass --pairs with a caption column"
BY_LABEL = ("neighbour_accuracy", "map")  # figures whose candidates are those that have a class


def method_rows(
    method: Method,
    captions: Captions | None,
    pairs: PairMaterial | None,
    bootstrap: Bootstrap,
    csls: int | None = None,
    means: Means | None = None,
) -> tuple[list[Row], dict[str, np.ndarray]]:
    """The rows of a method in all tasks, and its vectors by their names in `vectors.npz`. means: for centred
    scores; None: there are none."""
    rows: list[Row] = []
    vectors: dict[str, np.ndarray] = {}
    centring = means.of_captions(method) if means else None
    if captions:
        text_NE = vectors["translated_text"] = method.of_texts(captions.source_NS)
        rows += of_captions.caption_rows(method.name, text_NE, captions.target_NE, bootstrap, csls, centring)
        rows += _gap_rows(method.name, "translated_text", text_NE, "target_text", captions.target_NE, bootstrap)
    if pairs:
        given = pairs.given
        image_BE = method.of_images(given.image_BS) if len(given.image_BS) else given.audio_NE[:0]
        if means and means.stored_RS is None:
            centring = means.of_pictures(method)
        scored = image_BE, given, bootstrap, csls, _prompted(method, pairs), centring
        rows += of_pairs.image_sound_rows(method.name, *scored)
    if pairs and len(image_BE):
        vectors["translated_image"] = image_BE[pairs.pairs_P2[:, 0]] if len(pairs.pairs_P2) else image_BE
        audio_PE = pairs.paired_audios
        if len(audio_PE) > 1:
            rows += _gap_rows(
                method.name, "translated_image", vectors["translated_image"], "target_audio", audio_PE, bootstrap
            )
        else:
            rows += uniformity_rows(method.name, "translated_image", image_BE[:GAP_ROWS], bootstrap)
    return rows, vectors


def _prompted(method: Method, pairs: PairMaterial) -> Float[np.ndarray, "C E"] | None:
    """The classes' picture prompts as a method translates them; None without sounds that have a class."""
    if pairs.label_prompts_CS is None or (pairs.given.audio_labels == of_pairs.NONE).all():
        return None
    return method.of_texts(pairs.label_prompts_CS)


def _gap_rows(
    method: str,
    x: str,
    x_NE: Float[np.ndarray, "N E"],
    y: str,
    y_NE: Float[np.ndarray, "N E"],
    bootstrap: Bootstrap,
) -> list[Row]:
    if len(x_NE) < 2:
        return []
    x_NE, y_NE = x_NE[:GAP_ROWS], y_NE[:GAP_ROWS]
    rows = paired_rows(method, x, x_NE, y, y_NE, bootstrap) + frechet_rows(method, x, x_NE, y, y_NE)
    return rows + uniformity_rows(method, x, x_NE, bootstrap)


def space_rows(captions: Captions | None, pairs: PairMaterial | None, bootstrap: Bootstrap) -> list[Row]:
    """The gaps of the two spaces as they are, before any translation, as method "spaces". Texts are the pictures' and
    sounds' own captions; where these have none, the held-out captions, which belong to none of them."""
    rows: list[Row] = []
    for side in both_sides(captions, pairs):
        own = side.own_text_AE[:GAP_ROWS], side.own_other_AE[:GAP_ROWS]
        if len(own[0]) > 1:
            rows += paired_rows("spaces", side.text, own[0], side.other, own[1], bootstrap)
            rows += frechet_rows("spaces", side.text, own[0], side.other, own[1])
        elif len(side.text_NE) and len(side.other_ME):
            unpaired = side.text, side.text_NE[:GAP_ROWS], side.other, side.other_ME[:GAP_ROWS]
            rows += unpaired_rows("spaces", *unpaired, bootstrap) + frechet_rows("spaces", *unpaired)
        rows += uniformity_rows("spaces", side.text, side.any_text_NE, bootstrap)
        rows += uniformity_rows("spaces", side.other, side.other_ME, bootstrap)
        rows += stranger_rows("spaces", side.text, side.any_text_NE[:GAP_ROWS])
    return rows


def reference_rows(
    captions: Captions | None,
    pairs: PairMaterial | None,
    bootstrap: Bootstrap,
    csls: int | None = None,
    means: Means | None = None,
) -> tuple[list[Row], list[Missing]]:
    """Rows of what needs no translator: chance, label prompts, the true caption, the sound itself, and the oracle; and
    what could not be computed, of these or for all methods. means: for centred scores; None: there are none."""
    rows: list[Row] = []
    missing: list[Missing] = []
    if captions:
        rows += of_captions.chance_rows(len(captions.source_NS))
        if len(captions.source_NS) == 1:
            missing.append(Missing(what="captions: recall@k", why="one caption: nothing to retrieve among"))
    if not pairs:
        return rows, missing
    given, centring = pairs.given, means.of_texts if means else None
    if len(set(given.audio_groups.tolist()) - {of_pairs.NONE}) == 1:
        missing.append(Missing(what="images and sounds: recall@k", why="one pair: nothing to retrieve among"))
    if pairs.label_prompts_CS is None or given.prompts_CE is None:
        missing.append(Missing(what="label_prompts", why="no labels; pass --pairs with a label column"))
    else:  # it carries a picture prompt to the sound prompt of the same class
        nearest_B = np.argmax(unit_rows(given.image_BS) @ unit_rows(pairs.label_prompts_CS).T, axis=1)
        own = given.prompts_CE[nearest_B], given, bootstrap, csls, given.prompts_CE, centring
        rows += of_pairs.image_sound_rows("label_prompts", *own)
    rows += text_sound_rows(pairs.audio_caption_DE, pairs.captioned_audios, given.audio_NE, bootstrap, centring)
    if not len(given.image_BS):
        if not len(pairs.captioned_audios):
            missing.append(Missing(what="caption", why=NO_CAPTIONS))
        missing.append(Missing(what="oracle", why="no pictures"))
        return rows + of_pairs.sound_rows(given, bootstrap, centring) + of_pairs.chance_rows(given), missing
    if not len(pairs.captioned_images):
        missing.append(Missing(what="caption", why=NO_CAPTIONS))
    else:
        captioned_BE = pairs.image_caption_AE[np.argsort(pairs.captioned_images)]
        scored = pairs.captioned_images, given, bootstrap, csls, centring
        found, why = _rows_of_some("caption", captioned_BE, *scored)
        rows, missing = rows + found, missing + why
    if len(given.audio_NE):
        rows += of_pairs.sound_rows(given, bootstrap, centring)
    found, why = _oracle_rows(pairs, bootstrap, csls, means.of_sounds(given.audio_NE) if means else None)
    return rows + found + of_pairs.chance_rows(given), missing + why


def _rows_of_some(
    method: str,
    vectors_AE: Float[np.ndarray, "A E"],
    images_A: Int[np.ndarray, "A"],
    given: of_pairs.ImageSounds,
    bootstrap: Bootstrap,
    csls: int | None,
    centring: Centring | None,
) -> tuple[list[Row], list[Missing]]:
    """The rows of a method that has no vector of some pictures. images_A: numbers of those that it has, `vectors_AE` in
    their order. From sounds to images it is scored where it has all candidates: among fewer it would score too high."""
    has_B = np.isin(np.arange(len(given.image_BS)), images_A)
    rows = of_pairs.image_sound_rows(method, vectors_AE, given.with_pictures(has_B), bootstrap, csls, centring=centring)
    has_own, has_labelled = (
        has_B[names_B != of_pairs.NONE].all() for names_B in (given.image_groups, given.image_labels)
    )
    kept = [
        row
        for row in rows
        if row.task != "sounds_to_images" or (has_labelled if scoring_of(row.metric)[1] in BY_LABEL else has_own)
    ]
    if len(kept) == len(rows):
        return rows, []
    why = f"it has {has_B.sum():,} of {len(has_B):,} pictures; among fewer candidates it would score too high"
    return kept, [Missing(what=f"{method}, sounds → images", why=why)]


def _oracle_rows(
    pairs: PairMaterial, bootstrap: Bootstrap, csls: int | None, centring: Centring | None
) -> tuple[list[Row], list[Missing]]:
    groups_P = pairs.given.image_groups[pairs.pairs_P2[:, 0]]
    if not len(pairs.given.audio_NE):
        return [], [Missing(what="oracle", why="no sounds that could be read")]
    if (different := len(set(groups_P.tolist()))) < MIN_PAIRS:
        why = f"{different} different pairs; it learns from {MIN_PAIRS} or more"
        return [], [Missing(what="oracle", why=why)]
    mapped_PE = oracle(pairs.paired_images, pairs.paired_audios, groups_P, bootstrap.seed)
    numbers_A, first_A = np.unique(pairs.pairs_P2[:, 0], return_index=True)
    return _rows_of_some("oracle", mapped_PE[first_A], numbers_A, pairs.given, bootstrap, csls, centring)


def in_order(rows: Sequence[Row]) -> list[Row]:
    """By task; within one, as they come."""
    order = list(TASKS)
    return sorted(rows, key=lambda row: (order.index(row.task), row.direction or ""))

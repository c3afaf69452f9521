"""Describes a pair of spaces: where texts, images and sounds lie, and how close the map between their texts is to a
rotation."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from c2c_jax.evaluation.bootstrap import Bootstrap
from c2c_jax.evaluation.gaps import MAX_PAIRED_ROWS, MAX_ROWS, centred_by_own, gap_length, unpaired_cosine
from c2c_jax.evaluation.methods import Method
from c2c_jax.evaluation.retrieval import Scorer
from c2c_jax.evaluation.rows import Missing, Row
from c2c_jax.evaluation.scoring import centred_rows, cosines
from c2c_jax.evaluation.vectors import Captions, Side
from c2c_jax.io.vectors import unit_rows
from c2c_jax.retrieval.nearest import paired_ranks
from c2c_jax.retrieval.scoring import MIN_TO_CENTRE
from c2c_jax.translator.centring import ModalityMeans

OTHERS = {"source": "images", "target": "sounds"}
LINEAR = ("procrustes", "ridge")


def geometry_rows(sides: Sequence[Side], bootstrap: Bootstrap) -> tuple[list[Row], list[Missing]]:
    """Figures on both spaces, as far as there are texts and images or sounds; the method of a row is "source" or
    "target". Vectors are scaled to unit length; at most 10,000 of each are used.

    Texts are the captions of the images or sounds or, if fewer than two of these have one, the evaluated captions.
    text_mean, image_or_sound_mean: length of the mean. gap: distance between the two means. cosine_of_means: their
    cosine. pair_cosine: mean cosine of an image or sound and its caption. text_strangers: mean cosine of two different
    texts. Names with "_centred" are the same after each modality is centred by its own mean, if there are MIN_TO_CENTRE
    rows or more. There, text_strangers_centred is the mean absolute cosine of two different texts, and
    strangers_centred that of a text and an image or sound that it does not describe: signed cosines of centred
    vectors average to 0.
    """
    rows: list[Row] = []
    missing: list[Missing] = []
    for side in sides:
        is_paired = len(side.media.caption_AE) > 1
        found = (side.any_text_NE, side.media.vectors_NE)
        if is_paired:
            found = side.media.caption_AE, side.own_other_AE
        text_NE, other_ME = (np.asarray(x_NE[:MAX_ROWS], np.float32) for x_NE in found)
        for metric, (value, n) in _figures(text_NE, other_ME, is_paired).items():
            interval = (None, None) if isinstance(value, float) else bootstrap.of_mean(value)
            rows.append(Row("geometry", side.space, metric, float(np.mean(value)), n, *interval))
        few = [
            f"{count} {kind}"
            for count, kind in ((len(text_NE), "texts"), (len(other_ME), OTHERS[side.space]))
            if 0 < count < MIN_TO_CENTRE
        ]
        if few:
            why = f"{' and '.join(few)}; centring needs {MIN_TO_CENTRE} or more"
            missing.append(Missing(what=f"geometry of the {side.space} space: centred figures", why=why))
    return rows, missing


def _figures(
    text_NE: Float[np.ndarray, "N E"], other_ME: Float[np.ndarray, "M E"], is_paired: bool
) -> dict[str, tuple[float | Float[np.ndarray, "n"], int]]:
    """(value, or values to average; n) by metric; see `geometry_rows`."""
    n, different = min(len(text_NE), len(other_ME)), len(np.unique(text_NE, axis=0))
    figures: dict[str, tuple[float | np.ndarray, int]] = {}
    for metric, x_NE in (("text_mean", text_NE), ("image_or_sound_mean", other_ME)):
        if len(x_NE):
            figures[metric] = float(np.linalg.norm(unit_rows(x_NE).mean(0))), len(x_NE)
    if n:
        figures["gap"] = gap_length(text_NE, other_ME), n
        means = unit_rows(text_NE).mean(0)[None], unit_rows(other_ME).mean(0)[None]
        figures["cosine_of_means"] = float(cosines(*means)[0]), n
    if is_paired:
        figures["pair_cosine"] = cosines(text_NE, other_ME), n
        if n >= MIN_TO_CENTRE:
            figures["pair_cosine_centred"] = cosines(centred_by_own(text_NE), centred_by_own(other_ME)), n
    if different > 1:
        figures["text_strangers"] = unpaired_cosine(text_NE), different
        if len(text_NE) >= MIN_TO_CENTRE:
            figures["text_strangers_centred"] = unpaired_absolute(text_NE, text_NE, is_paired=True), different
    if n >= MIN_TO_CENTRE:
        figures["strangers_centred"] = unpaired_absolute(text_NE, other_ME, is_paired=is_paired), n
    return figures


def unpaired_absolute(
    text_NE: Float[np.ndarray, "N E"], other_ME: Float[np.ndarray, "M E"], *, is_paired: bool
) -> float:
    """Mean absolute cosine of texts and the vectors that they do not describe, each set centred by its own mean; at
    most 2,000 rows of each. is_paired: text i describes row i of the other set, and every row whose text is the
    same."""
    text_NE, other_ME = text_NE[:MAX_PAIRED_ROWS], other_ME[:MAX_PAIRED_ROWS]
    cosine_NM = np.abs(centred_by_own(text_NE) @ centred_by_own(other_ME).T)
    if not is_paired:
        return float(cosine_NM.mean())
    _, number_N = np.unique(text_NE, axis=0, return_inverse=True)
    return float(cosine_NM[number_N[:, None] != number_N[None]].mean())


def rotation_rows(
    methods: Sequence[Method], captions: Captions | None, means: ModalityMeans | None, bootstrap: Bootstrap
) -> tuple[list[Row], list[Missing]]:
    """How well a rotation ("procrustes") and any linear map ("ridge") translate the evaluated captions. Both are fitted
    to the training captions' centred vectors.

    mean_cosine: of a translated caption and its own target vector, both centred by the captions' mean; 1 if the map is
    exact. recall@k and so on: of the own target vector among those of all evaluated captions, by the same cosines. gap:
    the means of the training captions; None if there is no store of them.
    """
    linear = [method for method in methods if method.name in LINEAR]
    if captions is None or means is None or not linear:
        why = "they need evaluated captions and the store of the training captions: pass --store"
        return [], [Missing(what="linear maps between the two text spaces", why=why)]
    target_E = means.mean("target_text")
    target_NE = centred_rows(captions.target_NE, target_E)
    rows: list[Row] = []
    for method in linear:
        scorer, mapped_NE = Scorer(method.name, bootstrap), centred_rows(method.of_texts(captions.source_NS), target_E)
        rows.append(scorer.mean_row("rotation", "mean_cosine", cosines(mapped_NE, target_NE)))
        if len(target_NE) > 1:
            rows += scorer.rank_rows("rotation", paired_ranks(mapped_NE, target_NE))
    return rows, []

"""Describes a pair of spaces: where texts, pictures and sounds lie, and how close the map between their texts is to a
rotation."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from c2c_jax.evaluation.bootstrap import Bootstrap
from c2c_jax.evaluation.captions import cosine_row, rank_rows
from c2c_jax.evaluation.gaps import ROWS, UNIFORMITY_ROWS, centred_by_own, cosines, gap_length, strangers
from c2c_jax.evaluation.material import Captions, PairMaterial, Side, both_sides
from c2c_jax.evaluation.rows import Missing, Row
from c2c_jax.evaluation.scored import centred_rows
from c2c_jax.evaluation.translation import Method
from c2c_jax.io.vectors import unit_rows
from c2c_jax.retrieval.nearest import paired_ranks
from c2c_jax.retrieval.scoring import MIN_TO_CENTRE
from c2c_jax.translator.centring import Gap

GEOMETRY, ROTATION = "geometry", "rotation"  # tasks
OTHERS = {"source": "images", "target": "sounds"}
LINEAR = ("procrustes", "ridge")


def geometry_rows(
    captions: Captions | None, pairs: PairMaterial | None, bootstrap: Bootstrap
) -> tuple[list[Row], list[Missing]]:
    """Figures on both spaces; the method of a row is "source" or "target". See `side_rows`."""
    rows: list[Row] = []
    missing: list[Missing] = []
    for side in both_sides(captions, pairs):
        found, why = side_rows(side, bootstrap)
        rows, missing = rows + found, missing + why
    return rows, missing


def side_rows(side: Side, bootstrap: Bootstrap) -> tuple[list[Row], list[Missing]]:
    """Figures on one space, as far as there are texts and pictures or sounds. Vectors are scaled to unit length; at
    most 10,000 of each are used.

    Texts are the captions of the pictures or sounds or, if fewer than two of these have one, the evaluated captions.
    text_mean, image_or_sound_mean: length of the mean. gap: distance between the two means. cosine_of_means: their
    cosine. pair_cosine: mean cosine of a picture or sound and its caption. text_strangers: see `gaps.strangers`.
    Names with "_centred" are the same after each modality is centred by its own mean, if there are MIN_TO_CENTRE
    rows or more. There, text_strangers_centred is the mean absolute cosine of two different texts, and
    strangers_centred that of a text and a picture or sound that it does not describe: signed cosines of centred
    vectors average to 0.
    """
    is_paired = len(side.own_text_AE) > 1
    found = (side.own_text_AE, side.own_other_AE) if is_paired else (side.any_text_NE, side.other_ME)
    text_NE, other_ME = (np.asarray(x_NE[:ROWS], np.float32) for x_NE in found)
    rows: list[Row] = []

    def add(metric: str, value: float, n: int, values_N: Float[np.ndarray, "N"] | None = None) -> None:
        low, high = (None, None) if values_N is None else bootstrap.of_mean(values_N)
        rows.append(Row(task=GEOMETRY, method=side.space, metric=metric, value=value, low=low, high=high, n=n))

    texts, others = len(text_NE), len(other_ME)
    n = min(texts, others)
    for metric, x_NE in (("text_mean", text_NE), ("image_or_sound_mean", other_ME)):
        if len(x_NE):
            add(metric, float(np.linalg.norm(unit_rows(x_NE).mean(0))), len(x_NE))
    if n:
        add("gap", gap_length(text_NE, other_ME), n)
        means = unit_rows(text_NE).mean(0)[None], unit_rows(other_ME).mean(0)[None]
        add("cosine_of_means", float(cosines(*means)[0]), n)
    if is_paired:
        cosine_A = cosines(text_NE, other_ME)
        add("pair_cosine", float(cosine_A.mean()), n, cosine_A)
        if n >= MIN_TO_CENTRE:
            cosine_A = cosines(centred_by_own(text_NE), centred_by_own(other_ME))
            add("pair_cosine_centred", float(cosine_A.mean()), n, cosine_A)
    different = len(np.unique(text_NE, axis=0))
    if different > 1:
        add("text_strangers", strangers(text_NE), different)
    if texts >= MIN_TO_CENTRE and different > 1:
        add("text_strangers_centred", absolute_strangers(text_NE, text_NE, is_paired=True), different)
    if n >= MIN_TO_CENTRE:
        add("strangers_centred", absolute_strangers(text_NE, other_ME, is_paired=is_paired), n)
    few = [
        f"{count} {kind}"
        for count, kind in ((texts, "texts"), (others, OTHERS[side.space]))
        if 0 < count < MIN_TO_CENTRE
    ]
    why = f"{' and '.join(few)}; centring needs {MIN_TO_CENTRE} or more"
    return rows, [Missing(what=f"geometry of the {side.space} space: centred figures", why=why)] if few else []


def absolute_strangers(
    text_NE: Float[np.ndarray, "N E"], other_ME: Float[np.ndarray, "M E"], *, is_paired: bool
) -> float:
    """Mean absolute cosine of texts and the vectors that they do not describe, each set centred by its own mean; at
    most 2,000 rows of each. is_paired: text i describes row i of the other set, and every row whose text is the
    same."""
    text_NE, other_ME = text_NE[:UNIFORMITY_ROWS], other_ME[:UNIFORMITY_ROWS]
    cosine_NM = np.abs(centred_by_own(text_NE) @ centred_by_own(other_ME).T)
    if not is_paired:
        return float(cosine_NM.mean())
    _, number_N = np.unique(text_NE, axis=0, return_inverse=True)
    return float(cosine_NM[number_N[:, None] != number_N[None]].mean())


def rotation_rows(
    methods: Sequence[Method], captions: Captions | None, gap: Gap | None, bootstrap: Bootstrap
) -> tuple[list[Row], list[Missing]]:
    """How well a rotation ("procrustes") and any linear map ("ridge") translate the evaluated captions. Both are fitted
    to the training captions' centred vectors.

    mean_cosine: of a translated caption and its own target vector, both centred by the captions' mean; 1 if the map is
    exact. recall@k and so on: of the own target vector among those of all evaluated captions, by the same cosines. gap:
    the means of the training captions; None if there is no store of them.
    """
    linear = [method for method in methods if method.name in LINEAR]
    if captions is None or gap is None or not linear:
        why = "they need evaluated captions and the store of the training captions: pass --store"
        return [], [Missing(what="linear maps between the two text spaces", why=why)]
    target_E, rows = gap.mean("target_text"), []
    target_NE = centred_rows(captions.target_NE, target_E)
    for method in linear:
        mapped_NE = centred_rows(method.of_texts(captions.source_NS), target_E)
        rows.append(cosine_row(method.name, mapped_NE, target_NE, bootstrap, None, ROTATION))
        if len(target_NE) > 1:
            rows += rank_rows(ROTATION, method.name, paired_ranks(mapped_NE, target_NE), bootstrap)
    return rows, []

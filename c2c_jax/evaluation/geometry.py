"""The geometry of a pair of spaces: where texts, pictures and sounds lie, and how far texts of one space are a rotation
of those of the other."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from c2c_jax.evaluation.bootstrap import Bootstrap
from c2c_jax.evaluation.captions import cosine_row, rank_rows
from c2c_jax.evaluation.gaps import ROWS, UNIFORMITY_ROWS, centred_by_own, cosines, gap_length, strangers, unit_rows
from c2c_jax.evaluation.material import Captions, PairMaterial, Side, both_sides
from c2c_jax.evaluation.rows import Missing, Row
from c2c_jax.evaluation.scored import centred_rows
from c2c_jax.evaluation.translation import Method
from c2c_jax.models.gap import Gap
from c2c_jax.retrieval import own_ranks
from c2c_jax.scoring import FEWEST

GEOMETRY, ROTATION = "geometry", "rotation"  # tasks
OTHERS = {"source": "images", "target": "sounds"}
LINEAR = ("procrustes", "ridge")


def geometry_rows(
    captions: Captions | None, pairs: PairMaterial | None, bootstrap: Bootstrap
) -> tuple[list[Row], list[Missing]]:
    """The geometry of the source space and of the target space, as methods "source" and "target"; see `side_rows`."""
    rows: list[Row] = []
    missing: list[Missing] = []
    for side in both_sides(captions, pairs):
        found, why = side_rows(side, bootstrap)
        rows, missing = rows + found, missing + why
    return rows, missing


def side_rows(side: Side, bootstrap: Bootstrap) -> tuple[list[Row], list[Missing]]:
    """The figures of one space, as far as there are texts and pictures or sounds; of unit vectors, 10,000 of each at
    most.

    Texts are the pictures' or sounds' own captions or, where fewer than two have one, the evaluated captions.
    text_mean, image_or_sound_mean: length of the mean. gap: distance of the means. cosine_of_means. pair_cosine: mean
    cosine of a picture or sound and its caption. text_strangers: see `gaps.strangers`. The same with "_centred": each
    modality less its own mean, of FEWEST rows or more, and of unit length again; text_strangers_centred and
    strangers_centred are the mean absolute cosine of two different texts, and of a text and a picture or sound that it
    is not the caption of, as signed ones of centred vectors are 0 on average.
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
        if n >= FEWEST:
            cosine_A = cosines(centred_by_own(text_NE), centred_by_own(other_ME))
            add("pair_cosine_centred", float(cosine_A.mean()), n, cosine_A)
    different = len(np.unique(text_NE, axis=0))
    if different > 1:
        add("text_strangers", strangers(text_NE), different)
    if texts >= FEWEST and different > 1:
        add("text_strangers_centred", absolute_strangers(text_NE, text_NE, is_paired=True), different)
    if n >= FEWEST:
        add("strangers_centred", absolute_strangers(text_NE, other_ME, is_paired=is_paired), n)
    few = [f"{count} {kind}" for count, kind in ((texts, "texts"), (others, OTHERS[side.space])) if 0 < count < FEWEST]
    why = f"{' and '.join(few)}; centring takes {FEWEST} or more"
    return rows, [Missing(what=f"geometry of the {side.space} space: centred figures", why=why)] if few else []


def absolute_strangers(
    text_NE: Float[np.ndarray, "N E"], other_ME: Float[np.ndarray, "M E"], *, is_paired: bool
) -> float:
    """Mean absolute cosine of a text and what it does not belong to, each centred by its own mean; of 2,000 rows of
    each at most. is_paired: row i of one belongs to row i of the other, and to all rows whose text is the same."""
    text_NE, other_ME = text_NE[:UNIFORMITY_ROWS], other_ME[:UNIFORMITY_ROWS]
    cosine_NM = np.abs(centred_by_own(text_NE) @ centred_by_own(other_ME).T)
    if not is_paired:
        return float(cosine_NM.mean())
    _, number_N = np.unique(text_NE, axis=0, return_inverse=True)
    return float(cosine_NM[number_N[:, None] != number_N[None]].mean())


def rotation_rows(
    methods: Sequence[Method], captions: Captions | None, gap: Gap | None, bootstrap: Bootstrap
) -> tuple[list[Row], list[Missing]]:
    """How near the map between the two text spaces is to a rotation, and to any linear map: the methods "procrustes"
    and "ridge", which are fitted to the training captions' centred vectors, on the evaluated captions.

    mean_cosine: of a caption as the map translates it and its own target vector, both centred by the captions' mean; 1:
    an exact rotation. recall@k and so on: of the own target vector among those of all evaluated captions, by the same
    cosines. gap: the means of training captions; None: there is no store of them.
    """
    linear = [method for method in methods if method.name in LINEAR]
    if captions is None or gap is None or not linear:
        why = "it takes evaluated captions and the store of the training captions: pass --store"
        return [], [Missing(what="linear maps between the two text spaces", why=why)]
    target_E, rows = gap.mean("target_text"), []
    target_NE = centred_rows(captions.target_NE, target_E)
    for method in linear:
        mapped_NE = centred_rows(method.of_texts(captions.source_NS), target_E)
        rows.append(cosine_row(method.name, mapped_NE, target_NE, bootstrap, None, ROTATION))
        if len(target_NE) > 1:
            rows += rank_rows(ROTATION, method.name, own_ranks(mapped_NE, target_NE), bootstrap)
    return rows, []

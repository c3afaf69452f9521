"""Pictures and sounds: does a picture's translation find its sound, or one of its class, and the other way about?"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from c2c_jax.evaluation import chance
from c2c_jax.evaluation.bootstrap import Bootstrap
from c2c_jax.evaluation.captions import rank_rows
from c2c_jax.evaluation.rows import Row
from c2c_jax.evaluation.scored import Centring, Compared, compared, own_mean
from c2c_jax.io.vectors import unit_rows
from c2c_jax.retrieval.nearest import label_ranks, paired_ranks

TASKS = ("images_to_sounds", "sounds_to_images")
NONE = -1  # the group or label of what has none


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ImageSounds:
    """Different pictures B and sounds N of an evaluation, as vectors of any length and whole numbers.

    image_BS: raw source vectors. audio_NE: audio vectors. image_groups, audio_groups: what belongs together has one
    number: a picture and its sound, and all others that share either of them. image_labels, audio_labels: classes.
    Without a counterpart or class: NONE. prompts_CE: target vectors of the classes' prompts, by label; None without
    them.
    """

    image_BS: Float[np.ndarray, "B S"]
    audio_NE: Float[np.ndarray, "N E"]
    image_groups: Int[np.ndarray, "B"]
    audio_groups: Int[np.ndarray, "N"]
    image_labels: Int[np.ndarray, "B"]
    audio_labels: Int[np.ndarray, "N"]
    prompts_CE: Float[np.ndarray, "C E"] | None = None

    @classmethod
    def of_pairs(
        cls,
        image_BS: Float[np.ndarray, "B S"],
        audio_BE: Float[np.ndarray, "B E"],
        labels_B: Int[np.ndarray, "B"] | None = None,
        prompts_CE: Float[np.ndarray, "C E"] | None = None,
    ) -> "ImageSounds":
        """Row i of both arrays is a pair, of class i of `labels_B`."""
        groups_B = np.arange(len(image_BS))
        labels_B = np.full(len(image_BS), NONE) if labels_B is None else labels_B
        return cls(
            image_BS=image_BS, audio_NE=audio_BE, image_groups=groups_B, audio_groups=groups_B, image_labels=labels_B,
            audio_labels=labels_B, prompts_CE=prompts_CE,
        )  # fmt: skip

    def with_pictures(self, kept_B: Bool[np.ndarray, "B"]) -> "ImageSounds":
        """With some of the pictures as queries; the sounds stay."""
        return dataclasses.replace(
            self,
            image_BS=self.image_BS[kept_B],
            image_groups=self.image_groups[kept_B],
            image_labels=self.image_labels[kept_B],
        )


def image_sound_rows(
    method: str,
    translated_BE: Float[np.ndarray, "B E"],
    given: ImageSounds,
    bootstrap: Bootstrap,
    csls: int | None = None,
    picture_prompts_CE: Float[np.ndarray, "C E"] | None = None,
    centring: Centring | None = None,
) -> list[Row]:
    """All figures of a method that brought the pictures to `translated_BE`, in both directions, as far as groups,
    labels and prompts allow. picture_prompts_CE: target vectors that it brought the classes' picture prompts to, by
    label; None if it has none. centring: adds the same figures by centred cosine and, from images to sounds, by centred
    cosine less hubness, if `scored.compared` has the means. Sounds are centred by the mean of all sounds, translated
    pictures as candidates by their own mean, and prompts by their own mean or, if there are few, by the captions'.

    recall@k, median_rank, mrr: of the own sound (or picture) among all that have one; of several, the first; none of a
    single pair, nor map and neighbour_accuracy among a single candidate, as there is nothing to go wrong. csls: see
    `captions.caption_rows`; where every picture has one sound, and every sound one picture. class_accuracy: the share
    of queries whose class's prompt is the nearest of all classes' prompts (zero-shot classification, Radford et al.
    2021, section 3.1, in the target space): of pictures among the sound prompts `given.prompts_CE`, of sounds among the
    translated picture prompts. neighbour_accuracy: the share of queries whose nearest candidate is of their class; what
    is as near as another's counts as behind it. map: the mean over queries of average precision, candidates of their
    class being relevant (Manning et al. 2008, eq. 8.8).
    """
    text_E, image_E, reference_RE = _means(centring)
    audio_NE, audio_E = given.audio_NE, own_mean(given.audio_NE) if centring else None
    forth = _Sides(given.image_groups, given.image_labels, given.audio_groups, given.audio_labels)
    references = {"reference_RE": reference_RE, "reference_mean_E": text_E}
    ways = (
        (forth, compared(translated_BE, audio_NE, image_E, **references), given.prompts_CE, image_E),
        (forth.back, compared(audio_NE, translated_BE, audio_E), picture_prompts_CE, audio_E),
    )
    rows: list[Row] = []
    for task, (sides, scorings, prompts_CE, query_E) in zip(TASKS, ways, strict=True):
        for one in scorings:
            rows += _own_rows(task, method, one, sides, bootstrap)
        if csls:
            rows += _csls_rows(task, method, scorings[0], sides, bootstrap, csls)
        if prompts_CE is not None:
            for one in compared(scorings[0].query_QE, prompts_CE, query_E, candidate_mean_E=text_E):
                rows += prompt_rows(method, one.query_QE, sides.labels_Q, one.candidate_NE, bootstrap, task, one.prefix)
        for one in scorings:
            rows += _label_rows(task, method, one, sides, bootstrap)
    return rows


def sound_rows(given: ImageSounds, bootstrap: Bootstrap, centring: Centring | None = None) -> list[Row]:
    """What the target space itself allows: each sound in a picture's place, as method "sound". Its class by the
    prompts, and its neighbours among the other sounds. centring: see `image_sound_rows`."""
    rows: list[Row] = []
    audio_NE, labels_N = given.audio_NE, given.audio_labels
    text_E, audio_E = _means(centring)[0], own_mean(audio_NE) if centring else None
    if given.prompts_CE is not None:
        for one in compared(audio_NE, given.prompts_CE, audio_E, candidate_mean_E=text_E):
            rows += prompt_rows("sound", one.query_QE, labels_N, one.candidate_NE, bootstrap, prefix=one.prefix)
    sides = _Sides(given.audio_groups, labels_N, given.audio_groups, labels_N)
    for one in compared(audio_NE, audio_NE, audio_E):
        rows += _label_rows("images_to_sounds", "sound", one, sides, bootstrap, without_itself=True)
    return rows


def _means(centring: Centring | None) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    return (centring.text_E, centring.image_E, centring.reference_RE) if centring else (None, None, None)


class _Sides(NamedTuple):
    """Groups and labels of queries and candidates."""

    groups_Q: Int[np.ndarray, "Q"]
    labels_Q: Int[np.ndarray, "Q"]
    groups_N: Int[np.ndarray, "N"]
    labels_N: Int[np.ndarray, "N"]

    @property
    def back(self) -> "_Sides":
        """The opposite direction: candidates as queries."""
        return _Sides(self.groups_N, self.labels_N, self.groups_Q, self.labels_Q)


def chance_rows(given: ImageSounds) -> list[Row]:
    """Of random rankings and of a class drawn at random."""
    sides = (given.image_groups, given.image_labels), (given.audio_groups, given.audio_labels)
    rows = []
    for task, (groups_Q, labels_Q), (groups_N, labels_N) in zip(TASKS, sides, reversed(sides), strict=True):
        several = len(set(groups_N[groups_N != NONE].tolist())) > 1
        for names_Q, names_N, rows_of, is_asked in (
            (groups_Q, groups_N, chance.own_rows, several),
            (labels_Q, labels_N, chance.label_rows, np.sum(labels_N != NONE) > 1),
        ):
            relevant_Q, n = _relevant(names_Q, names_N)
            if is_asked and (relevant_Q > 0).any():
                rows += rows_of(task, relevant_Q[relevant_Q > 0], n)
        labelled = int(np.sum(labels_Q != NONE))
        if given.prompts_CE is not None and labelled:
            value = 1 / len(given.prompts_CE)
            rows.append(Row(task=task, method="chance", metric="class_accuracy", value=value, n=labelled))
    return rows


def _relevant(names_Q: Int[np.ndarray, "Q"], names_N: Int[np.ndarray, "N"]) -> tuple[Int[np.ndarray, "Q"], int]:
    """How many candidates have each query's number, and among how many that have any."""
    known_N = names_N[names_N != NONE]
    found, counts = np.unique(known_N, return_counts=True)
    count_of = dict(zip(found.tolist(), counts.tolist(), strict=True))
    return np.array([count_of.get(name, 0) for name in names_Q.tolist()], int), len(known_N)


def _own_rows(task: str, method: str, scoring: Compared, sides: _Sides, bootstrap: Bootstrap) -> list[Row]:
    is_asked_Q, is_there_N = _that_belong(sides)
    if not is_asked_Q.any() or len(set(sides.groups_N[is_there_N].tolist())) < 2:
        return []
    some = scoring.some(is_asked_Q, is_there_N)
    groups = sides.groups_Q[is_asked_Q], sides.groups_N[is_there_N]
    ranks_Q, _ = label_ranks(some.query_QE, some.candidate_NE, *groups, penalty_N=some.penalty_N)
    return rank_rows(task, method, ranks_Q, bootstrap, prefix=scoring.prefix)


def _that_belong(sides: _Sides) -> tuple[Bool[np.ndarray, "Q"], Bool[np.ndarray, "N"]]:
    """Queries that have a counterpart, and candidates that may be one."""
    return np.isin(sides.groups_Q, sides.groups_N) & (sides.groups_Q != NONE), sides.groups_N != NONE


def _csls_rows(task: str, method: str, plain: Compared, sides: _Sides, bootstrap: Bootstrap, csls: int) -> list[Row]:
    """Ranks by CSLS; no rows unless queries and candidates correspond one to one."""
    is_asked_Q, is_there_N = _that_belong(sides)
    groups_Q, groups_N = sides.groups_Q[is_asked_Q], sides.groups_N[is_there_N]
    if len(groups_N) < 2 or not len(set(groups_N)) == len(groups_N) == len(set(groups_Q)) == len(groups_Q):
        return []
    some = plain.some(is_asked_Q, is_there_N)
    at_Q = np.argsort(groups_N)[np.searchsorted(np.sort(groups_N), groups_Q)]
    ranks_Q = paired_ranks(some.query_QE, some.candidate_NE[at_Q], csls=csls)
    return rank_rows(task, method, ranks_Q, bootstrap, prefix="csls_")


def prompt_rows(
    method: str,
    query_QE: Float[np.ndarray, "Q E"],
    labels_Q: Int[np.ndarray, "Q"],
    prompts_CE: Float[np.ndarray, "C E"],
    bootstrap: Bootstrap,
    task: str = "images_to_sounds",
    prefix: str = "",
) -> list[Row]:
    """class_accuracy: among queries that have a class, the share whose nearest prompt is that of their class. prefix:
    of the metric's name."""
    is_known_Q = labels_Q != NONE
    if not is_known_Q.any():
        return []
    nearest_Q = np.argmax(unit_rows(query_QE[is_known_Q]) @ unit_rows(prompts_CE).T, axis=1)
    return [_mean_row(task, method, f"{prefix}class_accuracy", nearest_Q == labels_Q[is_known_Q], bootstrap)]


def _label_rows(
    task: str, method: str, scoring: Compared, sides: _Sides, bootstrap: Bootstrap, without_itself: bool = False
) -> list[Row]:
    """Of queries that have a class, among candidates that have one; of classes without a candidate there are none."""
    is_asked_Q, is_there_N = sides.labels_Q != NONE, sides.labels_N != NONE
    if not is_asked_Q.any() or is_there_N.sum() < 2:
        return []
    some = scoring.some(is_asked_Q, is_there_N)
    labels = sides.labels_Q[is_asked_Q], sides.labels_N[is_there_N]
    ranks_Q, precision_Q = label_ranks(
        some.query_QE, some.candidate_NE, *labels, penalty_N=some.penalty_N, without_itself=without_itself
    )
    has_any_Q = np.isfinite(precision_Q)
    if not has_any_Q.any():
        return []
    return [
        _mean_row(task, method, f"{scoring.prefix}neighbour_accuracy", ranks_Q[has_any_Q] == 1, bootstrap),
        _mean_row(task, method, f"{scoring.prefix}map", precision_Q[has_any_Q], bootstrap),
    ]


def _mean_row(task: str, method: str, metric: str, values_Q: np.ndarray, bootstrap: Bootstrap) -> Row:
    values_Q = values_Q.astype(np.float64)
    low, high = bootstrap.of_mean(values_Q)
    return Row(
        task=task, method=method, metric=metric, value=float(values_Q.mean()), low=low, high=high, n=len(values_Q)
    )

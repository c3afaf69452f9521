"""Retrieval tasks: captions among captions, images among sounds, sound captions among sounds, and the other way."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int, Shaped

from c2c_jax.evaluation import chance
from c2c_jax.evaluation.bootstrap import Bootstrap
from c2c_jax.evaluation.rows import Row
from c2c_jax.evaluation.scoring import Centring, Compared, cosines
from c2c_jax.evaluation.vectors import NONE, Media, PairVectors
from c2c_jax.io.vectors import unit_rows
from c2c_jax.retrieval.nearest import label_ranks, paired_ranks


@dataclasses.dataclass(frozen=True)
class Scorer:
    """Scores the vectors of one method.

    method: its name. csls: also rank by CSLS with this number of neighbours, against hubs (Conneau et al. 2018, eq. 3);
    None: do not. centring: means for the centred scores, of which there are none by default; see `Centring.compare`.
    """

    method: str
    bootstrap: Bootstrap
    csls: int | None = None
    centring: Centring = Centring()

    def mean_row(self, task: str, metric: str, values_N: Shaped[np.ndarray, "N"], direction: str | None = None) -> Row:
        """The mean of one value for each query, with its interval."""
        values_N = np.asarray(values_N, np.float64)
        interval = self.bootstrap.of_mean(values_N)
        return Row(task, self.method, metric, float(values_N.mean()), len(values_N), *interval, direction)

    def rank_rows(
        self, task: str, ranks_N: Int[np.ndarray, "N"], direction: str | None = None, prefix: str = ""
    ) -> list[Row]:
        """Rows of the ranks, from 1, at which queries find what they look for.

        recall@k: the fraction of ranks up to k (1, 5, 10). median_rank. mrr: mean of 1/rank (Voorhees 1999, TREC-8
        question answering). prefix: of the metrics' names.
        """
        rows = [self.mean_row(task, f"{prefix}recall@{k}", ranks_N <= k, direction) for k in chance.RECALLS]
        interval = self.bootstrap.of_median(ranks_N.astype(np.float64))
        median, n = float(np.median(ranks_N)), len(ranks_N)
        rows.append(Row(task, self.method, f"{prefix}median_rank", median, n, *interval, direction))
        return [*rows, self.mean_row(task, f"{prefix}mrr", 1 / ranks_N, direction)]

    def caption_rows(self, translated_NE: Float[np.ndarray, "N E"], target_NE: Float[np.ndarray, "N E"]) -> list[Row]:
        """Retrieval among the same N captions, in both directions, and the mean cosine of a translation and its own
        target (as CLIP2CLAP's evaluation would have it). For one caption the cosine alone."""
        rows: list[Row] = []
        is_retrieval = len(target_NE) > 1
        for direction, query_NE, candidate_NE in (
            ("source_to_target", translated_NE, target_NE),
            ("target_to_source", target_NE, translated_NE),
        ):
            is_forth = direction == "source_to_target"
            scorings = self.centring.compare(query_NE, candidate_NE, self.centring.text_E, hubness=is_forth)
            for one in scorings if is_retrieval else ():
                ranks_N = paired_ranks(one.query_QE, one.candidate_NE, penalty_N=one.penalty_N)
                rows += self.rank_rows("captions", ranks_N, direction, one.prefix)
            if is_forth:
                rows.append(self.mean_row("captions", "mean_cosine", cosines(query_NE, candidate_NE), direction))
            if self.csls and is_retrieval:
                ranks_N = paired_ranks(query_NE, candidate_NE, csls=self.csls)
                rows += self.rank_rows("captions", ranks_N, direction, prefix="csls_")
        return rows

    def image_audio_rows(
        self,
        translated_BE: Float[np.ndarray, "B E"],
        pairs: PairVectors,
        prompts_CE: Float[np.ndarray, "C E"] | None = None,
        images_B: Int[np.ndarray, "B"] | None = None,
    ) -> list[Row]:
        """All figures of translated images and sounds, in both directions, as far as groups, labels and prompts allow.

        prompts_CE: the classes' image prompts as the method translates them; None: it translates none. images_B: the
        numbers of the translated images; None: all. Sounds are ranked among all images or not at all: among fewer the
        scores would be too high. For centred scores sounds are centred by the mean of all sounds, translated images as
        candidates by their own mean, and prompts by their own mean or, if there are few, by the captions'.

        recall@k, median_rank, mrr: of the own sound (or image) among all that have one; of several, the first; by CSLS
        if every image has one sound and every sound one image. neighbour_accuracy: fraction of queries whose nearest
        candidate is of their class; what is as near as another's counts as behind it. map: mean over queries of average
        precision, candidates of their class being relevant (Manning et al. 2008, eq. 8.8). None of these is given
        for a single candidate. class_accuracy: see `prompt_rows`; of images among the sound prompts, of sounds
        among the translated image prompts.
        """
        centring, images, sounds = self.centring, pairs.images, pairs.sounds
        sound_NE, sound_E = sounds.vectors_NE, centring.own_mean(sounds.vectors_NE)
        known = slice(None) if images_B is None else images_B
        own = images.groups_N[known], images.labels_N[known]
        candidates = _complete(images.groups_N, images_B), _complete(images.labels_N, images_B)
        forth = centring.compare(translated_BE, sound_NE, centring.image_E, hubness=True)
        back = centring.compare(sound_NE, translated_BE, sound_E)
        rows: list[Row] = []
        for task, scorings, groups, labels, query_prompts_CE, query_E in (
            (
                "images_to_sounds", forth, (own[0], sounds.groups_N), (own[1], sounds.labels_N), sounds.prompts_CE,
                centring.image_E,
            ),
            (
                "sounds_to_images", back, (sounds.groups_N, candidates[0]), (sounds.labels_N, candidates[1]),
                prompts_CE, sound_E,
            ),
        ):  # fmt: skip
            rows += self._paired_rows(task, scorings, *groups)
            if query_prompts_CE is not None:
                for one in centring.compare(scorings[0].query_QE, query_prompts_CE, query_E, centring.text_E):
                    rows += self.prompt_rows(task, one, labels[0])
            rows += self._label_rows(task, scorings, *labels)
        return rows

    def audio_rows(self, sounds: Media) -> list[Row]:
        """What the target space itself allows: each sound in an image's place. Its class by the prompts, and its
        neighbours among the other sounds."""
        sound_NE, sound_E = sounds.vectors_NE, self.centring.own_mean(sounds.vectors_NE)
        labels_N, rows = sounds.labels_N, []
        if sounds.prompts_CE is not None:
            for one in self.centring.compare(sound_NE, sounds.prompts_CE, sound_E, self.centring.text_E):
                rows += self.prompt_rows("images_to_sounds", one, labels_N)
        scorings = self.centring.compare(sound_NE, sound_NE, sound_E)
        return rows + self._label_rows("images_to_sounds", scorings, labels_N, labels_N, exclude_self=True)

    def audio_caption_rows(self, sounds: Media) -> list[Row]:
        """Retrieval in the target space alone: ranks of sounds' captions among all sounds, and of captioned sounds
        among the captions, with those of chance. No rows for a single candidate."""
        centring, sound_NE, caption_DE, own_D = self.centring, sounds.vectors_NE, sounds.caption_AE, sounds.captioned_A
        rows: list[Row] = []
        if len(own_D) and len(sound_NE) > 1:
            for one in centring.compare(caption_DE, sound_NE, centring.text_E, hubness=True):
                numbers = own_D, np.arange(len(sound_NE))
                ranks_D, _ = label_ranks(one.query_QE, one.candidate_NE, *numbers, penalty_N=one.penalty_N)
                rows += self.rank_rows("texts_to_sounds", ranks_D, prefix=one.prefix)
            rows += chance.rank_rows("texts_to_sounds", np.ones(len(own_D), int), len(sound_NE))
        if len(own_D) > 1:
            for one in centring.compare(sound_NE[own_D], caption_DE, centring.own_mean(sound_NE)):
                rows += self.rank_rows(
                    "sounds_to_texts", paired_ranks(one.query_QE, one.candidate_NE), prefix=one.prefix
                )
            rows += chance.rank_rows("sounds_to_texts", np.ones(len(own_D), int), len(own_D))
        return rows

    def prompt_rows(self, task: str, one: Compared, labels_Q: Int[np.ndarray, "Q"]) -> list[Row]:
        """class_accuracy: fraction of queries with a class whose nearest candidate, one prompt for each class, is that
        of their class (zero-shot classification, Radford et al. 2021, section 3.1). No row without such queries."""
        is_known_Q = labels_Q != NONE
        if not is_known_Q.any():
            return []
        nearest_Q = np.argmax(unit_rows(one.query_QE[is_known_Q]) @ unit_rows(one.candidate_NE).T, axis=1)
        return [self.mean_row(task, f"{one.prefix}class_accuracy", nearest_Q == labels_Q[is_known_Q])]

    def _paired_rows(
        self, task: str, scorings: list[Compared], groups_Q: np.ndarray, groups_N: np.ndarray
    ) -> list[Row]:
        """Ranks of the counterpart, of queries that have one among the candidates; by CSLS as well if queries and
        candidates correspond one to one."""
        is_query, is_candidate = np.isin(groups_Q, groups_N) & (groups_Q != NONE), groups_N != NONE
        groups_Q, groups_N = groups_Q[is_query], groups_N[is_candidate]
        different, rows = len(set(groups_N.tolist())), []
        if not len(groups_Q) or different < 2:
            return []
        for one in scorings:
            some = one.some(is_query, is_candidate)
            ranks_Q, _ = label_ranks(some.query_QE, some.candidate_NE, groups_Q, groups_N, penalty_N=some.penalty_N)
            rows += self.rank_rows(task, ranks_Q, prefix=one.prefix)
        if self.csls and different == len(groups_N) == len(groups_Q) == len(set(groups_Q.tolist())):
            plain = scorings[0].some(is_query, is_candidate)
            positions_Q = np.argsort(groups_N)[np.searchsorted(np.sort(groups_N), groups_Q)]
            ranks_Q = paired_ranks(plain.query_QE, plain.candidate_NE[positions_Q], csls=self.csls)
            rows += self.rank_rows(task, ranks_Q, prefix="csls_")
        return rows

    def _label_rows(
        self, task: str, scorings: list[Compared], labels_Q: np.ndarray, labels_N: np.ndarray, **options: bool
    ) -> list[Row]:
        """neighbour_accuracy and map of queries that have a class, among candidates that have one; not of queries
        without a candidate of their class."""
        is_query, is_candidate, rows = labels_Q != NONE, labels_N != NONE, []
        labels_Q, labels_N = labels_Q[is_query], labels_N[is_candidate]
        for one in scorings if len(labels_Q) and len(labels_N) > 1 else ():
            some = one.some(is_query, is_candidate)
            ranks_Q, precision_Q = label_ranks(
                some.query_QE, some.candidate_NE, labels_Q, labels_N, penalty_N=some.penalty_N, **options
            )
            has_any_Q = np.isfinite(precision_Q)
            if has_any_Q.any():
                rows.append(self.mean_row(task, f"{one.prefix}neighbour_accuracy", ranks_Q[has_any_Q] == 1))
                rows.append(self.mean_row(task, f"{one.prefix}map", precision_Q[has_any_Q]))
        return rows


def _complete(numbers_B: Int[np.ndarray, "B"], images_A: Int[np.ndarray, "A"] | None) -> Int[np.ndarray, "A"]:
    """The groups or labels of some images; NONE for all of these if another image has one."""
    if images_A is None:
        return numbers_B
    is_complete = np.isin(np.flatnonzero(numbers_B != NONE), images_A).all()
    return numbers_B[images_A] if is_complete else np.full(len(images_A), NONE)

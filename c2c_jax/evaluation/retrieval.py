"""Retrieval scores of a method, and the exact scores of a random ranking as method "chance"."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int, Shaped

from c2c_jax.evaluation.bootstrap import Bootstrap
from c2c_jax.evaluation.results import Row
from c2c_jax.evaluation.scoring import Centring, Comparison, cosines
from c2c_jax.evaluation.vectors import NONE, Media, PairVectors
from c2c_jax.io.vectors import unit_rows
from c2c_jax.retrieval.nearest import paired_ranks

RECALL_CUTOFFS = (1, 5, 10)  # k of recall@k


@dataclasses.dataclass(frozen=True)
class Scorer:
    """Scores the vectors of one method.

    method: its name. csls: number of neighbours for additional scores by CSLS, which corrects for hubs (Conneau et al.
    2018, eq. 3); None: no such scores. centring: means for the centred scores, see `Centring.compare`; the default
    gives none.
    """

    method: str
    bootstrap: Bootstrap
    csls: int | None = None
    centring: Centring = Centring()

    def mean_row(self, task: str, metric: str, values_N: Shaped[np.ndarray, "N"], direction: str | None = None) -> Row:
        """Averages one value per query into a row with a confidence interval."""
        values_N = np.asarray(values_N, np.float64)
        interval = self.bootstrap.of_mean(values_N)
        return Row(task, self.method, metric, float(values_N.mean()), len(values_N), *interval, direction)

    def rank_rows(
        self, task: str, ranks_N: Int[np.ndarray, "N"], direction: str | None = None, prefix: str = ""
    ) -> list[Row]:
        """Returns recall@k, median_rank and mrr of the ranks, from 1, of each query's relevant candidate.

        recall@k: fraction of ranks up to k, for k in RECALL_CUTOFFS. mrr: mean of 1/rank (Voorhees 1999, TREC-8
        question answering). prefix: of the metrics' names.
        """
        rows = [self.mean_row(task, f"{prefix}recall@{k}", ranks_N <= k, direction) for k in RECALL_CUTOFFS]
        interval = self.bootstrap.of_median(ranks_N.astype(np.float64))
        median, n = float(np.median(ranks_N)), len(ranks_N)
        rows.append(Row(task, self.method, f"{prefix}median_rank", median, n, *interval, direction))
        return [*rows, self.mean_row(task, f"{prefix}mrr", 1 / ranks_N, direction)]

    def caption_rows(self, translated_NE: Float[np.ndarray, "N E"], target_NE: Float[np.ndarray, "N E"]) -> list[Row]:
        """Scores retrieval among the same N captions in both directions, and the mean cosine of each translation and
        its own target, as CLIP2CLAP's evaluation does. A single caption has the cosine only."""
        rows: list[Row] = []
        is_retrieval = len(target_NE) > 1
        for direction, query_NE, candidate_NE in (
            ("source_to_target", translated_NE, target_NE),
            ("target_to_source", target_NE, translated_NE),
        ):
            is_forward = direction == "source_to_target"
            comparisons = self.centring.compare(query_NE, candidate_NE, self.centring.text_E, hubness=is_forward)
            for comparison in comparisons if is_retrieval else ():
                ranks_N = paired_ranks(comparison.query_QE, comparison.candidate_NE, penalty_N=comparison.penalty_N)
                rows += self.rank_rows("captions", ranks_N, direction, comparison.prefix)
            if is_forward:
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
        """Scores translated images against sounds in both directions, by their pairs, labels and prompts.

        prompts_CE: the classes' image prompts as the method translates them; None if it does not. images_B: indices of
        the translated images; None: all. If images that a sound task needs were not translated, that task has no rows:
        among fewer candidates the scores would be too high. For the centred scores, sounds and translated images as
        candidates are centred by their own means; prompts by their own mean or, if there are few, the captions' mean.

        recall@k, median_rank, mrr: rank of the query's own sound (or image) among all that belong to a pair; if it has
        several, of the first. CSLS scores are added if images and sounds correspond one to one. neighbour_accuracy:
        fraction of queries whose nearest candidate is of their class; in a tie, candidates of other classes come first.
        map: mean average precision, where candidates of the query's class are relevant (Manning et al. 2008, eq. 8.8).
        A single candidate gives none of these. class_accuracy: see `prompt_rows`; images among the sound prompts,
        sounds among the translated image prompts.
        """
        centring, images, audio = self.centring, pairs.images, pairs.audio
        audio_NE, audio_E = audio.vectors_NE, centring.modality_mean(audio.vectors_NE)
        chosen = slice(None) if images_B is None else images_B
        own = images.groups_N[chosen], images.labels_N[chosen]
        candidates = _complete(images.groups_N, images_B), _complete(images.labels_N, images_B)
        forward = centring.compare(translated_BE, audio_NE, centring.image_E, hubness=True)
        backward = centring.compare(audio_NE, translated_BE, audio_E)
        rows: list[Row] = []
        for task, comparisons, groups, labels, query_prompts_CE, query_E in (
            (
                "images_to_sounds", forward, (own[0], audio.groups_N), (own[1], audio.labels_N), audio.prompts_CE,
                centring.image_E,
            ),
            (
                "sounds_to_images", backward, (audio.groups_N, candidates[0]), (audio.labels_N, candidates[1]),
                prompts_CE, audio_E,
            ),
        ):  # fmt: skip
            rows += self._paired_rows(task, comparisons, *groups)
            if query_prompts_CE is not None:
                for comparison in centring.compare(comparisons[0].query_QE, query_prompts_CE, query_E, centring.text_E):
                    rows += self.prompt_rows(task, comparison, labels[0])
            rows += self._label_rows(task, comparisons, *labels)
        return rows

    def audio_rows(self, audio: Media) -> list[Row]:
        """Scores each sound in place of its translated image, as an upper bound: its class among the prompts, and its
        neighbours among the other sounds."""
        audio_NE, audio_E = audio.vectors_NE, self.centring.modality_mean(audio.vectors_NE)
        labels_N, rows = audio.labels_N, []
        if audio.prompts_CE is not None:
            for comparison in self.centring.compare(audio_NE, audio.prompts_CE, audio_E, self.centring.text_E):
                rows += self.prompt_rows("images_to_sounds", comparison, labels_N)
        comparisons = self.centring.compare(audio_NE, audio_NE, audio_E)
        return rows + self._label_rows("images_to_sounds", comparisons, labels_N, labels_N, exclude_self=True)

    def audio_caption_rows(self, audio: Media) -> list[Row]:
        """Scores retrieval within the target space: captions of sounds among all sounds, and captioned sounds among
        the captions, each with chance. A single candidate gives no rows."""
        centring, audio_NE, caption_AE, captioned_A = (
            self.centring,
            audio.vectors_NE,
            audio.caption_AE,
            audio.captioned_A,
        )
        rows: list[Row] = []
        if len(captioned_A) and len(audio_NE) > 1:
            for comparison in centring.compare(caption_AE, audio_NE, centring.text_E, hubness=True):
                ranks_A, _ = comparison.label_ranks(captioned_A, np.arange(len(audio_NE)))
                rows += self.rank_rows("texts_to_sounds", ranks_A, prefix=comparison.prefix)
            rows += chance_rank_rows("texts_to_sounds", np.ones(len(captioned_A), int), len(audio_NE))
        if len(captioned_A) > 1:
            for comparison in centring.compare(audio_NE[captioned_A], caption_AE, centring.modality_mean(audio_NE)):
                ranks_A = paired_ranks(comparison.query_QE, comparison.candidate_NE)
                rows += self.rank_rows("sounds_to_texts", ranks_A, prefix=comparison.prefix)
            rows += chance_rank_rows("sounds_to_texts", np.ones(len(captioned_A), int), len(captioned_A))
        return rows

    def prompt_rows(self, task: str, comparison: Comparison, labels_Q: Int[np.ndarray, "Q"]) -> list[Row]:
        """Returns class_accuracy: the fraction of labelled queries whose nearest class prompt is that of their class
        (zero-shot classification, Radford et al. 2021, section 3.1). Candidate i is the prompt of class i. No row
        without labelled queries."""
        is_labelled_Q = labels_Q != NONE
        if not is_labelled_Q.any():
            return []
        scores_QC = unit_rows(comparison.query_QE[is_labelled_Q]) @ unit_rows(comparison.candidate_NE).T
        is_right_Q = np.argmax(scores_QC, axis=1) == labels_Q[is_labelled_Q]
        return [self.mean_row(task, f"{comparison.prefix}class_accuracy", is_right_Q)]

    def _paired_rows(
        self, task: str, comparisons: list[Comparison], groups_Q: np.ndarray, groups_N: np.ndarray
    ) -> list[Row]:
        """Ranks of the counterparts of all queries that have one among the candidates. CSLS scores are added if queries
        and candidates correspond one to one."""
        is_query, is_candidate = np.isin(groups_Q, groups_N) & (groups_Q != NONE), groups_N != NONE
        groups_Q, groups_N = groups_Q[is_query], groups_N[is_candidate]
        distinct, rows = len(set(groups_N.tolist())), []
        if not len(groups_Q) or distinct < 2:
            return []
        for comparison in comparisons:
            ranks_Q, _ = comparison.select(is_query, is_candidate).label_ranks(groups_Q, groups_N)
            rows += self.rank_rows(task, ranks_Q, prefix=comparison.prefix)
        if self.csls and distinct == len(groups_N) == len(groups_Q) == len(set(groups_Q.tolist())):
            plain = comparisons[0].select(is_query, is_candidate)
            positions_Q = np.argsort(groups_N)[np.searchsorted(np.sort(groups_N), groups_Q)]
            ranks_Q = paired_ranks(plain.query_QE, plain.candidate_NE[positions_Q], csls=self.csls)
            rows += self.rank_rows(task, ranks_Q, prefix="csls_")
        return rows

    def _label_rows(
        self,
        task: str,
        comparisons: list[Comparison],
        labels_Q: np.ndarray,
        labels_N: np.ndarray,
        exclude_self: bool = False,
    ) -> list[Row]:
        """neighbour_accuracy and map of labelled queries among labelled candidates. Queries without a candidate of
        their class are left out."""
        is_query, is_candidate, rows = labels_Q != NONE, labels_N != NONE, []
        labels_Q, labels_N = labels_Q[is_query], labels_N[is_candidate]
        for comparison in comparisons if len(labels_Q) and len(labels_N) > 1 else ():
            ranks_Q, precision_Q = comparison.select(is_query, is_candidate).label_ranks(
                labels_Q, labels_N, exclude_self
            )
            has_any_Q = np.isfinite(precision_Q)
            if has_any_Q.any():
                rows.append(self.mean_row(task, f"{comparison.prefix}neighbour_accuracy", ranks_Q[has_any_Q] == 1))
                rows.append(self.mean_row(task, f"{comparison.prefix}map", precision_Q[has_any_Q]))
        return rows


def _complete(numbers_B: Int[np.ndarray, "B"], images_A: Int[np.ndarray, "A"] | None) -> Int[np.ndarray, "A"]:
    """The groups or labels of some images; all NONE if an image outside of these has a group or label."""
    if images_A is None:
        return numbers_B
    is_complete = np.isin(np.flatnonzero(numbers_B != NONE), images_A).all()
    return numbers_B[images_A] if is_complete else np.full(len(images_A), NONE)


def chance_caption_rows(n: int) -> list[Row]:
    """Chance scores of retrieval among n captions, in both directions; none for a single caption."""
    directions = ("source_to_target", "target_to_source") if n > 1 else ()
    return [row for direction in directions for row in chance_rank_rows("captions", np.ones(n, int), n, direction)]


def chance_image_audio_rows(pairs: PairVectors) -> list[Row]:
    """Chance scores of retrieval between images and sounds, and of a class drawn at random."""
    rows: list[Row] = []
    for task, query, candidate in (
        ("images_to_sounds", pairs.images, pairs.audio),
        ("sounds_to_images", pairs.audio, pairs.images),
    ):
        relevant_Q, n = _relevant(query.groups_N, candidate.groups_N)
        if len({*candidate.groups_N.tolist()} - {NONE}) > 1 and len(relevant_Q):
            rows += chance_rank_rows(task, relevant_Q, n)
        relevant_Q, n = _relevant(query.labels_N, candidate.labels_N)
        if n > 1 and len(relevant_Q):
            rows += chance_label_rows(task, relevant_Q, n)
        labelled = int(np.sum(query.labels_N != NONE))
        if pairs.audio.prompts_CE is not None and labelled:
            rows.append(Row(task, "chance", "class_accuracy", 1 / len(pairs.audio.prompts_CE), labelled))
    return rows


def _relevant(numbers_Q: Int[np.ndarray, "Q"], numbers_N: Int[np.ndarray, "N"]) -> tuple[Int[np.ndarray, "_"], int]:
    """Counts the candidates with the same number as each query, for queries with at least one; and the candidates that
    have a number."""
    known_Q, known_N = (numbers[numbers != NONE] for numbers in (numbers_Q, numbers_N))
    relevant_Q = np.bincount(known_N, minlength=known_Q.max(initial=0) + 1)[known_Q]
    return relevant_Q[relevant_Q > 0], len(known_N)


def chance_rank_rows(task: str, relevant_Q: Int[np.ndarray, "Q"], n: int, direction: str | None = None) -> list[Row]:
    """Chance scores for `Scorer.rank_rows`. relevant_Q: number of relevant candidates of each query, at least one. n:
    number of candidates."""
    fraction_n = rank_fractions(relevant_Q, n)
    until_n, ranks_n = np.cumsum(fraction_n), np.arange(1, n + 1)
    values = {f"recall@{k}": float(until_n[min(k, n) - 1]) for k in RECALL_CUTOFFS}
    half = 0.5 - 1e-9
    median = (np.searchsorted(until_n, half) + np.searchsorted(until_n, 1 - half, side="right")) / 2 + 1
    values |= {"median_rank": float(median), "mrr": float(np.sum(fraction_n / ranks_n))}
    n = len(relevant_Q)
    return [Row(task, "chance", metric, value, n, direction=direction) for metric, value in values.items()]


def chance_label_rows(task: str, relevant_Q: Int[np.ndarray, "Q"], n: int) -> list[Row]:
    """Chance scores of neighbour_accuracy and map. relevant_Q: number of candidates of each query's class, at least
    one. n: number of candidates."""
    values = {
        "neighbour_accuracy": float(np.mean(relevant_Q / n)),
        "map": float(np.mean([average_precision(int(relevant), n) for relevant in relevant_Q])),
    }
    return [Row(task, "chance", metric, value, len(relevant_Q)) for metric, value in values.items()]


def rank_fractions(relevant_Q: Int[np.ndarray, "Q"], n: int) -> Float[np.ndarray, "n"]:
    """The probability that a query's first relevant candidate has rank 1 … n in a random ranking, averaged over
    queries.

    If R of n candidates are relevant, none of them has rank k or less with probability C(n − R, k) / C(n, k).
    """
    k = np.arange(n)
    fraction_n, queries = np.zeros(n), len(relevant_Q)
    for relevant, count in zip(*np.unique(relevant_Q, return_counts=True), strict=True):
        not_before_n = np.cumprod(np.concatenate([[1.0], np.maximum(n - relevant - k, 0) / (n - k)]))
        fraction_n += count / queries * (not_before_n[:-1] - not_before_n[1:])
    return fraction_n


def average_precision(relevant: int, n: int) -> float:
    """The average precision of a random ranking of n candidates, some of them relevant, in expectation (Bestgen 2015,
    "Exact Expected Average Precision of the Random Baseline for System Evaluation")."""
    if n == 1:
        return float(relevant)
    harmonic = float(np.sum(1 / np.arange(1, n + 1)))
    return (harmonic + (relevant - 1) / (n - 1) * (n - harmonic)) / n

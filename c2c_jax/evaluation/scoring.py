"""How retrieval compares vectors: by cosine, centred cosine, and centred cosine minus hubness."""

import dataclasses
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from c2c_jax.evaluation.methods import Method
from c2c_jax.evaluation.results import CENTRED, MINUS_HUBNESS, Missing
from c2c_jax.evaluation.vectors import Captions, PairVectors
from c2c_jax.io.scratch import empty_vectors
from c2c_jax.io.vectors import unit_rows
from c2c_jax.retrieval.nearest import label_ranks
from c2c_jax.retrieval.scoring import MIN_TO_CENTRE, Scoring, centred_array, reference_captions, unit_mean
from c2c_jax.translator.bundle import Bundle
from c2c_jax.translator.centring import uncentred
from c2c_jax.translator.memory import evenly_spaced

ROWS_AT_ONCE = 16_384


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Queries and candidates to be ranked by cosine, minus a penalty for each candidate. Vectors have any length.

    prefix: of the metrics' names, a key of `results.SCORINGS`.
    """

    prefix: str = ""
    query_QE: Shaped[np.ndarray, "Q E"]
    candidate_NE: Shaped[np.ndarray, "N E"]
    penalty_N: Float[np.ndarray, "N"] | None = None

    def select(self, is_query_Q: Bool[np.ndarray, "Q"], is_candidate_N: Bool[np.ndarray, "N"]) -> "Comparison":
        """Selects some of the queries and some of the candidates."""
        penalty_N = None if self.penalty_N is None else self.penalty_N[is_candidate_N]
        vectors = {"query_QE": self.query_QE[is_query_Q], "candidate_NE": self.candidate_NE[is_candidate_N]}
        return dataclasses.replace(self, **vectors, penalty_N=penalty_N)

    def label_ranks(
        self, numbers_Q: Int[np.ndarray, "Q"], numbers_N: Int[np.ndarray, "N"], exclude_self: bool = False
    ) -> tuple[Int[np.ndarray, "Q"], Float[np.ndarray, "Q"]]:
        """Ranks and average precisions of candidates with the query's number; see `retrieval.nearest.label_ranks`."""
        return label_ranks(
            self.query_QE, self.candidate_NE, numbers_Q, numbers_N, penalty_N=self.penalty_N, exclude_self=exclude_self
        )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Centring:
    """Means and reference queries in the target space, for the centred scores of one method.

    text_E: mean of captions' unit vectors, which centres translated texts; None: no centred scores. image_E: mean that
    centres translated images; None: images have no centred scores. reference_RE: captions translated by the method,
    which measure hubness once they are centred by text_E; None: no scores minus hubness.
    """

    text_E: Float[np.ndarray, "E"] | None = None
    image_E: Float[np.ndarray, "E"] | None = None
    reference_RE: Float[np.ndarray, "R E"] | None = None

    def modality_mean(self, x_NE: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "E"] | None:
        """The mean of the vectors, to centre them by; None if there are no centred scores or too few vectors."""
        return None if self.text_E is None else modality_mean(x_NE)

    def compare(
        self,
        query_QE: Shaped[np.ndarray, "Q E"],
        candidate_NE: Shaped[np.ndarray, "N E"],
        query_mean_E: Float[np.ndarray, "E"] | None,
        candidate_mean_E: Float[np.ndarray, "E"] | None = None,
        *,
        hubness: bool = False,
    ) -> list[Comparison]:
        """Prepares queries and candidates for each scoring: plain cosine; centred cosine, if both means are known; and
        centred cosine minus hubness, if `hubness` is True and there are references.

        Both means are of unit vectors. MIN_TO_CENTRE candidates or more are centred by their own mean, fewer by
        candidate_mean_E.
        """
        plain = Comparison(query_QE=query_QE, candidate_NE=candidate_NE)
        if query_mean_E is None:
            return [plain]
        if (own_E := modality_mean(candidate_NE)) is not None:
            candidate_mean_E = own_E
        if candidate_mean_E is None:
            return [plain]
        query_QE, candidate_NE = centred_rows(query_QE, query_mean_E), centred_rows(candidate_NE, candidate_mean_E)
        centred = Comparison(prefix=CENTRED, query_QE=query_QE, candidate_NE=candidate_NE)
        if not hubness or self.reference_RE is None:
            return [plain, centred]
        penalty_N = Scoring(
            query_mean_E=query_mean_E,
            candidate_mean_E=candidate_mean_E,
            reference_RE=self.reference_RE,
            reference_mean_E=self.text_E,
        ).penalty(candidate_NE)
        return [plain, centred, dataclasses.replace(centred, prefix=MINUS_HUBNESS, penalty_N=penalty_N)]


def modality_mean(x_NE: Shaped[np.ndarray, "N E"] | None) -> Float[np.ndarray, "E"] | None:
    """The mean of vectors scaled to unit length; None for fewer than MIN_TO_CENTRE."""
    return None if x_NE is None or len(x_NE) < MIN_TO_CENTRE else unit_mean(x_NE[block] for block in _blocks(len(x_NE)))


def centred_rows(x_NE: Shaped[np.ndarray, "N E"], mean_E: Float[np.ndarray, "E"]) -> Float[np.ndarray, "N E"]:
    """Centres vectors of any length by a mean of unit vectors."""
    vectors_NE = empty_vectors(*x_NE.shape)
    for block in _blocks(len(x_NE)):
        vectors_NE[block] = centred_array(x_NE[block], mean_E)
    return vectors_NE


def cosines(x_NE: Shaped[np.ndarray, "N E"], y_NE: Shaped[np.ndarray, "N E"]) -> Float[np.ndarray, "N"]:
    """The cosine of row i of one array and row i of the other. Needs at least one row."""
    blocks = _blocks(len(x_NE))
    return np.concatenate([np.sum(unit_rows(x_NE[block]) * unit_rows(y_NE[block]), axis=1) for block in blocks])


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, start + ROWS_AT_ONCE) for start in range(0, count, ROWS_AT_ONCE))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ScoringMeans:
    """The mean of captions and reference queries, for the centred scores of all methods.

    text_E: mean of captions' unit target vectors. reference_RS: raw source vectors of captions, the reference queries;
    None: no scores minus hubness. is_stored: whether the bundle stores the references; otherwise they are the evaluated
    captions, and cannot be references for themselves. reference_HE: target vectors of evaluated captions, the
    references for methods that do not translate texts.
    """

    text_E: Float[np.ndarray, "E"]
    reference_RS: Float[np.ndarray, "R S"] | None = None
    is_stored: bool = False
    reference_HE: Float[np.ndarray, "H E"] | None = None

    def of_method(self, method: Method) -> Centring:
        """Returns the centring for a method, with the references as it translates them."""
        image_E = self.text_E if method.image_mean_E is None else method.image_mean_E
        reference_RE = None if self.reference_RS is None else method.of_texts(self.reference_RS)
        return Centring(text_E=self.text_E, image_E=image_E, reference_RE=reference_RE)


def scoring_means(
    bundle: Bundle, captions: Captions | None, pairs: PairVectors | None, *, hubness: bool
) -> tuple[ScoringMeans | None, list[Missing]]:
    """Finds the mean of captions and the references for centred scores; also returns scores that cannot be computed.

    The mean is that of the bundle, else of the evaluated captions, else of the class prompts. hubness: whether
    references are needed.
    """
    known = (
        bundle.means.target_text,
        modality_mean(captions.target_NE if captions else None),
        modality_mean(pairs.audio.prompts_CE if pairs else None),
    )
    text_E = next((mean_E for mean_E in known if mean_E is not None), None)
    if text_E is None:
        why = f"the translator stores no mean of captions; pass {MIN_TO_CENTRE} or more as --captions"
        return None, [Missing(what="centred scores", why=why)]
    counts = {"captions": (len(captions.target_NE), "captions")} if captions else {}
    if pairs:
        counts["images and sounds"] = (len(pairs.audio.vectors_NE), "sounds")
        if len(pairs.audio.vectors_NE) >= MIN_TO_CENTRE:
            counts["sounds → images"] = (len(pairs.images.vectors_NE), "images")
    missing = [
        Missing(what=f"{task}: centred scores", why=f"{count} {kind}; centring needs {MIN_TO_CENTRE} or more")
        for task, (count, kind) in counts.items()
        if 1 < count < MIN_TO_CENTRE  # their own mean would remove what distinguishes them
    ]
    if not hubness:
        return ScoringMeans(text_E=text_E), missing
    stored_RS, source_HS, target_HE = stored_captions(bundle), None, None
    if captions and len(captions.target_NE) >= MIN_TO_CENTRE:
        rows = evenly_spaced(len(captions.target_NE))
        source_HS, target_HE = captions.source_NS[rows], np.asarray(captions.target_NE[rows], np.float32)
    is_stored = stored_RS is not None
    if not is_stored and (captions or source_HS is None):
        what = "scores minus hubness" if source_HS is None else "captions: scores minus hubness"
        why = f"the translator stores no captions as reference queries; {MIN_TO_CENTRE} or more are needed"
        missing.append(Missing(what=what, why=why))
    reference_RS = stored_RS if is_stored else source_HS
    means = ScoringMeans(text_E=text_E, reference_RS=reference_RS, is_stored=is_stored, reference_HE=target_HE)
    return means, missing


def stored_captions(bundle: Bundle) -> Float[np.ndarray, "R S"] | None:
    """The bundle's `reference_captions`, un-centred: unit source vectors. None if there are none."""
    source_RS = reference_captions(bundle)
    if source_RS is None or bundle.spec.input_norm != "centred":
        return source_RS
    return np.asarray(uncentred(jnp.asarray(source_RS), bundle.means.mean("source_text")))

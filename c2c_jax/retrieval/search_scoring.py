"""How `c2c search` scores sounds: the means that queries and sounds are centred by, and the reference queries."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from c2c_jax.retrieval.library import Library
from c2c_jax.retrieval.scoring import MIN_TO_CENTRE, Scoring, unit_mean
from c2c_jax.spaces.models.layers import unit
from c2c_jax.translator.bundle import Bundle
from c2c_jax.translator.centring import Gap, over_target_gap, uncentred
from c2c_jax.translator.memory import REFERENCES, evenly

# Kinds of queries for which hubness is subtracted. By default, pictures are not among them: translated pictures have
# smaller cosines than captions, so that hubness measured with captions outweighs them; see docs/search.md.
HUBNESS = {"texts": ("text",), "all": ("picture", "text"), "none": ()}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SearchScoring:
    """How the queries of a search are scored.

    of_kind: the scoring of each kind of query that is there, "picture" or "text". notes: which parts are missing or not
    used, and why.
    """

    of_kind: dict[str, Scoring]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """`scores: texts by cosine, less hubness; not centred: the library has fewer than 32 sounds`."""
        scores = (f"{kind}s by {scoring}" for kind, scoring in self.of_kind.items())
        return "scores: " + "; ".join((*scores, *self.notes))


def search_scoring(
    sounds: Library,
    bundle: Bundle | None,
    encode_references: Callable[[], Float[np.ndarray, "R E"]] | None,
    *,
    kinds: Sequence[str],
    centre: bool,
    hubness: str,
) -> SearchScoring:
    """The scoring of each kind of query in a search, with the means and references that are known.

    encode_references: returns CLAP's vectors of the reference texts, and is called only if they are needed; None: the
    captions stored in the bundle are the references. kinds: kinds of the queries, "picture" or "text"; without a bundle
    only "text". centre: whether to centre. hubness: a key of HUBNESS.
    """
    known, with_hubness = _Known(bundle, encode_references), [kind for kind in kinds if kind in HUBNESS[hubness]]
    reference_kind, reference_RE = known.references() if with_hubness else ("", None)
    # The means of pictures and of texts are both known or both unknown.
    centred_kinds = (*kinds, *([] if reference_RE is None else [reference_kind])) if centre else ()
    means = {kind: mean_E for kind in centred_kinds if (mean_E := known.mean(kind)) is not None}
    sound_mean_E = _sound_mean(sounds, bundle) if means else None
    notes, needs_texts = [], False
    if centre and not means:
        notes.append("not centred: the mean of queries is unknown")
        needs_texts = True
    elif centre and sound_mean_E is None:
        why = "" if bundle is None else " and the translator stores no mean of sounds"
        notes.append(f"not centred: the library has fewer than {MIN_TO_CENTRE} sounds{why}")
    if with_hubness and reference_RE is None:
        notes.append("hubness not subtracted: there are no reference queries")
        needs_texts = True
    if needs_texts:
        notes.append(f"pass --references FILE with {MIN_TO_CENTRE} texts or more, one a line")
    if encode_references and not known.used_texts:
        notes.append(f"--references not used: with --hubness {hubness} these queries need none")
    of_kind = {
        kind: Scoring(
            query_mean_E=means.get(kind),
            candidate_mean_E=sound_mean_E,
            reference_RE=reference_RE if kind in with_hubness else None,
            reference_mean_E=means.get(reference_kind),
        )
        for kind in kinds
    }
    return SearchScoring(of_kind=of_kind, notes=tuple(notes))


def translated_captions(bundle: Bundle) -> Float[np.ndarray, "R E"] | None:
    """A bundle's stored captions, translated and placed as pictures are: unit vectors, at most REFERENCES of them,
    evenly spaced.

    None if it stores none, or if its translator takes raw vectors, since captions are stored without their lengths.
    """
    if bundle.memory is None or bundle.spec.input_norm == "none" or len(bundle.memory.source) < MIN_TO_CENTRE:
        return None
    source_MS = bundle.memory.source
    source_RS = jnp.asarray(source_MS[evenly(len(source_MS))], jnp.float32)
    at_once = 64 if bundle.spec.kind == "transformer" else REFERENCES  # a transformer takes 8 MiB of memory for each
    with jax.default_matmul_precision("float32"):
        parts = [source_RS[start : start + at_once] for start in range(0, len(source_RS), at_once)]
        target_RE = jnp.concatenate([bundle.translator(part) for part in parts])
        if bundle.spec.input_norm == "centred":
            return np.asarray(uncentred(target_RE, bundle.gap.mean("target_text")))
        return np.asarray(unit(over_target_gap(bundle.gap, target_RE)))


class _Known:
    """The reference queries and the means of queries that a bundle or given texts provide. Vectors are computed once,
    when they are first needed."""

    def __init__(self, bundle: Bundle | None, encode_references: Callable[[], Float[np.ndarray, "R E"]] | None) -> None:
        self.bundle, self.encode_references, self.used_texts = bundle, encode_references, False

    @functools.cached_property
    def captions_RE(self) -> np.ndarray | None:
        return None if self.bundle is None else translated_captions(self.bundle)

    @functools.cached_property
    def text_RE(self) -> np.ndarray | None:
        if self.encode_references is None:
            return None
        self.used_texts = True
        return self.encode_references()

    def references(self) -> tuple[str, np.ndarray | None]:
        """The kind and the vectors of the references: the given texts, or the bundle's captions."""
        return ("picture", self.captions_RE) if self.text_RE is None else ("text", self.text_RE)

    def mean(self, kind: str) -> np.ndarray | None:
        """The mean of queries of a kind, "picture" or "text"; None if it is unknown."""
        return next((mean_E for mean_E in self._means(kind) if mean_E is not None), None)

    def _means(self, kind: str) -> Iterator[np.ndarray | None]:
        """Estimates of the mean, the best first.

        A translator of centred vectors places pictures among texts, whose mean the bundle stores. Others place pictures
        where they place captions, so the mean of translated captions comes first; after it, the stored mean of sounds,
        if pictures are moved among sounds, or of texts; and last the mean of the given texts.
        """
        gap = Gap() if self.bundle is None else self.bundle.gap
        if self.bundle is not None and self.bundle.spec.input_norm == "centred":
            yield gap.mean("target_text")
        elif kind == "picture":
            yield _mean(self.captions_RE)
            yield gap.target_text if gap.target_audio is None else gap.target_audio
            yield _mean(self.text_RE)
        else:
            yield gap.target_text
            yield _mean(self.text_RE)
            yield _mean(self.captions_RE)


def _mean(reference_RE: np.ndarray | None) -> np.ndarray | None:
    return None if reference_RE is None or len(reference_RE) < MIN_TO_CENTRE else unit_mean([reference_RE])


def _sound_mean(sounds: Library, bundle: Bundle | None) -> np.ndarray | None:
    """The library's own mean, or for fewer than MIN_TO_CENTRE sounds the mean stored in the bundle."""
    if len(sounds.rows) >= MIN_TO_CENTRE:
        return unit_mean(sounds.blocks())
    return None if bundle is None else bundle.gap.target_audio

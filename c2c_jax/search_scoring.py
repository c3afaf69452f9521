"""How `c2c search` scores sounds: the means that queries and sounds are centred by, and the reference queries."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from c2c_jax.library import Library
from c2c_jax.models.gap import Gap, over_target_gap, uncentred
from c2c_jax.models.layers import unit
from c2c_jax.scoring import FEWEST, Scoring, unit_mean
from c2c_jax.training.memory import REFERENCES
from c2c_jax.weights.translator import Bundle

# Kinds of queries whose scores are less hubness. Those of pictures are not by default: translated pictures have smaller
# cosines than captions, so that the hubness by captions outweighs them, see docs/search.md.
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
    """The scoring of a search, as far as the means and references are known.

    encode_references: gives CLAP's vectors of texts that serve as references, and is called only if they are needed;
    None: the bundle's stored captions serve. kinds: those of the queries, "picture" or "text"; "text" alone without a
    bundle. centre: whether cosines are to be centred. hubness: one of HUBNESS.
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
        notes.append(f"not centred: the library has fewer than {FEWEST} sounds{why}")
    if with_hubness and reference_RE is None:
        notes.append("hubness not subtracted: there are no reference queries")
        needs_texts = True
    if needs_texts:
        notes.append(f"pass --references FILE with {FEWEST} texts or more, one a line")
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
    """Unit vectors of a bundle's stored captions, REFERENCES of them at most, evenly taken, where it puts pictures.

    None where it stores none, or where its translator takes raw vectors, as captions are stored without their lengths.
    """
    if bundle.memory is None or bundle.spec.input_norm == "none":
        return None
    source_MS = bundle.memory.source
    source_RS = jnp.asarray(source_MS[evenly(len(source_MS))], jnp.float32)
    with jax.default_matmul_precision("float32"):
        target_RE = bundle.translator(source_RS)
        if bundle.spec.input_norm == "centred":
            return np.asarray(uncentred(target_RE, bundle.gap.mean("target_text")))
        return np.asarray(unit(over_target_gap(bundle.gap, target_RE)))


def evenly(count: int) -> np.ndarray:
    """The places of REFERENCES of so many things, evenly taken, or of all where there are fewer."""
    return np.linspace(0, count - 1, min(count, REFERENCES)).round().astype(int)


class _Known:
    """The reference queries and the means of queries that a bundle or given texts provide; vectors are computed where
    they are needed, once."""

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
        """The kind of query that the references are, and their vectors: the given texts, or the bundle's captions."""
        return ("picture", self.captions_RE) if self.text_RE is None else ("text", self.text_RE)

    def mean(self, kind: str) -> np.ndarray | None:
        """The mean of queries of a kind, "picture" or "text"; None where it is unknown."""
        return next((mean_E for mean_E in self._means(kind) if mean_E is not None), None)

    def _means(self, kind: str) -> Iterator[np.ndarray | None]:
        """What serves as the mean, the best first.

        A translator of centred vectors puts pictures among texts, whose mean the bundle stores. Others put them where
        they put captions, whose mean is taken, or near to texts, or near to sounds where the bundle stores the mean of
        these.
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
    return None if reference_RE is None or len(reference_RE) < FEWEST else unit_mean([reference_RE])


def _sound_mean(sounds: Library, bundle: Bundle | None) -> np.ndarray | None:
    """The library's own mean, or of few sounds that which the bundle stores."""
    if len(sounds.rows) >= FEWEST:
        return unit_mean(sounds.blocks())
    return None if bundle is None else bundle.gap.target_audio

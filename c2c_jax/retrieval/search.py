"""Searches a folder of sounds for those nearest to images and texts."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from c2c_jax.data.caption_files import Txt
from c2c_jax.errors import AudioError, C2CError, ConfigError
from c2c_jax.io.output_paths import require_output_folder
from c2c_jax.io.progress import Progress, phase
from c2c_jax.io.resolve import bundle_folder
from c2c_jax.io.text import require_text
from c2c_jax.retrieval.library import Library, open_library
from c2c_jax.retrieval.scoring import MIN_TO_CENTRE, Scoring, translated_captions, unit_mean
from c2c_jax.spaces.space import Space, identify
from c2c_jax.spaces.space_id import SpaceId
from c2c_jax.translator.bundle import Bundle, load_bundle
from c2c_jax.translator.centring import ModalityMeans
from c2c_jax.translator.inference import load_clap, load_clip, means_in_use, translate_image_files
from c2c_jax.translator.memory import evenly_spaced

logger = logging.getLogger(__name__)

# For each --hubness option, the kinds of queries whose scores are reduced by hubness. The default leaves out images:
# their cosines are smaller than those of captions, so hubness measured with captions outweighs them (docs/search.md).
HUBNESS_KINDS = {"texts": ("text",), "all": ("image", "text"), "none": ()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hits:
    """The results of one query: scores and sound files, best first.

    query: an image file or a text. scoring: description of the scoring.
    """

    kind: str  # "image" or "text"
    query: str
    scoring: str
    matches: list[tuple[float, Path]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The results of a search. image_errors: one for each unreadable image; unreadable sounds are in
    `library.unreadable`."""

    hits: list[Hits]
    clap: SpaceId
    library: Library
    image_errors: list[C2CError]

    @property
    def error_messages(self) -> list[str]:
        """Messages for all unreadable files, including sounds that earlier searches could not read."""
        return [*map(str, self.image_errors), *(file.why for file in self.library.unreadable)]


def search(
    library: Path,
    *,
    images: Sequence[Path] = (),
    texts: Sequence[str] = (),
    translator: Path | None = None,
    clip: str | None = None,
    clap: str | None = None,
    top: int = 10,
    index: Path | None = None,
    references: Path | None = None,
    centre: bool = True,
    hubness: Literal["texts", "all", "none"] = "texts",
    list_all: bool = False,
) -> SearchResult:
    """Finds the `top` sounds of a folder for each image and each text.

    Images are encoded by CLIP and translated; texts are encoded by CLAP's text tower. New sounds are encoded first, see
    `Library.update`. Scores are centred cosines, for texts minus hubness; see `search_scoring` for missing means.

    translator: see `bundle_folder`. clip, clap: as for `load_space`; None: the translator's. index: as for
    `open_library`. references: a file of reference queries, one text per line; None: the captions stored in the
    translator. centre: False for plain cosines. hubness: kinds of queries for which hubness is subtracted. Unreadable
    files are left out, with a message for each; those of earlier searches are only counted, unless `list_all`.
    Raises ConfigError, CaptionError, CheckpointError or BundleError; AudioError if no sound can be read, ImageError if
    no image can be read and there is no text.
    """
    kinds = [kind for kind, queries in (("image", images), ("text", texts)) if queries]
    if not kinds:
        raise ConfigError("nothing to search for: pass an image or --text")
    for text in texts:
        require_text(text, "--text")
    if index:
        require_output_folder(index, "--index")
    if references and not (centre or set(kinds) & set(HUBNESS_KINDS[hubness])):
        raise ConfigError(
            f"--references is unused: --no-centre with --hubness {hubness} needs no references for "
            f"{' and '.join(kinds)} queries; drop --references"
        )
    if images and not translator:
        raise ConfigError("images need --translator, the bundle that translates them to sounds")
    bundle = load_bundle(bundle_folder(translator)) if translator else None
    if not (name := clap or (bundle and bundle.target.name)):
        raise ConfigError("texts need --clap, the CLAP that encodes the library, or a --translator that names it")
    reference_texts = _read_references(references) if references else []
    with phase("looking for sounds"):
        audio_library = open_library(library, identify(name), index)

    @functools.cache
    def load() -> Space:
        return load_clap(bundle, name, with_audio=bool(audio_library.pending))

    if texts or audio_library.pending or (bundle and audio_library.space.fingerprint != bundle.target.fingerprint):
        with phase("loading CLAP"):
            load()

    def encode_references() -> Float[np.ndarray, "R E"]:
        with phase("encoding references"):
            return load().encode_text(reference_texts)

    queries: dict[str, dict[str, np.ndarray]] = {}
    image_errors: list[C2CError] = []
    with Progress() as bar:
        if bundle and images:
            reading = bar.add_task("encoding images", total=len(images), visible=len(images) > 1)
            space = load_clip(bundle, clip, with_text=False)
            vectors, errors = translate_image_files(images, space, bundle, lambda: bar.advance(reading))
            for line in means_in_use(bundle):
                logger.info("%s", line)
            image_errors += errors
            queries["image"] = {str(path): vector_E for path, vector_E in vectors.items()}
        if texts:
            queries["text"] = dict(zip(texts, load().encode_text(texts), strict=True))
        if not any(queries.values()):
            raise image_errors[0]
        earlier, count = list(audio_library.unreadable), len(audio_library.pending)
        encoding = bar.add_task("encoding sounds", total=count, visible=bool(count))
        audio_errors = audio_library.update(load, lambda: bar.advance(encoding))
    if count > len(audio_errors):
        logger.info(
            f"encoded {count - len(audio_errors):,} new sounds of {len(audio_library.rows):,}; "
            f"index: {audio_library.index_folder}"
        )
    list_all = list_all or not audio_library.rows
    for why in (*image_errors, *(file.why for file in earlier if list_all), *audio_errors):
        logger.warning("left out: %s", why)
    if earlier and not list_all:
        logger.warning(
            f"{len(earlier):,} of {len(earlier) + len(audio_errors) + len(audio_library.rows):,} sounds are left out "
            "because earlier searches could not read them; --strict lists them"
        )
    if not audio_library.rows:
        count = len(audio_library.unreadable)
        raise AudioError(f"none of the {count:,} sounds in {library} can be read; they are named above")
    hits = rank(
        audio_library,
        bundle,
        {kind: vectors for kind, vectors in queries.items() if vectors},
        encode_references if reference_texts else None,
        top=top,
        centre=centre,
        hubness=hubness,
    )
    return SearchResult(hits=hits, clap=audio_library.space, library=audio_library, image_errors=image_errors)


def rank(
    audio_library: Library,
    bundle: Bundle | None,
    queries: Mapping[str, Mapping[str, Float[np.ndarray, "E"]]],
    encode_references: Callable[[], Float[np.ndarray, "R E"]] | None,
    *,
    top: int,
    centre: bool = True,
    hubness: str = "texts",
) -> list[Hits]:
    """Finds the `top` sounds of a library for each query, and logs how they were scored; see `search_scoring`.

    queries: the target vectors of the queries, by kind ("image" or "text") and name. top: number of sounds per query.
    The other arguments are those of `search_scoring`. Raises StoreError for a damaged index.
    """
    scoring = search_scoring(
        audio_library, bundle, encode_references, kinds=list(queries), centre=centre, hubness=hubness
    )
    logger.info("%s", scoring)
    hits = []
    for kind, kind_scoring in scoring.by_kind.items():
        nearest = audio_library.nearest(np.stack(list(queries[kind].values())), top, kind_scoring)
        hits += [
            Hits(kind=kind, query=query, scoring=str(kind_scoring), matches=matches)
            for query, matches in zip(queries[kind], nearest, strict=True)
        ]
    return hits


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SearchScoring:
    """The scoring of each kind of query in a search.

    by_kind: keys "image" and "text". notes: messages about missing or unused means and references.
    """

    by_kind: dict[str, Scoring]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """For example `scores: texts by cosine minus hubness; not centred: the library has fewer than 32 sounds`."""
        scores = (f"{kind}s by {scoring}" for kind, scoring in self.by_kind.items())
        return "scores: " + "; ".join((*scores, *self.notes))


def search_scoring(
    audio_library: Library,
    bundle: Bundle | None,
    encode_references: Callable[[], Float[np.ndarray, "R E"]] | None,
    *,
    kinds: Sequence[str],
    centre: bool,
    hubness: str,
) -> SearchScoring:
    """Chooses the means and reference queries to score with, from those available.

    encode_references: returns CLAP vectors of reference texts, called only if needed; None: use the captions stored in
    the bundle. kinds: "image", "text"; without a bundle only "text". centre: whether to centre. hubness: a key of
    HUBNESS_KINDS.
    """
    captions = functools.cache(lambda: translated_captions(bundle) if bundle else None)
    texts: Any = functools.cache(encode_references) if encode_references else functools.cache(lambda: None)

    def means_of(kind: str) -> Iterator[np.ndarray | None]:
        """Yields estimates of the mean query vector of a kind, best first.

        A translator of centred vectors adds the mean of texts to its outputs, and the bundle stores it. With other
        translators, images have the same mean as translated captions; next best is the stored mean of sounds, if
        outputs are shifted to it, or else of texts; last comes the mean of the reference texts.
        """
        stored = ModalityMeans() if bundle is None else bundle.means
        if bundle is not None and bundle.spec.input_norm == "centred":
            yield stored.mean("target_text")
        elif kind == "image":
            yield _mean(captions())
            yield stored.target_text if stored.target_audio is None else stored.target_audio
            yield _mean(texts())
        else:
            yield stored.target_text
            yield _mean(texts())
            yield _mean(captions())

    with_hubness = [kind for kind in kinds if kind in HUBNESS_KINDS[hubness]]
    reference_kind, reference_RE = "", None
    if with_hubness:
        reference_kind, reference_RE = ("text", texts()) if encode_references else ("image", captions())
    # Either all kinds have a mean or none has.
    centred_kinds = (*kinds, *([] if reference_RE is None else [reference_kind])) if centre else ()
    means = {kind: next((mean_E for mean_E in means_of(kind) if mean_E is not None), None) for kind in centred_kinds}
    has_mean = any(mean_E is not None for mean_E in means.values())
    audio_mean_E = None
    if has_mean and len(audio_library.rows) >= MIN_TO_CENTRE:
        audio_mean_E = unit_mean(audio_library.blocks())
    elif has_mean and bundle is not None:
        audio_mean_E = bundle.means.target_audio
    notes, needs_texts = [], False
    if centre and not has_mean:
        notes.append("not centred: the mean of queries is unknown")
        needs_texts = True
    elif centre and audio_mean_E is None:
        why = "" if bundle is None else " and the translator stores no mean of sounds"
        notes.append(f"not centred: the library has fewer than {MIN_TO_CENTRE} sounds{why}")
    if with_hubness and reference_RE is None:
        notes.append("hubness not subtracted: there are no reference queries")
        needs_texts = True
    if needs_texts:
        notes.append(f"pass --references FILE with {MIN_TO_CENTRE} texts or more, one per line")
    if encode_references and not texts.cache_info().currsize:
        notes.append(f"--references ignored: these queries use no reference texts with --hubness {hubness}")
    by_kind = {
        kind: Scoring(
            query_mean_E=means.get(kind),
            candidate_mean_E=audio_mean_E,
            reference_RE=reference_RE if kind in with_hubness else None,
            reference_mean_E=means.get(reference_kind),
        )
        for kind in kinds
    }
    return SearchScoring(by_kind=by_kind, notes=tuple(notes))


def _mean(reference_RE: np.ndarray | None) -> np.ndarray | None:
    return None if reference_RE is None or len(reference_RE) < MIN_TO_CENTRE else unit_mean([reference_RE])


def _read_references(file: Path) -> list[str]:
    """Reads texts from a file, one per line; if there are more than REFERENCES, keeps that many, evenly spaced. Raises
    CaptionError if there is none."""
    source = Txt(f"txt:{file}")
    texts = list(source.rows())
    if source.skipped.counts:
        logger.warning("%s: %s", file, source.skipped)
    return [texts[row] for row in evenly_spaced(len(texts))]

"""Searches a folder of sounds for the nearest ones to images and texts."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from rich.console import Console

from c2c_jax.data.caption_files import Txt
from c2c_jax.errors import AudioError, C2CError, ConfigError
from c2c_jax.io.output_paths import require_output_folder
from c2c_jax.io.progress import Progress, phase
from c2c_jax.io.text import require_text
from c2c_jax.retrieval.library import Library, open_library
from c2c_jax.retrieval.scoring import MIN_TO_CENTRE, Scoring, translated_captions, unit_mean
from c2c_jax.spaces.space import Space, SpaceId, identify
from c2c_jax.translator.bundle import Bundle, load_bundle
from c2c_jax.translator.centring import ModalityMeans
from c2c_jax.translator.inference import load_clap, load_clip, means_in_use, translate_image_files
from c2c_jax.translator.memory import evenly_spaced
from c2c_jax.translator.resolve import bundle_folder

# Kinds of queries for which hubness is subtracted. By default, pictures are not among them: translated pictures have
# smaller cosines than captions, so that hubness measured with captions outweighs them; see docs/search.md.
HUBNESS = {"texts": ("text",), "all": ("picture", "text"), "none": ()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hits:
    """The sounds found for one query, an image file or a text: scores and files, best first. scoring: how they were
    scored, in words."""

    kind: str  # "picture" or "text"
    query: str
    scoring: str
    sounds: list[tuple[float, Path]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The outcome of a search. unread: an error for each image that could not be read; for sounds see
    `library.unreadable`."""

    hits: list[Hits]
    clap: SpaceId
    library: Library
    unread: list[C2CError]

    @property
    def left_out(self) -> list[str]:
        """An error message for each file that could not be read, sounds of earlier searches included."""
        return [*map(str, self.unread), *(file.why for file in self.library.unreadable)]


def search(
    library: Path,
    *,
    pictures: Sequence[Path] = (),
    texts: Sequence[str] = (),
    translator: Path | None = None,
    clip: str | None = None,
    clap: str | None = None,
    top: int = 10,
    index: Path | None = None,
    references: Path | None = None,
    centre: bool = True,
    hubness: Literal["texts", "all", "none"] = "texts",
    names_all: bool = False,
    console: Console,
) -> SearchResult:
    """Finds the `top` sounds of a folder for each picture, encoded by CLIP and translated, and for each text, encoded
    by CLAP's text tower.

    Scores are centred cosines, for texts less hubness; see `search_scoring` for missing means and references. centre:
    False for plain cosines. hubness: queries for which hubness is subtracted; "all": for pictures too. references: a
    file with one text a line; the texts replace the captions stored in the translator as reference queries.
    translator: see `bundle_folder`. clip, clap: names as for `load_space`, None: the translator's own. New sounds are
    encoded first, see `Library.update`; index: as for `open_library`. console: for progress and for files that cannot
    be read, which are left out; each is named once, and in later searches only counted, unless `names_all`.
    Raises ConfigError, CaptionError, CheckpointError or BundleError, AudioError if no sound is left, ImageError if no
    query is.
    """
    kinds = [kind for kind, given in (("picture", pictures), ("text", texts)) if given]
    if not kinds:
        raise ConfigError("nothing to search for: pass an image or --text")
    for text in texts:
        require_text(text, "--text")
    if index:
        require_output_folder(index, "--index")
    if references and not (centre or set(kinds) & set(HUBNESS[hubness])):
        raise ConfigError(
            f"--references has no effect with --no-centre and --hubness {hubness} for {' and '.join(kinds)} queries: "
            "leave one of them out"
        )
    if pictures and not translator:
        raise ConfigError("pictures need --translator, the bundle that translates them to sounds")
    bundle = load_bundle(bundle_folder(translator)) if translator else None
    if not (name := clap or (bundle and bundle.target.name)):
        raise ConfigError("texts need --clap, the CLAP that encodes the library, or a --translator that names it")
    reference_texts = _read_references(references, console) if references else []
    with phase(console, "looking for sounds"):
        sounds = open_library(library, identify(name), index)

    @functools.cache
    def load() -> Space:
        return load_clap(bundle, name, with_audio=bool(sounds.pending))

    if texts or sounds.pending or (bundle and sounds.space.fingerprint != bundle.target.fingerprint):
        with phase(console, "loading CLAP"):
            load()

    def encode_references() -> Float[np.ndarray, "R E"]:
        with phase(console, "encoding references"):
            return load().encode_text(reference_texts)

    queries: dict[str, dict[str, np.ndarray]] = {}
    unread: list[C2CError] = []
    with Progress(console) as bar:
        if bundle and pictures:
            reading = bar.add_task("encoding pictures", total=len(pictures), visible=len(pictures) > 1)
            space = load_clip(bundle, clip, with_text=False)
            vectors, wrong = translate_image_files(pictures, space, bundle, lambda: bar.advance(reading))
            for line in means_in_use(bundle):
                console.print(line)
            unread += wrong
            queries["picture"] = {str(path): vector_E for path, vector_E in vectors.items()}
        if texts:
            queries["text"] = dict(zip(texts, load().encode_text(texts), strict=True))
        if not any(queries.values()):
            raise unread[0]
        known, count = list(sounds.unreadable), len(sounds.pending)
        encoding = bar.add_task("encoding sounds", total=count, visible=bool(count))
        errors = sounds.update(load, lambda: bar.advance(encoding))
    if count > len(errors):
        console.print(f"encoded {count - len(errors):,} new sounds of {len(sounds.rows):,}; index: {sounds.place}")
    names_all = names_all or not sounds.rows
    for why in (*unread, *(file.why for file in known if names_all), *errors):
        console.print(f"left out: {why}")
    if known and not names_all:
        console.print(
            f"{len(known):,} of {len(known) + len(errors) + len(sounds.rows):,} sounds are left out, as they could not "
            "be read before; --strict names them"
        )
    if not sounds.rows:
        count = len(sounds.unreadable)
        raise AudioError(f"none of the {count:,} sounds in {library} can be read; they are named above")
    scoring = search_scoring(
        sounds,
        bundle,
        encode_references if reference_texts else None,
        kinds=[kind for kind, vectors in queries.items() if vectors],
        centre=centre,
        hubness=hubness,
    )
    console.print(str(scoring))
    hits = []
    for kind, of_kind in scoring.of_kind.items():
        nearest = sounds.nearest(np.stack(list(queries[kind].values())), top, of_kind)
        hits += [
            Hits(kind=kind, query=query, scoring=str(of_kind), sounds=found)
            for query, found in zip(queries[kind], nearest, strict=True)
        ]
    return SearchResult(hits=hits, clap=sounds.space, library=sounds, unread=unread)


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
    captions = functools.cache(lambda: translated_captions(bundle) if bundle else None)
    texts: Any = functools.cache(encode_references) if encode_references else functools.cache(lambda: None)

    def means_of(kind: str) -> Iterator[np.ndarray | None]:
        """Estimates of the mean of queries of a kind, the best first.

        A translator of centred vectors places pictures among texts, whose mean the bundle stores. Others place pictures
        where they place captions, so the mean of translated captions comes first; after it, the stored mean of sounds,
        if pictures are moved among sounds, or of texts; and last the mean of the given texts.
        """
        stored = ModalityMeans() if bundle is None else bundle.means
        if bundle is not None and bundle.spec.input_norm == "centred":
            yield stored.mean("target_text")
        elif kind == "picture":
            yield _mean(captions())
            yield stored.target_text if stored.target_audio is None else stored.target_audio
            yield _mean(texts())
        else:
            yield stored.target_text
            yield _mean(texts())
            yield _mean(captions())

    with_hubness = [kind for kind in kinds if kind in HUBNESS[hubness]]
    reference_kind, reference_RE = "", None
    if with_hubness:
        reference_kind, reference_RE = ("text", texts()) if encode_references else ("picture", captions())
    # The means of pictures and of texts are both known or both unknown.
    centred_kinds = (*kinds, *([] if reference_RE is None else [reference_kind])) if centre else ()
    means = {kind: next((mean_E for mean_E in means_of(kind) if mean_E is not None), None) for kind in centred_kinds}
    has_mean = any(mean_E is not None for mean_E in means.values())
    audio_mean_E = None
    if has_mean and len(sounds.rows) >= MIN_TO_CENTRE:
        audio_mean_E = unit_mean(sounds.blocks())
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
        notes.append(f"pass --references FILE with {MIN_TO_CENTRE} texts or more, one a line")
    if encode_references and not texts.cache_info().currsize:
        notes.append(f"--references not used: with --hubness {hubness} these queries need none")
    of_kind = {
        kind: Scoring(
            query_mean_E=means.get(kind),
            candidate_mean_E=audio_mean_E,
            reference_RE=reference_RE if kind in with_hubness else None,
            reference_mean_E=means.get(reference_kind),
        )
        for kind in kinds
    }
    return SearchScoring(of_kind=of_kind, notes=tuple(notes))


def _mean(reference_RE: np.ndarray | None) -> np.ndarray | None:
    return None if reference_RE is None or len(reference_RE) < MIN_TO_CENTRE else unit_mean([reference_RE])


def _read_references(file: Path, console: Console) -> list[str]:
    """The texts in a file, one a line; of more than REFERENCES, that many evenly spaced ones. Raises CaptionError if
    there is none."""
    source = Txt(f"txt:{file}")
    texts = list(source.rows())
    if source.skipped.counts:
        console.print(f"{file}: {source.skipped}")
    return [texts[place] for place in evenly_spaced(len(texts))]

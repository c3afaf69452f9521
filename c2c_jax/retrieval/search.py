"""The sounds of a library that are nearest to pictures and texts."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float
from rich.console import Console

from c2c_jax.data.caption_files import Txt
from c2c_jax.errors import C2CError, CheckpointError, ConfigError, SoundError
from c2c_jax.io.places import require_folder_place
from c2c_jax.io.progress import Progress, phase
from c2c_jax.io.text import require_text
from c2c_jax.retrieval.library import Library, open_library
from c2c_jax.retrieval.search_scoring import HUBNESS, search_scoring
from c2c_jax.spaces.space import Space, SpaceId, identify, load_space
from c2c_jax.translator.bundle import load_bundle
from c2c_jax.translator.in_use import in_use
from c2c_jax.translator.inference import load_clip, require_same_clap, vectors_of
from c2c_jax.translator.memory import evenly
from c2c_jax.translator.resolve import bundle_folder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hits:
    """The sounds found for a picture's file or a text: scores and files, best first. scoring: how they were scored, in
    words."""

    kind: str  # "picture" or "text"
    query: str
    scoring: str
    sounds: list[tuple[float, Path]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """The outcome of a search. unread: what is wrong with each picture that could not be read; `library` has what is
    wrong with sounds."""

    hits: list[Hits]
    clap: SpaceId
    library: Library
    unread: list[C2CError]

    @property
    def left_out(self) -> list[str]:
        """What is wrong with each file that could not be read, the sounds of earlier searches included."""
        return [*map(str, self.unread), *(one.why for one in self.library.unreadable)]


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
) -> Found:
    """Finds the `top` sounds of a folder for each picture, encoded by CLIP and translated, and for each text, encoded
    by CLAP's text tower.

    Scores are centred cosines, for texts less hubness; see `search_scoring` for missing means and references. centre:
    False for plain cosines. hubness: queries for which hubness is subtracted; "all": for pictures too. references: a
    file with one text a line; the texts replace the captions stored in the translator as reference queries.
    translator: see `bundle_folder`. clip, clap: names as for `load_space`, None: the translator's own. Sounds that are
    new are encoded first, see `Library.update`; index: as for `open_library`. console: for progress and for files that
    cannot be read, which are left out: each is named once, in later searches their number, or with `names_all` each
    again. Raises ConfigError, CaptionError, CheckpointError or BundleError, SoundError where no sound is left,
    ImageError where no query is.
    """
    if not (pictures or texts):
        raise ConfigError("nothing to search for: pass an image or --text")
    for text in texts:
        require_text(text, "--text")
    if index:
        require_folder_place(index, "--index")
    asked = [kind for kind, queries_of_kind in (("picture", pictures), ("text", texts)) if queries_of_kind]
    if references and not (centre or set(asked) & set(HUBNESS[hubness])):
        raise ConfigError(
            f"--references has no effect with --no-centre and --hubness {hubness} for {' and '.join(asked)} queries: "
            "leave one of them out"
        )
    if pictures and not translator:
        raise ConfigError("pictures need --translator, the bundle that carries them to sounds")
    bundle = load_bundle(bundle_folder(translator)) if translator else None
    name = clap or (bundle and bundle.target.name)
    if not name:
        raise ConfigError("texts need --clap, the CLAP that hears the library, or a --translator that names it")
    reference_texts = _texts_of(references, console) if references else []
    with phase(console, "looking for sounds"):
        sounds = open_library(library, identify(name), index)
    unread: list[C2CError] = []
    known = sounds.unreadable.copy()

    @functools.cache
    def load() -> Space:
        space = load_space(name, only=None if sounds.pending else "text")
        if sounds.pending and space.mels is None:
            raise CheckpointError(
                f"{name} has no audio tower to hear sounds with: pass --clap, the whole CLAP whose text tower it is "
                "(AudioLDM's is in its original .ckpt file)"
            )
        return space

    is_same = bundle is None or sounds.space.fingerprint == bundle.target.fingerprint
    if texts or sounds.pending or not is_same:
        with phase(console, "loading CLAP"):
            space = load()
            if bundle and not is_same:
                require_same_clap(bundle, space)

    def encode_references() -> Float[np.ndarray, "R E"]:
        with phase(console, "encoding references"):
            return load().encode_text(reference_texts)

    with Progress(console) as bar:
        queries: dict[tuple[str, str], np.ndarray] = {}
        if bundle and pictures:
            seeing = bar.add_task("seeing", total=len(pictures), visible=len(pictures) > 1)
            seen, unseen = vectors_of(
                pictures, load_clip(bundle, clip, reads_texts=False), bundle, lambda: bar.advance(seeing)
            )
            for line in in_use(bundle):
                console.print(line)
            unread += unseen
            queries |= {("picture", str(path)): vector_E for path, vector_E in seen.items()}
        if texts:
            queries |= {
                ("text", text): vector_E for text, vector_E in zip(texts, load().encode_text(texts), strict=True)
            }
        if not queries:
            raise unread[0]
        count = len(sounds.pending)
        hearing = bar.add_task("hearing", total=count, visible=bool(count))
        errors = sounds.update(load, lambda: bar.advance(hearing))
    if count > len(errors):
        console.print(f"encoded {count - len(errors):,} new sounds of {len(sounds.rows):,}; index: {sounds.place}")
    is_named = names_all or not sounds.rows
    for why in (*unread, *([one.why for one in known] if is_named else []), *errors):
        console.print(f"left out: {why}")
    if known and not is_named:
        console.print(
            f"{len(known):,} of {len(known) + len(errors) + len(sounds.rows):,} sounds are left out, as they could not "
            "be read before; --strict names them"
        )
    if not sounds.rows:
        count = len(sounds.unreadable)
        raise SoundError(f"none of the {count:,} sounds in {library} can be read; they are named above")
    scoring = search_scoring(
        sounds,
        bundle,
        encode_references if reference_texts else None,
        kinds=list(dict.fromkeys(kind for kind, _ in queries)),
        centre=centre,
        hubness=hubness,
    )
    console.print(str(scoring))
    hits = []
    for kind, of_kind in scoring.of_kind.items():
        vectors = {query: vector_E for (other, query), vector_E in queries.items() if other == kind}
        nearest = sounds.nearest(np.stack(list(vectors.values())), top, of_kind)
        hits += [
            Hits(kind=kind, query=query, scoring=str(of_kind), sounds=of)
            for query, of in zip(vectors, nearest, strict=True)
        ]
    return Found(hits=hits, clap=sounds.space, library=sounds, unread=unread)


def _texts_of(file: Path, console: Console) -> list[str]:
    """The texts in a file, one a line; of more than REFERENCES, that many evenly spaced ones. Raises CaptionError if
    there is none."""
    source = Txt(f"txt:{file}")
    texts = list(source.rows())
    if source.skipped.counts:
        console.print(f"{file}: {source.skipped}")
    return [texts[place] for place in evenly(len(texts))]

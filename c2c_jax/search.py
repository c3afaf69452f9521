"""The sounds of a library that are nearest to pictures and texts."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from c2c_jax.errors import C2CError, CheckpointError, ConfigError, SoundError
from c2c_jax.evaluation.encoding import load_clip
from c2c_jax.inference import in_use, require_same_clap, vectors_of
from c2c_jax.io.progress import Progress, phase
from c2c_jax.library import Library, open_library
from c2c_jax.spaces import Space, SpaceId, identify, load_space
from c2c_jax.weights.translator import bundle_in, load_bundle


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hits:
    """What was found for a picture's file or a text: cosines and files, the best first."""

    kind: str  # "picture" or "text"
    query: str
    sounds: list[tuple[float, Path]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """The outcome of a search. left_out: what is wrong with each file that could not be read."""

    hits: list[Hits]
    clap: SpaceId
    library: Library
    left_out: list[C2CError]


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
    console: Console,
) -> Found:
    """The `top` sounds of a folder that are nearest, by cosine in a CLAP space, to each picture, by CLIP's vision tower
    and the translator over its gap statistics, and to each text, by CLAP's text tower.

    clip, clap: names as for `load_space`, None: the translator's own. Sounds that are new are heard first, see
    `Library.update`; index: as for `open_library`. console: for progress and for files that cannot be read, which are
    left out. Raises ConfigError, CheckpointError or BundleError, SoundError where no sound is left, ImageError where no
    query is.
    """
    if not (pictures or texts):
        raise ConfigError("nothing to search for: name a picture, or pass --text")
    if not all(text.strip() for text in texts):
        raise ConfigError("--text is empty: say what to search for")
    if pictures and not translator:
        raise ConfigError("pictures need --translator, the bundle that carries them to sounds")
    bundle = load_bundle(bundle_in(translator)) if translator else None
    name = clap or (bundle and bundle.target.name)
    if not name:
        raise ConfigError("texts need --clap, the CLAP that hears the library, or a --translator that names it")
    with phase(console, "looking for sounds"):
        sounds = open_library(library, identify(name), index)
    left_out: list[C2CError] = []

    @functools.cache
    def load() -> Space:
        space = load_space(name, only=None if sounds.unheard else "text")
        if sounds.unheard and space.mels is None:
            raise CheckpointError(
                f"{name} has no audio tower to hear sounds with: pass --clap, the whole CLAP whose text tower it is "
                "(AudioLDM's is in its original .ckpt file)"
            )
        return space

    is_same = bundle is None or sounds.space.fingerprint == bundle.target.fingerprint
    if texts or sounds.unheard or not is_same:
        with phase(console, "loading CLAP"):
            space = load()
            if bundle and not is_same:
                require_same_clap(bundle, space)
    with Progress(console) as bar:
        queries: dict[tuple[str, str], np.ndarray] = {}
        if bundle and pictures:
            seeing = bar.add_task("seeing", total=len(pictures), visible=len(pictures) > 1)
            seen, unread = vectors_of(
                pictures, load_clip(bundle, clip, reads_texts=False), bundle, lambda: bar.advance(seeing)
            )
            for line in in_use(bundle):
                console.print(line)
            left_out += unread
            queries |= {("picture", str(path)): vector_E for path, vector_E in seen.items()}
        if texts:
            queries |= {
                ("text", text): vector_E for text, vector_E in zip(texts, load().encode_text(texts), strict=True)
            }
        if not queries:
            raise left_out[0]
        count = len(sounds.unheard)
        hearing = bar.add_task("hearing", total=count, visible=bool(count))
        left_out += sounds.update(load, lambda: bar.advance(hearing))
    if count > len(sounds.unheard):
        console.print(
            f"heard {count - len(sounds.unheard):,} new sounds of {len(sounds.rows):,}; index: {sounds.place}"
        )
    for error in left_out:
        console.print(f"left out: {error}")
    if not sounds.rows:
        raise SoundError(f"none of the {len(sounds.unheard):,} sounds in {library} can be read; they are named above")
    nearest = sounds.nearest(np.stack(list(queries.values())), top)
    hits = [Hits(kind=kind, query=query, sounds=of) for (kind, query), of in zip(queries, nearest, strict=True)]
    return Found(hits=hits, clap=sounds.space, library=sounds, left_out=left_out)

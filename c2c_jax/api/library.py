"""A searchable folder of sounds."""

import functools
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from c2c_jax.api.messages import as_integer, flags_to_arguments
from c2c_jax.api.translator import Translator, as_translator
from c2c_jax.errors import AudioError, ConfigError
from c2c_jax.io.files import text_to_path
from c2c_jax.io.images import as_list, is_several
from c2c_jax.io.output_paths import require_output_folder
from c2c_jax.io.progress import Progress
from c2c_jax.io.text import require_text
from c2c_jax.retrieval.library import open_library
from c2c_jax.retrieval.search import HUBNESS_KINDS, rank
from c2c_jax.spaces.space import Space, identify, load_space
from c2c_jax.translator.bundle import Bundle
from c2c_jax.translator.inference import require_same_clap

logger = logging.getLogger(__name__)


class Match(NamedTuple):
    """A search result: the score of a sound (higher is better) and its file."""

    score: float
    path: Path


class SoundLibrary:
    """A folder of sounds, searched by images and texts.

    Sounds are encoded with CLAP once, and their vectors are stored in an index inside the folder. Opening the library
    again encodes only new and changed files.

    folder: a folder of sounds, read recursively. clap: a CLAP with an audio tower, as a name or a loaded `Space`.
    index: the folder of the index; None: `.c2c-index` in `folder`, or the user's cache if `folder` is read-only.
    progress: whether to show progress on stderr.

    Files that cannot be read are left out with a warning, and listed in `unreadable`.
    Raises AudioError for a folder without sounds, CheckpointError for a CLAP that cannot be loaded, StoreError for a
    damaged index.
    """

    @flags_to_arguments
    def __init__(
        self, folder: str | Path, clap: str | Path | Space, *, index: str | Path | None = None, progress: bool = True
    ):
        self.folder, self._clap, self._progress = Path(folder).expanduser(), clap, progress
        space_id = clap.id if isinstance(clap, Space) else identify(clap)
        root = None if index is None else Path(index).expanduser()
        if root:
            require_output_folder(root, "--index")
        self._library = open_library(self.folder, space_id, root)
        with Progress("sounds", quiet=not progress) as bar:
            task = bar.add_task("encoding", total=len(self._library.pending))
            errors = self._library.update(lambda: self.clap, lambda: bar.advance(task))
        for error in errors:
            logger.warning("left out: %s", error)
        if not len(self):
            raise AudioError(f"none of the {len(self.unreadable):,} sounds in {self.folder} can be read")

    def __len__(self) -> int:
        return len(self._library.rows)

    def __repr__(self) -> str:
        return f"SoundLibrary({str(self.folder)!r}, {len(self):,} sounds, {self._library.space.name})"

    @property
    def files(self) -> list[Path]:
        """The sounds that can be found, sorted."""
        return [self.folder / text_to_path(name) for name in sorted(self._library.rows)]

    @property
    def vectors(self) -> Float[np.ndarray, "N E"]:
        """The raw CLAP vectors [N, E] of `files`."""
        return np.concatenate([block.astype(np.float32) for block in self._library.blocks()])

    @property
    def unreadable(self) -> list[str]:
        """A message for each sound that cannot be read."""
        return [file.why for file in self._library.unreadable]

    @functools.cached_property
    def clap(self) -> Space:
        """The CLAP that encodes sounds and texts, loaded at first use."""
        return self._clap if isinstance(self._clap, Space) else load_space(self._clap)

    @flags_to_arguments
    def search(
        self,
        images: Any = None,
        *,
        text: str | Iterable[str] | None = None,
        translator: str | Path | Translator | None = None,
        k: int = 10,
        clip: str | Path | Space | None = None,
        references: Iterable[str] = (),
        centre: bool = True,
        hubness: str = "texts",
    ) -> Any:
        """Finds the k best sounds for an image or text: returns a list of `Match`, best first; for several queries, a
        list of such lists.

        images: one image or several, see `Translator.encode_images`; they need a translator. text: one text or several,
        instead of images. translator: a `Translator` or its name; for texts it only provides means for centring and
        reference queries. clip: see `Translator.encode_images`. references: a few hundred texts to use as reference
        queries; without a translator, their mean also centres the queries. k: number of sounds per query. centre:
        whether to subtract the means of queries and sounds before computing cosines. hubness: "texts", "all" or "none":
        the queries for which the hubness of each sound is subtracted from its score; docs/search.md explains centring
        and hubness.
        Raises ConfigError for contradictory arguments, ImageError for an image that cannot be read, BundleError for a
        translator whose target is another CLAP.
        """
        if (images is None) == (text is None):
            raise ConfigError("search takes either images or text")
        if as_integer("k", k) < 1:
            raise ConfigError(f"k must be 1 or more, found {k}")
        if hubness not in HUBNESS_KINDS:
            raise ConfigError(f"hubness is {hubness!r:.40}: pass {', '.join(HUBNESS_KINDS)}")
        if isinstance(references, str | Path):
            raise ConfigError("references must be a list of texts")
        reference_texts, bundle = list(references), None
        if translator is not None:
            translator = as_translator(translator)
            bundle = translator.bundle
            self._require_target(bundle)
        if text is None:
            if translator is None:
                raise ConfigError("images need a translator: pass translator=")
            is_single, queries, kind = not is_several(images), as_list(images), "image"
            vectors_QE = translator.encode_images(queries, clip=clip)
        else:
            is_single, queries, kind = isinstance(text, str), as_list(text), "text"
            for query in queries:
                require_text(query, "the text")
            vectors_QE = self.clap.encode_text(queries)
        hits = rank(
            self._library,
            bundle,
            {kind: {str(row): vector_E for row, vector_E in enumerate(vectors_QE)}} if len(queries) else {},
            (lambda: self.clap.encode_text(reference_texts)) if reference_texts else None,
            top=int(k),
            centre=centre,
            hubness=hubness,
        )
        found = [[Match(score, path) for score, path in hit.matches] for hit in hits]
        return found[0] if is_single else found

    def _require_target(self, bundle: Bundle) -> None:
        """Raises BundleError unless the library's CLAP is the bundle's target space."""
        if bundle.target.fingerprint != self._library.space.fingerprint:
            require_same_clap(bundle, self.clap)

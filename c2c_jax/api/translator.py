"""The public `Translator` class, and `load`, which loads one by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from c2c_jax.api.messages import flags_to_arguments
from c2c_jax.errors import BundleError, ConfigError, ExportError
from c2c_jax.io.console import printable
from c2c_jax.io.files import user_path
from c2c_jax.io.resolve import BUNDLE_FILES, bundle_folder, is_local, run_name
from c2c_jax.io.vectors import as_vectors, require_directions
from c2c_jax.spaces.space import Space
from c2c_jax.spaces.space_id import SpaceId
from c2c_jax.translator.bundle import Bundle, load_bundle, save_bundle
from c2c_jax.translator.inference import load_clip, require_output_mean, require_same_space, translate

CHECKED_AT_ONCE = 2**14  # vectors
UNKNOWN_SPACE = "(unknown)"  # name of a space that was not stated; no checkpoint can have it


class Translator:
    """A trained translator from the vectors of one joint embedding space (CLIP) to those of another (CLAP).

    Create it with `c2c_jax.load` or `c2c_jax.fit`. path: where it was loaded from, or the work directory of `fit`; None
    if it exists only in memory. history: the training log, one dictionary per entry; empty unless it comes from `fit`.
    """

    def __init__(self, bundle: Bundle, path: Path | None = None, history: Sequence[dict[str, Any]] = ()):
        self.bundle, self.path, self.history = bundle, path, list(history)
        self._clips: dict[str, Space] = {}

    def __repr__(self) -> str:
        spaces = f"{self.source.name} [{self.source.dim}] → {self.target.name} [{self.target.dim}]"
        return f"Translator({self.name!r}, {self.bundle.spec.kind}, {spaces})"

    @property
    def name(self) -> str:
        """The name of the run, folder or hub repository that it comes from; "untitled" if it exists only in memory."""
        return "untitled" if self.path is None else printable(run_name(self.path))

    @property
    def source(self) -> SpaceId:
        """The source space: name, width and fingerprint."""
        return self.bundle.source

    @property
    def target(self) -> SpaceId:
        """The target space: name, width and fingerprint."""
        return self.bundle.target

    def named(self, space: SpaceId) -> str | None:
        """The name of one of its spaces; None if it was trained on arrays without names."""
        return None if space.name == UNKNOWN_SPACE else space.name

    @property
    def metrics(self) -> dict[str, int | float]:
        """The validation scores by name; empty for an imported translator."""
        return dict(self.bundle.metrics)

    @flags_to_arguments
    def translate(self, vectors: Any, *, kind: str = "image", output_mean: str = "text") -> Float[np.ndarray, "B E"]:
        """Translates raw source vectors [B, S] to unit target vectors [B, E], float32.

        vectors: an array of numpy, JAX or torch, or the path of an .npy file. kind: "image" or "text", what the vectors
        are of; the two are centred differently. output_mean: "text" or "audio", the mean that is added to translations
        of images: that of captions or that of sounds.
        Raises VectorError for an array of another width or with vectors that are zero or not finite, ConfigError for a
        mean that the translator does not have.
        """
        if kind not in ("image", "text"):
            raise ConfigError(f"kind is {kind!r:.40}: pass image or text")
        require_output_mean(self.bundle, output_mean)
        source_BS = as_vectors(vectors, "vectors", self.source.dim)
        parts = [np.zeros((0, self.target.dim), np.float32)]
        for start in range(0, len(source_BS), CHECKED_AT_ONCE):
            with np.errstate(over="ignore"):
                part_BS = source_BS[start : start + CHECKED_AT_ONCE].astype(np.float32)
            require_directions(part_BS, "vectors", start)
            parts.append(translate(self.bundle, part_BS, output_mean, kind=kind))
        return np.concatenate(parts)

    @flags_to_arguments
    def encode_images(
        self, images: Any, *, clip: str | Path | Space | None = None, output_mean: str = "text"
    ) -> Float[np.ndarray, "B E"]:
        """Encodes images with CLIP and translates them: unit target vectors [B, E], float32.

        images: one image or several; each a path, a PIL image or an array [H, W, 3] (integers from 0 to 255, or floats
        from 0 to 1). clip: the CLIP, loaded or by name, which is then loaded once; None: the one that the translator
        names.
        output_mean: see `translate`.
        Raises ImageError for an image that cannot be read, CheckpointError or BundleError for a wrong CLIP.
        """
        require_output_mean(self.bundle, output_mean)
        return translate(self.bundle, self.load_clip(clip).encode_images(images), output_mean)

    @flags_to_arguments
    def load_clip(self, name: str | Path | Space | None = None) -> Space:
        """The CLIP whose image vectors the translator takes, loaded once. name: its checkpoint, or a loaded space;
        None: the one that the translator names. Raises CheckpointError if it cannot be loaded, BundleError if it is
        not the translator's source space."""
        if isinstance(name, Space):
            require_same_space(self.source, name.id, "the CLIP")
            return name
        name = str(name or self.named(self.source) or "")
        if not name:
            raise ConfigError(
                "the translator was trained on arrays and does not name its CLIP: pass clip= with the checkpoint that "
                "made the vectors, or spaces= to fit"
            )
        if name not in self._clips:
            self._clips[name] = load_clip(self.bundle, name, with_text=False)
        return self._clips[name]

    @flags_to_arguments
    def save(self, folder: str | Path) -> Path:
        """Writes the translator to a folder, which `load`, `c2c` and `c2c_jax.torch` can read. Replaces an earlier one.

        Raises BundleError if the folder holds anything else, or cannot be written.
        """
        folder = Path(folder).expanduser()
        names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        if folder.is_file() or (names and not set(BUNDLE_FILES) <= names <= {*BUNDLE_FILES, "README.md"}):
            raise BundleError(f"{folder} exists and is not a saved translator: pass another folder")
        save_bundle(folder, self.bundle)
        return folder

    @flags_to_arguments
    def push_to_hub(self, name: str, *, private: bool = False) -> str:
        """Uploads the translator with a model card to the Hugging Face hub, and returns its address. Needs a token
        (`hf auth login` or HF_TOKEN).

        name: OWNER/NAME, created if needed. private: whether the repository must be private. Raises ExportError if the
        hub refuses the upload.
        """
        from c2c_jax.publishing.export import push_bundle
        from c2c_jax.publishing.hub import require_access

        if not self.named(self.source) or not self.named(self.target):
            raise ExportError("the translator was trained on arrays and does not name its spaces: pass spaces= to fit")
        require_access(name)
        return push_bundle(self.bundle, name, origin=self.name, private=private)


@flags_to_arguments
def load(name: str | Path) -> Translator:
    """Loads a translator.

    name: the work directory of a run, a bundle folder, a translator of the package (`miniworld/translator`), or a
    repository of the Hugging Face hub, OWNER/NAME or OWNER/NAME@REVISION; see `bundle_folder`.
    Raises BundleNotFoundError if there is none, BundleError if it is damaged.
    """
    path = user_path(str(name))
    return Translator(load_bundle(bundle_folder(name)), path.absolute() if is_local(path) else path)


def as_translator(translator: str | Path | Translator) -> Translator:
    """A translator, loaded if only its name is given."""
    return translator if isinstance(translator, Translator) else load(translator)

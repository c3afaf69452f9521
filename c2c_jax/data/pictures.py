"""Raw vectors of the unlabelled pictures that a run uses: from picture files, an array, or the mini world."""

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float

from c2c_jax.config import ImagesConfig
from c2c_jax.errors import ConfigError, ImageError
from c2c_jax.io.arrays import read_npz
from c2c_jax.io.atomic import atomic_write
from c2c_jax.io.console import stderr_console
from c2c_jax.io.files import found_at, user_path
from c2c_jax.io.images import find_pictures
from c2c_jax.io.progress import Progress
from c2c_jax.io.vectors import is_array, read_vectors
from c2c_jax.miniworld.pairs import picture_at
from c2c_jax.spaces.encoding import ENCODED_AT_ONCE, source_vectors_of
from c2c_jax.spaces.space import Space, identify, load_space

console = stderr_console()

MINIWORLD = "miniworld:"
MIN_PICTURES = 64  # with fewer, each one weighs too much
KEPT = "pictures.npz"  # in the work directory
DRAWN = re.compile(rf"{MINIWORLD}([0-9]{{1,6}})")


def picture_vectors(
    config: ImagesConfig, source: str, workdir: Path, dim: int | None = None
) -> Float[np.ndarray, "P S"] | None:
    """Raw vectors of the pictures that a config names, by the vision tower of the space `source`; None where it names
    none. They are kept in the work directory and made again where files, or the space, are others.

    An .npy file of raw vectors [P, S] is read as it is, without a tower. dim: the width S that it must have; None: that
    of `source`, or any width if this is "". Files that cannot be read are reported and skipped. Raises ImageError if
    fewer than MIN_PICTURES are left or an array does not fit, ConfigError for an invalid count of mini-world pictures,
    CheckpointError.
    """
    if not config.files:
        return None
    if is_array(array := user_path(config.files)):
        dim = dim or (identify(source).dim if source else None)
        return _enough(np.array(read_vectors(array, dim, ImageError), np.float32), config.files)
    drawn = _count(config.files) if config.files.startswith(MINIWORLD) else 0
    paths = [] if drawn else find_pictures([os.path.expanduser(config.files)], console.print)
    space = load_space(source, only="image")
    listed = [(str(path), (at := path.stat()).st_size, at.st_mtime_ns) for path in paths if path.is_file()]
    key = hashlib.sha256(json.dumps([space.fingerprint, config.files, listed]).encode()).hexdigest()
    kept = workdir / KEPT
    if (found_PS := _kept_vectors(kept, key, drawn or len(paths), space.dim)) is not None:
        return found_PS
    with Progress(console, "pictures", quiet=jax.process_index() != 0) as bar:
        task = bar.add_task("encoding", total=drawn or len(paths))

        def on_picture() -> None:
            bar.advance(task)

        source_PS = _drawn(drawn, space, on_picture) if drawn else _of_files(paths, space, on_picture)
    _enough(source_PS, config.files)
    if jax.process_index() == 0:
        with atomic_write(kept) as temporary, open(temporary, "wb") as file:
            np.savez(file, key=key, source_PS=source_PS)
    return source_PS


def _enough(source_PS: Float[np.ndarray, "P S"], files: str) -> Float[np.ndarray, "P S"]:
    """The vectors as they are. Raises ImageError for fewer than MIN_PICTURES."""
    if len(source_PS) < MIN_PICTURES:
        raise ImageError(f"{files} has {len(source_PS)} pictures that can be read; take {MIN_PICTURES} or more")
    return source_PS


def _kept_vectors(kept: Path, key: str, most: int, dim: int) -> Float[np.ndarray, "P S"] | None:
    """The vectors of an earlier run, `most` of them, where these are of the same pictures and not damaged."""
    if found_at(kept) == "no file":
        return None
    size = np.asarray(key).nbytes + most * dim * np.dtype(np.float32).itemsize
    try:
        found = read_npz(kept, ("key", "source_PS"), size, ImageError, "they are encoded again")
    except ImageError as error:
        console.print(f"{error}")
        return None
    source_PS = found.get("source_PS", np.zeros(0))
    is_of_these = str(found.get("key")) == key and source_PS.ndim == 2 and source_PS.shape[1] == dim
    is_whole = is_of_these and len(source_PS) >= MIN_PICTURES and source_PS.dtype == np.float32
    return source_PS if is_whole and np.isfinite(source_PS).all() else None


def _count(spec: str) -> int:
    """Of the mini world's pictures, how many a config names. Raises ConfigError."""
    if not (found := DRAWN.fullmatch(spec)) or int(found[1]) < MIN_PICTURES:
        raise ConfigError(
            f"config.images.files is {spec!r:.40}; of the mini world's pictures, write {MINIWORLD}COUNT, "
            f"from {MIN_PICTURES} to 999,999"
        )
    return int(found[1])


def _drawn(count: int, space: Space, on_picture: Callable[[], None]) -> Float[np.ndarray, "P S"]:
    """Pictures of the mini world's training split."""
    parts = []
    for start in range(0, count, ENCODED_AT_ONCE):
        numbers = range(start, min(start + ENCODED_AT_ONCE, count))
        parts.append(space.encode_image([picture_at("train", index) for index in numbers]))
        for _ in numbers:
            on_picture()
    return np.concatenate(parts)


def _of_files(paths: list[Path], space: Space, on_picture: Callable[[], None]) -> Float[np.ndarray, "P S"]:
    vectors, errors = source_vectors_of(paths, space, on_picture)
    for error in errors:
        console.print(f"left out: {error}")
    return np.stack([np.zeros(space.dim, np.float32), *vectors.values()])[1:]

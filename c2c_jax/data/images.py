"""Makes the source vectors of a run's unlabelled images: from image files, an array, or the mini world."""

import hashlib
import json
import logging
import re
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float

from c2c_jax.config import ImagesConfig
from c2c_jax.errors import ConfigError, ImageError
from c2c_jax.io.arrays import read_npz
from c2c_jax.io.atomic import atomic_write
from c2c_jax.io.files import describe_path, is_array, user_path
from c2c_jax.io.images import find_images
from c2c_jax.io.progress import Progress
from c2c_jax.io.vectors import read_vectors
from c2c_jax.miniworld.pairs import image_at
from c2c_jax.spaces.encoding import IMAGE_BATCH, encode_image_files
from c2c_jax.spaces.space import identify, load_space

logger = logging.getLogger(__name__)

MIN_IMAGES = 64  # with fewer, each image has too much weight
CACHE = "pictures.npz"  # in the work directory


def image_vectors(
    config: ImagesConfig, source: str, workdir: Path | None, dim: int | None = None
) -> Float[np.ndarray, "P S"] | None:
    """Encodes the images that a config names with the space `source`: vectors [P, S], not normalised; None if it names
    none. The vectors are cached in the work directory, and encoded again if the files or the space change.

    An .npy file of vectors [P, S] is read without encoding. dim: its required width S; None: the width of `source`, or
    any if that is "". Unreadable files are reported and skipped. Raises ImageError if fewer than MIN_IMAGES remain or
    an array does not fit, ConfigError for an invalid count of mini-world images, and CheckpointError.
    """
    if not config.files:
        return None
    path = user_path(config.files)
    if is_array(path):
        dim = dim or (identify(source).dim if source else None)
        return _require_enough(np.array(read_vectors(path, dim, ImageError), np.float32), config.files)
    match = re.fullmatch("miniworld:([0-9]{1,6})", config.files)
    count = int(match[1]) if match else 0
    if config.files.startswith("miniworld:") and count < MIN_IMAGES:
        raise ConfigError(
            f"config.images.files is {config.files!r:.40}; for images of the mini world, write miniworld:COUNT with "
            f"{MIN_IMAGES} to 999,999 images"
        )
    files = [] if count else find_images([str(path)])
    space = load_space(source, only="image")
    listed = [(str(file), (status := file.stat()).st_size, status.st_mtime_ns) for file in files if file.is_file()]
    key = hashlib.sha256(json.dumps([space.fingerprint, config.files, listed]).encode()).hexdigest()
    cache = workdir and workdir / CACHE
    if cache and (cached_PS := _cached_vectors(cache, key, count or len(files), space.dim)) is not None:
        return cached_PS
    with Progress("images", quiet=jax.process_index() != 0) as bar:
        task = bar.add_task("encoding", total=count or len(files))
        parts_PS: list[np.ndarray] = [np.zeros((0, space.dim), np.float32)]
        for start in range(0, count, IMAGE_BATCH):
            images = [image_at("train", index) for index in range(start, min(start + IMAGE_BATCH, count))]
            parts_PS.append(space.encode_images(images))
            bar.advance(task, len(images))
        vectors, errors = encode_image_files(files, space, lambda: bar.advance(task))
    for error in errors:
        logger.warning("left out: %s", error)
    vectors_PS = _require_enough(
        np.concatenate([*parts_PS, *(vector_S[None] for vector_S in vectors.values())]), config.files
    )
    if cache and jax.process_index() == 0:
        with atomic_write(cache) as temporary, open(temporary, "wb") as opened:
            np.savez(opened, key=key, source_PS=vectors_PS)
    return vectors_PS


def _require_enough(vectors_PS: Float[np.ndarray, "P S"], files: str) -> Float[np.ndarray, "P S"]:
    if len(vectors_PS) < MIN_IMAGES:
        raise ImageError(f"{files} has {len(vectors_PS)} readable images; pass {MIN_IMAGES} or more")
    return vectors_PS


def _cached_vectors(cache: Path, key: str, count: int, dim: int) -> Float[np.ndarray, "P S"] | None:
    """Reads the vectors that an earlier run cached, at most `count`; None if they are damaged or of other images."""
    if describe_path(cache) == "no file":
        return None
    size = np.asarray(key).nbytes + count * dim * np.dtype(np.float32).itemsize
    try:
        arrays = read_npz(cache, ("key", "source_PS"), size, ImageError, "they are encoded again")
    except ImageError as error:
        logger.warning("%s", error)
        return None
    vectors_PS = arrays.get("source_PS", np.zeros(0))
    has_shape = vectors_PS.shape[1:] == (dim,) and len(vectors_PS) >= MIN_IMAGES and vectors_PS.dtype == np.float32
    is_valid = str(arrays.get("key")) == key and has_shape and np.isfinite(vectors_PS).all()
    return vectors_PS if is_valid else None
